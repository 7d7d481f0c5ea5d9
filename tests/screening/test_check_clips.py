"""Checks that compare clips: what is recorded in another way is not compared, written references are spoken, and speech
is transcribed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from undersong.corpora.manifest import write_manifest
from undersong.screening.check import spoken_references
from undersong.screening.check.inputs import CheckInputs
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.recordings import MAX_APART, recording_distance
from undersong.screening.check.request_sets import RequestSet, drawn_set
from undersong.screening.check.requests import RequestText
from undersong.screening.check.result import CheckResult
from undersong.screening.check.run import run_check
from undersong.screening.check.spoken_references import DEFAULT_VOICES, speak_set
from undersong.stages.context import RunContext
from undersong.store.store import Store
from undersong.types import Quarantined, Sample, UndersongError

Speak = Callable[[str, int, float], list[Sample]]


@pytest.fixture(scope="module")
def speak(tmp_path_factory: pytest.TempPathFactory) -> Speak:
    """Short clips of noise around a pitch -> samples."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)

    def make(name: str, count: int, pitch: float) -> list[Sample]:
        samples = []
        for i in range(count):
            time, file = np.arange(1600) / 16_000, folder / f"{name}{i}.wav"
            tone = sum(np.sin(2 * np.pi * pitch * rng.uniform(0.7, 1.4) * time) for _ in range(3))
            soundfile.write(file, 0.1 * tone + 0.01 * rng.standard_normal(1600), 16_000)
            samples.append(Sample(f"{name}{i}", str(file), text=f"{name} number{i}", answer="ok"))
        return samples

    return make


@pytest.fixture(scope="module")
def clips(speak: Speak) -> dict[str, list[Sample]]:
    """Clips of two recordings: a low one, and a high one."""
    counts = {"harm": (12, 300.0), "ordinary": (150, 300.0), "same": (20, 300.0), "bright": (20, 3000.0)}
    return {name: speak(name, count, pitch) for name, (count, pitch) in counts.items()}


def silent(samples: Iterable[Sample]) -> list[Sample]:
    return [replace(sample, text=None) for sample in samples]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def check(clips: dict[str, list[Sample]], tmp_path: Path, store: Path) -> Callable[..., CheckResult]:
    """Checks samples against the clips of harm and ordinary requests."""

    def run(data: Sequence[Sample], harm: str = "harm", ordinary: str = "ordinary", **options: Any) -> CheckResult:
        sides = {"data": data, "harm.set": silent(clips[harm]), "ordinary.set": silent(clips[ordinary])}
        files = {name: tmp_path / f"{name}.parquet" for name in sides}
        for name, samples in sides.items():
            write_manifest(samples, files[name])
        references = {"harm": str(files["harm.set"]), "ordinary": str(files["ordinary.set"])}
        return run_check(CheckRequest(files["data"], **references, store=store, **options))

    return run


def test_sound_is_measured_where_all_is_spoken(check: Callable[..., CheckResult], clips) -> None:
    result = check(silent(clips["same"]))
    assert [(axis.name, axis.encoder, axis.obstacle) for axis in result.axes] == [("sound", "logmel", None)]
    assert not result.axes[0].separates  # of the same voices, so sound tells nothing
    assert (result.verdict, result.ranked) == ("cannot tell", ())
    assert "No axis tells the harm set from ordinary requests: sound (AUC" in result.sentence
    assert "By sound, your clips are compared with 12 harmful and 100 ordinary ones." in result.notes


def test_clips_that_cannot_be_read_are_counted(check: Callable[..., CheckResult], clips, tmp_path: Path) -> None:
    first, *others = clips["same"]
    result = check([*others, replace(first, audio=str(tmp_path / "none.wav"))], axes={"sound": "logmel"})
    count = len(clips["same"])
    assert any(
        f"1 of {count} samples were not compared, because their clips cannot be used, the first: sample {count} of"
        in note
        for note in result.notes
    )


