"""Clips: any rate, channels and format become the same signal; what cannot be heard is named, never guessed."""

import hashlib
import io
import signal
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.corpora import decode
from undersong.corpora.audio_metadata import examine
from undersong.corpora.decode import UnreadableAudioError, load_clip, load_clips, pcm_hash
from undersong.types import Clip, Sample, UndersongError

Sound = Callable[..., bytes]
fixed = settings(deadline=None, derandomize=True, max_examples=150)


def tone(n: int, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(n) / rate)


def wav(samples: np.ndarray, rate: int = 16_000, subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE"])
def test_any_rate_channels_and_width_give_the_same_tone(sound: Sound, rate: int, channels: int, subtype: str) -> None:
    clip = load_clip(Sample("a", audio=sound(rate=rate, channels=channels, subtype=subtype)))
    assert clip.samples.dtype == np.float32
    assert clip.samples.ndim == 1
    assert clip.rate == 16_000
    assert abs(clip.samples.size - 8_000) <= 1
    inner = slice(800, 7_200)  # the resampler rings where the tone begins and ends
    assert np.abs(clip.samples[inner] - tone(8_000)[inner]).max() < 0.01


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("FLAC", "PCM_16"),
        ("OGG", "OPUS"),
        ("OGG", "VORBIS"),
        ("MP3", "MPEG_LAYER_III"),
        ("AIFF", "PCM_16"),
        ("AU", "ULAW"),
    ],
)
def test_the_content_decides_not_the_name(tmp_path: Path, sound: Sound, format: str, subtype: str) -> None:
    data = sound(format=format, subtype=subtype)
    for name in ("speech.wav", "speech.raw", "speech", "späch ☃.mp3"):
        (tmp_path / name).write_bytes(data)
        clip = load_clip(Sample("a", audio=str(tmp_path / name)))
        assert np.array_equal(clip.samples, load_clip(Sample("a", audio=data)).samples)
        assert abs(clip.samples.size - 8_000) <= 1_152  # a codec may pad to a frame
        assert np.abs(np.fft.rfft(clip.samples[:8_000])).argmax() == 220  # 440 Hz in bins of 2 Hz


def test_channels_are_averaged() -> None:
    left, right = tone(1_000), tone(1_000, hertz=700)
    clip = load_clip(Sample("a", audio=wav(np.stack([left, right], axis=1))))
    assert np.allclose(clip.samples, (left + right) / 2, atol=1e-6)


def test_other_target_rates() -> None:
    assert load_clip(Sample("a", audio=wav(tone(16_000))), rate=24_000).samples.size == 24_000
    assert load_clip(Sample("a", audio=wav(tone(16_000))), rate=24_000).rate == 24_000


def nan_wave() -> np.ndarray:
    wave = tone(1_000)
    wave[7] = np.nan
    return wave


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"RIFF", "damaged"),
        (b"not audio at all" * 100, "damaged"),
        (wav(np.empty(0)), "no samples"),
        (wav(nan_wave()), "NaN"),
        (wav(np.array([0.1, np.inf, 0.2])), "NaN or infinite"),
        (wav(np.stack([tone(100), nan_wave()[:100]], axis=1)), "NaN"),
        (wav(tone(1_000) * 32_768), "full scale"),
        (wav(tone(1_000), rate=1), "sampling rate of 1 Hz"),
        (wav(np.array([0.5]), rate=192_000), "too short"),
        (None, "no audio"),
        ("missing.wav", r"missing\.wav.*No such file"),
        (".", "cannot be opened"),
    ],
    # Names of their own: a float WAV holds the second it was written in, and parallel workers must collect the same.
    ids=[
        "nothing", "half a header", "no audio file", "no samples", "NaN", "infinite", "NaN in one channel", "too loud",
        "1 Hz", "too short", "no audio", "missing file", "folder",
    ],
)  # fmt: skip
def test_what_cannot_be_heard_is_named(data: str | bytes | None, reason: str) -> None:
    with pytest.raises(UnreadableAudioError, match=reason) as caught:
        load_clip(Sample("bird-7", audio=data, text="a bird"))
    assert isinstance(caught.value, UndersongError)
    assert "bird-7" in str(caught.value)
    assert "bird-7" not in caught.value.reason
    assert "0x" not in caught.value.reason  # no address: reasons are the same in every run


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        *(
            ("WAV", "PCM_16"),
            ("WAV", "FLOAT"),
            ("WAVEX", "PCM_16"),
            ("AIFF", "PCM_16"),
            ("AU", "PCM_16"),
            ("W64", "PCM_16"),
        ),
        *(("CAF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "OPUS"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")),
    ],
)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.8])
def test_a_file_cut_short_is_not_half_a_clip(sound: Sound, format: str, subtype: str, share: float) -> None:
    whole = sound(format=format, subtype=subtype, seconds=3)
    load_clip(Sample("a", audio=whole))
    with pytest.raises(UnreadableAudioError):
        load_clip(Sample("a", audio=whole[: int(len(whole) * share)]))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFBE])
