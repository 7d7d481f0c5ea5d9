"""Mutated audio files: no crash, no hang, nothing taken that is not what was recorded, all counted.

200 in the suite, 10,000 under `slow`.  A decoder that hangs is ended by an alarm, one that crashes ends the run.
"""

import errno
import io
import os
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from undersong.corpora.audio_metadata import examine
from undersong.corpora.decode import inaudible_reason, load_clip, load_clips
from undersong.corpora.integrity import mp3_corruption, ogg_corruption
from undersong.types import Sample

RATE = 16_000
KINDS = {
    "wav": ("WAV", "PCM_16"),
    "u8": ("WAV", "PCM_U8"),
    "float": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "opus": ("OGG", "OPUS"),
    "vorbis": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
}
SUMMED = ("flac", "opus", "vorbis")  # formats with checksums: no damage may pass
MAGIC = (b"", b"ID3\x04", b"\xff\xfb\x90\x00", b"OggS\0\2", b"RIFF\xff\xff\xff\x7fWAVEfmt ", b"fLaC", b"FORM", b".snd")


def encoded(wave: np.ndarray, format: str, subtype: str, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=format, subtype=subtype)
    return file.getvalue()


def speech() -> np.ndarray:
    time = np.arange(2 * RATE) / RATE
    return 0.4 * np.sin(600 * np.pi * time * (1 + 0.3 * np.sin(3 * time))) * (0.6 + 0.4 * np.sin(9 * time))