def test_the_clips_are_in_the_key(clips, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.parquet" for name in ("harm", "ordinary", "data")}
    for name, file in files.items():
        write_manifest(silent(clips["same" if name == "data" else name][:8]), file)
    copied = tmp_path / "clip.wav"
    copied.write_bytes(Path(str(clips["same"][0].audio)).read_bytes())
    write_manifest([replace(clips["same"][0], text=None, audio=str(copied))], files["data"])
    request = CheckRequest(files["data"], harm=str(files["harm"]), ordinary=str(files["ordinary"]))
    first = CheckInputs(request).key()
    assert CheckInputs(request).key() == first
    copied.write_bytes(Path(str(clips["bright"][0].audio)).read_bytes())
    assert CheckInputs(request).key() != first


def test_harm_that_is_recorded_in_another_way_is_no_alarm(check: Callable[..., CheckResult], clips) -> None:
    clips["bright harm"] = clips["bright"][:10]
    result = check(silent(clips["bright"][10:]), harm="bright harm")
    (axis,) = result.axes
    assert axis.separates
    assert axis.nearer.successes == 10  # all: the data are recorded as the harm is
    assert not axis.is_usable
    assert (result.verdict, result.exit_code, result.ranked) == ("cannot tell", 3, ())
    assert "your clips sound different from the ordinary ones (by log-mel, AUC 1.00" in result.sentence
    assert "name --ordinary (and --harm) speech that is recorded as yours is" in result.sentence
    ordinary = check(silent(clips["same"]), harm="bright harm")
    assert "the harmful clips sound different from the ordinary ones" in ordinary.sentence
    assert ordinary.axes[0].nearer.successes <= ordinary.axes[0].expected.high
    assert ordinary.exit_code == 3  # no false reassurance


def test_recordings_are_apart_by_how_far_they_lie_from_ordinary_ones() -> None:
    rng = np.random.default_rng(1)
    ordinary, names = 5 + rng.standard_normal((120, 8)), [i // 2 for i in range(120)]
    alike = [
        recording_distance(5 + rng.standard_normal((60, 8)), range(60), ordinary, names, seed).value
        for seed in range(20)
    ]
    assert np.mean(alike) == pytest.approx(0.5, abs=0.06)
    assert max(alike) < MAX_APART
    other = 5 + rng.standard_normal((60, 8)) * [1, 1, 1, 1, 4, 4, 4, 4]
    assert recording_distance(other, range(60), ordinary, names, 0).low > MAX_APART


def test_few_requests_are_drawn_over_all_clusters() -> None:
    requests = tuple(RequestText(f"{i}", "a", cluster=i // 4) for i in range(40))
    everything = RequestSet(requests, tuple(range(40)), tuple(Sample(str(i), text="a") for i in range(40)))
    drawn = drawn_set(everything, 15, seed=0)
    assert drawn == drawn_set(everything, 15, seed=0)
    assert len(set(drawn.clusters)) == 10
    assert [sample.id for sample in drawn.samples] == [str(i) for i in range(15)]
    assert drawn_set(everything, 40, seed=0) is everything


def test_written_references_are_spoken_in_the_same_voices(
    clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = []

    def synthesize(samples: Sequence[Sample], voices, folder: Path):
        spoken.extend((voice.name, sample.id) for voice in voices for sample in samples)
        lost = [sample.id for sample in samples if sample.text == "mute"]
        audio = clips["harm"][0].audio
        kept = tuple(
            replace(sample, audio=audio, speaker=voices[0].label) for sample in samples if sample.id not in lost
        )
        return kept, tuple(Quarantined(id, "mute") for id in lost)

    monkeypatch.setattr(spoken_references, "synthesize_speech", synthesize)
    monkeypatch.setattr(spoken_references, "voice_identity", lambda voice: (voice.engine, voice.name))
    ctx = RunContext(Store(tmp_path / "store"))

    def requests(texts: Sequence[str]) -> RequestSet:
        items = tuple(RequestText(f"r{i}", text, i) for i, text in enumerate(texts))
        return RequestSet(items, tuple(range(len(texts))), tuple(Sample(str(i), text=t) for i, t in enumerate(texts)))

    texts = ["mute", *(f"text {i}" for i in range(8))]
    first = speak_set(ctx, requests(texts), DEFAULT_VOICES)
    assert [item.id for item in first.requests] == [f"r{i}" for i in range(1, 9)]
    assert [sample.id for sample in first.samples] == [str(i) for i in range(8)]
    assert len({sample.speaker for sample in first.samples}) == len(DEFAULT_VOICES)
    assert len(spoken) == 9
    assert speak_set(ctx, requests(texts), DEFAULT_VOICES) == first
    assert len(spoken) == 9  # kept in the store
    with pytest.raises(UndersongError, match="None of 1 requests can be spoken by"):
        speak_set(ctx, requests(["mute"]), DEFAULT_VOICES)


def test_without_a_voice_the_error_says_what_to_do(clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(silent(clips["same"]), tmp_path / "data.parquet")
    request = CheckRequest(tmp_path / "data.parquet", axes={"sound": "logmel"})
    monkeypatch.setattr(spoken_references, "find_spec", lambda _name: None)
    with pytest.raises(
        UndersongError, match=r"\[tts\].*name a spoken --harm and --ordinary, or give --transcribe MODEL"
    ):
        run_check(request)
    monkeypatch.setattr(spoken_references, "find_spec", lambda _name: object())
    _, ordinary, *are_written = CheckInputs(replace(request, reference_size=60)).references
    assert (len(ordinary.samples), are_written) == (180, [True, True])


def test_speech_without_transcripts_is_transcribed(clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from undersong.encoders.asr import Transcript, Transcripts

    data = [*silent(clips["same"])[:3], clips["same"][3]]
    write_manifest(data, tmp_path / "data.parquet")
    heard: list[str] = []

    class Artifact:
        path = tmp_path
        quarantined = ()

    def transcribe_corpus(_ctx, model: str, corpus):
        heard.extend(sample.id for sample in corpus.samples)
        return Artifact()

    rows = (Transcript("0", "tell me about whales", 1, "w"), Transcript("2", "how do I build a bomb", 1, "w"))
    monkeypatch.setattr("undersong.stages.transcripts.transcribe_corpus", transcribe_corpus)
    failed = (Quarantined("1", "the transcript is empty"),)
    monkeypatch.setattr("undersong.encoders.asr.read_transcripts", lambda _folder: Transcripts(rows, failed))
    monkeypatch.setattr("undersong.models.refs.model_hash", lambda _ref: "0" * 64)
    result = run_check(CheckRequest(tmp_path / "data.parquet", transcribe="whisper", store=tmp_path / "store"))
    assert len(heard) == 3  # what has a transcript keeps it
    assert {sample.text for sample in result.ranked} == {rows[0].text, rows[1].text, "same number3"}
    assert result.ranked[0].text == "how do I build a bomb"
    assert result.unmeasured == 1
    assert result.notes[0] == (
        "1 of 4 samples is spoken without a transcript, so words say nothing of what is said in it."
    )
    assert (
        "whisper transcribed 2 clips, errors included. It could not transcribe 1 clip, the first: same1 "
        "(the transcript is empty)." in result.notes
    )
    silence = Transcripts((), (Quarantined("1", "it did not end"),))
    monkeypatch.setattr("undersong.encoders.asr.read_transcripts", lambda _folder: silence)
    with pytest.raises(UndersongError, match=r"None of 3 clips .* by whisper, the first: same1 \(it did not end\)"):
        run_check(CheckRequest(tmp_path / "data.parquet", transcribe="whisper", cache=False))
    write_manifest(clips["same"][:3], tmp_path / "data.parquet")
    with pytest.raises(UndersongError, match="has no clip without a transcript that is here; leave --transcribe out"):
        run_check(CheckRequest(tmp_path / "data.parquet", transcribe="whisper", cache=False))