def test_a_streamed_wav_whose_writer_did_not_know_its_length_is_whole(size: int) -> None:
    data = bytearray(wav(tone(16_000), subtype="PCM_16"))
    start = data.find(b"data")
    data[start + 4 : start + 8] = struct.pack("<I", size)
    data[4:8] = struct.pack("<I", size)
    assert load_clip(Sample("a", audio=bytes(data))).samples.size == 16_000


@fixed
@given(changes=st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_bytes_give_a_clip_or_a_reason(changes: list[tuple[int, int]]) -> None:
    data = bytearray(wav(tone(480), subtype="PCM_16"))
    for place, value in changes:
        data[place % len(data)] = value
    clips, failed = load_clips([Sample("a", audio=bytes(data))])
    assert len(clips) + len(failed) == 1
    for clip in clips:
        assert clip.samples.size > 0
        assert np.isfinite(clip.samples).all()


def test_load_clips_loses_nothing() -> None:
    good = wav(tone(1_600))
    samples = [Sample("a", audio=good), Sample("b", audio=b""), Sample("c", audio=good), Sample("d", text="written")]
    clips, failed = load_clips(samples)
    assert [clip.id for clip in clips] == ["a", "c"]
    assert [(item.id, item.reason) for item in failed] == [("b", "the audio file is empty"), ("d", "there is no audio")]


def test_pcm_hash_is_of_what_is_heard() -> None:
    clip = load_clip(Sample("a", audio=wav(tone(1_600))))
    expected = hashlib.sha256(b"16000\n" + clip.samples.astype("<f4").tobytes()).hexdigest()
    assert pcm_hash(clip) == expected == pcm_hash(replace(clip, id="b"))
    assert pcm_hash(clip) != pcm_hash(replace(clip, rate=8_000))
    louder = clip.samples.copy()
    louder[3] = np.nextafter(louder[3], 1)
    assert pcm_hash(clip) != pcm_hash(Clip("a", louder, 16_000))
    integers, lossless = (tone(1_600) * 32_767).astype(np.int16), io.BytesIO()
    soundfile.write(lossless, integers, 16_000, format="FLAC", subtype="PCM_16")
    same = load_clip(Sample("a", audio=wav(integers, subtype="PCM_16")))
    assert pcm_hash(load_clip(Sample("x", audio=lossless.getvalue()))) == pcm_hash(same)


def test_examine_fills_in_and_sets_aside(sound: Sound) -> None:
    spoken = Sample("a", audio=sound(rate=8_000, seconds=0.5), text="hello", pcm_hash="claimed", seconds=9.0)
    written, broken, empty = Sample("b", text="hi"), Sample("c", audio=b"x", text="x"), Sample("d", text="  ")
    counted: list[int] = []
    kept, failed = examine([spoken, written, broken, empty], counted.append)
    assert counted == [1, 2, 3, 4]  # so that a bar reaches its end
    assert [sample.id for sample in kept] == ["a", "b"]
    assert kept[0] == replace(spoken, seconds=kept[0].seconds, pcm_hash=kept[0].pcm_hash)
    assert kept[0].seconds == pytest.approx(0.5, abs=1e-3)
    assert kept[0].pcm_hash == pcm_hash(load_clip(spoken))
    assert kept[1] == written
    assert [item.id for item in failed] == ["c", "d"]
    assert "neither audio nor text" in failed[1].reason


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_libsndfile_reads_is_no_damage(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a callback of the library is printed and lost; the clip would be set aside as damaged."""

    class SignalError(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise SignalError

    read = decode._AudioBuffer.readinto
    pending = [number]

    def read_with_signal(buffer: decode._AudioBuffer, target: bytearray) -> int:
        if pending:
            signal.raise_signal(pending.pop())
        return read(buffer, target)

    monkeypatch.setattr(decode._AudioBuffer, "readinto", read_with_signal, raising=False)
    original = signal.signal(number, interrupt)
    try:
        with pytest.raises(SignalError):
            load_clip(Sample("a", wav(tone(16_000))), 16_000)
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, original)