@pytest.fixture(scope="module")
def wholes() -> dict[str, bytes]:
    return {name: encoded(speech(), *kind) for name, kind in KINDS.items()}


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Ends what hangs; `slow` may take minutes over 10,000 files but no more."""

    def late(*_: object) -> None:
        raise AssertionError("decoding hangs")  # not TimeoutError: that is an OSError, which the reader answers

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def mutate(whole: bytes, draws: np.random.Generator) -> tuple[str, bytes]:
    """(what was done, the damaged file)."""
    what = str(draws.choice(["truncated", "random", "flipped", "header", "hole", "repeated", "magic", "zeros"]))
    n = len(whole)
    data = bytearray(whole)
    a, b = sorted(int(i) for i in draws.integers(1, n, 2))
    if what == "truncated":
        return what, whole[:a]
    if what == "random":
        return what, MAGIC[draws.integers(len(MAGIC))] + draws.bytes(int(draws.integers(1, 20_000)))
    if what == "flipped":
        for place in draws.integers(0, n, draws.integers(1, 6)):
            data[place] ^= int(draws.integers(1, 256))
    elif what == "header":
        for place in draws.integers(0, min(n, 48), draws.integers(1, 4)):
            data[place] = int(draws.choice([0, 1, 127, 128, 255, int(draws.integers(256))]))
    elif what == "hole":
        del data[a:b]
    elif what == "repeated":
        data[a:a] = data[a:b]
    elif what == "magic":
        data[:4] = MAGIC[draws.integers(1, len(MAGIC))][:4].ljust(4, b"\0")
    else:
        data[a:b] = bytes(b - a)
    return what, bytes(data)


def survive(wholes: dict[str, bytes], count: int, seed: int) -> Counter[str]:
    """Decode `count` mutated files; returns what was done to those that were taken."""
    draws, taken = np.random.default_rng(seed), Counter[str]()
    clean = {name: load_clip(Sample(name, audio=data)).samples for name, data in wholes.items()}
    for number in range(count):
        name = list(wholes)[number % len(wholes)]
        what, data = mutate(wholes[name], draws)
        clips, failed = load_clips([Sample(f"{number}", audio=data)])
        assert len(clips) + len(failed) == 1  # counted, one way or the other
        for item in failed:
            assert item.reason
            assert "0x" not in item.reason
        if not clips or data == wholes[name]:
            continue
        (clip,) = clips
        taken[f"{name} {what}"] += 1
        assert clip.samples.size > 0
        assert np.isfinite(clip.samples).all()
        assert np.abs(clip.samples).max() <= 10
        same = clip.samples.size == clean[name].size and np.allclose(clip.samples, clean[name], atol=1e-4)
        assert what != "random", f"{number}: bytes by chance were taken for a clip"
        if name in SUMMED:
            assert same, f"{number}: damaged {name} ({what}) was taken"
        elif what == "truncated":
            # What is cut off may be behind the samples, or the last frame of an MP3: 26 ms.
            assert clip.samples.size >= clean[name].size - 0.1 * RATE, f"{number}: a cut {name} was taken"
    return taken


def test_two_hundred_mutated_files(wholes: dict[str, bytes]) -> None:
    taken = survive(wholes, 200, 1)
    assert sum(taken.values()) < 100


@pytest.mark.slow
def test_ten_thousand_mutated_files(wholes: dict[str, bytes]) -> None:
    taken = survive(wholes, 10_000, 2)
    print(sorted(taken.items()))
    assert sum(taken.values()) < 5_000


@pytest.mark.parametrize(
    ("wave", "kind", "rate"),
    [
        (speech(), ("WAV", "PCM_U8"), RATE),
        (np.repeat(speech(), 12), ("WAV", "PCM_16"), 192_000),
        (np.tile(speech()[:, None], 12), ("WAV", "PCM_16"), RATE),
        (np.tile(np.repeat(speech(), 12)[:, None], 12), ("WAVEX", "PCM_24"), 192_000),
        (np.tile(speech()[:, None], 8), ("FLAC", "PCM_24"), RATE),
    ],
)
def test_odd_files_that_are_whole_are_heard(wave: np.ndarray, kind: tuple[str, str], rate: int) -> None:
    clip = load_clip(Sample("a", audio=encoded(wave, *kind, rate)))
    assert clip.samples.size == 2 * RATE
    assert np.corrcoef(clip.samples, speech())[0, 1] > 0.99
    assert inaudible_reason(clip) is None


def test_hours_of_silence_are_read_and_flagged_and_days_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = encoded(np.zeros(600 * RATE, np.int16), "FLAC", "PCM_16")
    assert len(silence) < 100_000
    clip = load_clip(Sample("a", audio=silence))
    assert clip.samples.size == 600 * RATE
    assert inaudible_reason(clip) is not None
    monkeypatch.setattr("undersong.corpora.decode.MAX_SECONDS", 540)
    monkeypatch.setattr("undersong.corpora.decode.BLOCK", 1 << 16)
    _, (failed,) = load_clips([Sample("a", audio=silence)])
    assert failed.reason == "the audio is longer than 0.15 h; cut it"


def test_paths_that_are_no_files_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "two").symlink_to(tmp_path / "three")
    (tmp_path / "three").symlink_to(tmp_path / "two")
    (tmp_path / "big").write_bytes(b"RIFF" * 10)
    monkeypatch.setattr("undersong.corpora.decode.MAX_FILE_BYTES", 30)
    loop = os.strerror(errno.ELOOP)
    expected = {
        "pipe": "no file but a pipe",
        "loop": loop,
        "two": loop,
        ".": "Is a directory",
        "gone": "No such file",
        "big": "MiB",
    }
    expected |= {"/dev/zero": "device", "a\0b": "null", "x" * 5_000: os.strerror(errno.ENAMETOOLONG)}
    signal.alarm(20)
    kept, failed = examine([Sample(name, audio=str(tmp_path / name)) for name in expected])
    assert kept == ()
    assert [item.id for item in failed] == list(expected)
    for item in failed:
        assert expected[item.id] in item.reason


def test_a_link_to_a_clip_is_a_clip(tmp_path: Path, wholes: dict[str, bytes]) -> None:
    (tmp_path / "a.wav").write_bytes(wholes["wav"])
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    assert load_clip(Sample("b", audio=str(tmp_path / "b.wav"))).samples.size == 2 * RATE


def test_a_header_that_contradicts_itself_is_not_believed(wholes: dict[str, bytes]) -> None:
    data = bytearray(wholes["wav"])
    data[24:28] = struct.pack("<I", 8_000)  # half the rate, and a byte rate that says otherwise
    _, (failed,) = load_clips([Sample("a", audio=bytes(data))])
    assert "contradicts itself" in failed.reason
    data[28:32] = bytes(4)  # no byte rate at all is no contradiction
    assert load_clip(Sample("a", audio=bytes(data))).samples.size == 4 * RATE


def test_a_flac_header_that_lies_is_found_out(wholes: dict[str, bytes]) -> None:
    whole = wholes["flac"]
    info = int.from_bytes(whole[18:26], "big")  # rate 20 bits, channels 3, bits 5, samples 36
    for lie, reason in (((info & ~(0xFFFFF << 44)) | 8_000 << 44, "contradicts itself"), (info - 20_000, "checksum")):
        _, (failed,) = load_clips([Sample("a", audio=whole[:18] + lie.to_bytes(8, "big") + whole[26:])])
        assert reason in failed.reason
    unsigned = whole[:26] + bytes(16) + whole[42:]  # an encoder that streamed leaves the checksum out
    assert np.array_equal(load_clip(Sample("a", audio=unsigned)).samples, load_clip(Sample("a", audio=whole)).samples)
    for subtype in ("PCM_S8", "PCM_24"):
        load_clip(Sample("a", audio=encoded(np.tile(speech()[:, None], 3), "FLAC", subtype)))


def test_ogg_pages(wholes: dict[str, bytes]) -> None:
    whole = wholes["opus"]
    pages = [whole[a:b] for a, b in zip(starts(whole), [*starts(whole)[1:], len(whole)])]
    assert len(pages) > 3
    assert ogg_corruption(whole) is None
    assert ogg_corruption(whole + b"\0" * 50) is None
    assert "missing" in str(ogg_corruption(b"".join(pages[:2] + pages[3:])))
    assert "checksum" in str(ogg_corruption(whole[:-1] + bytes([whole[-1] ^ 1])))
    assert "no beginning" in str(ogg_corruption(whole + b"x"))
    assert "no beginning" in str(ogg_corruption(b"x" + whole))
    assert "not whole" in str(ogg_corruption(whole[:-1]))


def starts(whole: bytes) -> list[int]:
    return [place for place in range(len(whole)) if whole.startswith(b"OggS", place)]


def test_mp3_frames(wholes: dict[str, bytes]) -> None:
    whole = wholes["mp3"]
    tag = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    for fine in (whole, tag + whole, whole + b"TAG" + bytes(125), whole + tag + whole, whole + whole, whole[:-20]):
        assert mp3_corruption(fine) is None
    other = encoded(speech(), "MP3", "MPEG_LAYER_III", 22_050)  # another rate in one file
    for bad in (whole + other, whole[:900] + whole[905:], whole + b"junk" * 9, whole[:900] + b"x" + whole[900:]):
        assert "no MPEG frame" in str(mp3_corruption(bad))


def test_decoders_crash_nothing_in_a_process_of_their_own(tmp_path: Path, wholes: dict[str, bytes]) -> None:
    """A file of each kind cut in the middle, from the command line: an answer, no signal."""
    for name, data in wholes.items():
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    code = "import sys; from undersong.corpora.audio_metadata import examine; from undersong.types import Sample\n"
    code += "print(len(examine([Sample(p, audio=p) for p in sys.argv[1:]])[1]))"
    paths = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=1800)
    assert (done.returncode, done.stdout) == (0, f"{len(wholes)}\n")


def test_the_checks_agree_with_files_of_many_lengths(sound: Callable[..., bytes]) -> None:
    for format, subtype, check in (
        ("OGG", "OPUS", ogg_corruption),
        ("OGG", "VORBIS", ogg_corruption),
        ("MP3", "MPEG_LAYER_III", mp3_corruption),
    ):
        for rate in (8_000, 16_000, 48_000):
            for seconds in (0.1, 0.5, 3.0):
                assert check(sound(format=format, subtype=subtype, rate=rate, seconds=seconds)) is None
