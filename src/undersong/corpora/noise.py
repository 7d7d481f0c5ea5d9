"""Mixes speech with pink noise, babble or recorded noise at a given signal-to-noise ratio, reproducibly by clip id and
seed, and writes the noisy samples.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.corpora.decode import UnreadableAudioError, load_clip, pcm_hash
from undersong.store import canonical_json, write_atomic
from undersong.types import Clip, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    import numpy as np


FRAME_SECONDS = 0.02  # seconds
ACTIVE_DECIBELS = 40.0  # dB below the loudest frame: what is above counts as speech
PEAK_LIMIT = 0.99  # what a mixture is scaled to where it would clip
LEVELS = ("active", "whole")


@dataclass(frozen=True, slots=True)
class NoiseMixture:
    """A mixture and how it came about, so that it can be made again and undone."""

    clip: Clip
    snr: float  # dB, as asked for
    gain: float  # what the noise was multiplied by
    offset: int  # samples into the noise where it begins
    scale: float  # what the sum was multiplied by against clipping; 1 where nothing clipped


def mix_noise(speech: Clip, noise: Clip, snr: float, seed: int, level: str = "active") -> NoiseMixture:
    """speech + gain * noise, so that 20 log10(RMS of speech / RMS of the added noise) is `snr` dB.

    The RMS of speech is over its *active* frames (20 ms, at most 40 dB below the loudest: pauses would make speech
    quieter and the noise with it) or over the *whole* clip; that of the noise over the excerpt that is added.  The
    excerpt begins at an offset drawn from the speech's id and `seed`; noise that is too short begins again.
    A sum beyond 0.99 of full scale is scaled down as a whole, which keeps the SNR and is recorded; it is never cut.
    UndersongError: different rates, silent speech, silent noise, an SNR that is no number.
    """
    import numpy as np

    if speech.rate != noise.rate:
        raise UndersongError(
            f"item {speech.id!r} is at {speech.rate} Hz and the noise at {noise.rate}; load both alike."
        )
    if not np.isfinite(snr):
        raise UndersongError(f"The signal-to-noise ratio is {snr}; write a number of dB.")
    signal = speech.samples.astype(np.float64)
    offset = draw_offset(speech.id, seed, noise.samples.size)
    excerpt = np.take(noise.samples, np.arange(offset, offset + signal.size), mode="wrap").astype(np.float64)
    speech_rms, noise_rms = speech_level(speech, level), _rms(excerpt)
    for label, value in ((f"item {speech.id!r}", speech_rms), (f"The noise {noise.id!r}", noise_rms)):
        if value == 0:
            raise UndersongError(f"{label} is silent where it would be mixed; take another.")
    gain = speech_rms / noise_rms * 10 ** (-snr / 20)
    total = signal + gain * excerpt
    peak = float(np.abs(total).max())
    scale = PEAK_LIMIT / peak if peak > PEAK_LIMIT else 1.0
    clip = Clip(speech.id, (total * scale).astype(np.float32), speech.rate)
    return NoiseMixture(clip, float(snr), float(gain), offset, scale)


def draw_offset(clip_id: str, seed: int, length: int) -> int:
    """Where in `length` samples of noise the clip `ident` begins: uniform, from the id and the seed alone."""
    return int(seeded_generator(clip_id, seed).integers(0, length))


def seeded_generator(name: str, seed: int) -> np.random.Generator:
    """A generator of random numbers that belongs to one name and seed: PCG64 on the SHA-256 of both."""
    import numpy as np

    digest = hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def speech_level(clip: Clip, level: str = "active") -> float:
    """RMS of a clip over its active frames (see `mix`) or over the whole of it; 0 for silence."""
    import numpy as np

    if level not in LEVELS:
        raise UndersongError(f"No level of speech is called {level!r}; choose from {', '.join(LEVELS)}.")
    signal = clip.samples.astype(np.float64)
    size = max(1, round(FRAME_SECONDS * clip.rate))
    if level == "whole" or signal.size < size:
        return _rms(signal)
    power = (signal[: signal.size // size * size].reshape(-1, size) ** 2).mean(axis=1)
    active = power[power >= power.max() * 10 ** (-ACTIVE_DECIBELS / 10)]
    return float(np.sqrt(active.mean()))


def pink_noise(seconds: float, rate: int, seed: int) -> Clip:
    """Noise whose power falls by 3 dB an octave (1/f) from 20 Hz up, without a mean; RMS 0.1."""
    import numpy as np

    n = max(2, round(seconds * rate))
    spectrum = np.fft.rfft(seeded_generator("pink", seed).standard_normal(n))
    frequencies = np.fft.rfftfreq(n, 1 / rate)
    shape = np.zeros_like(frequencies)
    shape[1:] = 1 / np.sqrt(np.maximum(frequencies[1:], 20.0))  # flat below what is heard: most power would go there
    return Clip(f"pink-{seed}", _normalize_rms(np.fft.irfft(spectrum * shape, n)), rate)


def babble_noise(voices: Sequence[Clip], seconds: float, seed: int, talkers: int = 6) -> Clip:
    """Several talkers at once: `talkers` of the clips (drawn by `seed`, all equally loud), each from a drawn place on.

    Clips repeat when they are shorter.  UndersongError: too few clips that can be heard, or different rates.
    """
    import numpy as np

    audible_clips = sorted((clip for clip in voices if speech_level(clip) > 0), key=lambda clip: clip.id)
    if len(audible_clips) < talkers or talkers < 1:
        raise UndersongError(f"Babble of {talkers} needs as many clips of speech; there are {len(audible_clips)}.")
    if len(rates := {clip.rate for clip in audible_clips}) > 1:
        raise UndersongError(f"The voices of babble are at {sorted(rates)} Hz; load them at one rate.")
    random_state = seeded_generator("babble", seed)
    rate = audible_clips[0].rate
    total = np.zeros(max(1, round(seconds * rate)))
    for index in sorted(random_state.choice(len(audible_clips), talkers, replace=False)):
        clip = audible_clips[index]
        start = int(random_state.integers(0, clip.samples.size))
        total += np.take(clip.samples, np.arange(start, start + total.size), mode="wrap") / speech_level(clip)
    return Clip(f"babble-{talkers}-{seed}", _normalize_rms(total), rate)


def _normalize_rms(signal: np.ndarray) -> np.ndarray:
    return (signal * (0.1 / _rms(signal))).astype("float32")


def _rms(signal: np.ndarray) -> float:
    import numpy as np

    return float(np.sqrt(np.mean(np.square(signal))))


MIXING_VERSION = 1  # of the mixing: another one is another file
NOISE_LABELS = ("noise", "noise_snr", "noise_offset", "noise_gain", "noise_scale")


def load_noise(path: str | Path, rate: int = 16_000) -> Clip:
    """A user's ambience file as noise; its name is its content's hash, so a file that is moved is the same noise."""
    clip = load_clip(Sample(str(path), audio=str(path)), rate)
    return replace(clip, id=f"{Path(path).stem}-{pcm_hash(clip)[:12]}")


def with_noise(
    samples: Sequence[Sample],
    noise: Clip,
    snr: float,
    seed: int,
    folder: str | Path | None,
    level: str = "active",
) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """The samples with noise at `snr` dB (see `mix`), as 16-bit FLAC, and those that cannot be mixed.

    Files lie in `folder`; None: their bytes stand in the samples.
    How each was made stands in its labels `noise`, `noise_snr`, `noise_offset`, `noise_gain`, `noise_scale`; a
    `noise_scale` below 1 says that the mixture would have clipped.  Ids, texts and answers stay, so noisy and clean
    arms hold the same items.  A file that is there already is not made again.
    """
    noisy_samples, quarantined = list[Sample](), list[Quarantined]()
    for sample in samples:
        try:
            noisy_samples.append(_add_noise(sample, noise, snr, seed, folder, level))
        except UnreadableAudioError as error:
            quarantined.append(Quarantined(sample.id, error.reason))
    return tuple(noisy_samples), tuple(quarantined)


def _add_noise(sample: Sample, noise: Clip, snr: float, seed: int, folder: str | Path | None, level: str) -> Sample:
    if clashing := set(NOISE_LABELS) & {name for name, _ in sample.labels}:
        raise UndersongError(
            f"item {sample.id!r} has the label {sorted(clashing)[0]!r} already; take it without noise."
        )
    clip = load_clip(sample, noise.rate)
    try:
        mixture = mix_noise(clip, noise, snr, seed, level)
    except UndersongError as error:
        if not clip.samples.any():
            raise UnreadableAudioError(sample.id, "the audio is silent") from error
        raise
    audio: str | bytes
    if folder is None:
        audio = _flac_bytes(mixture)
    else:
        content_key = [MIXING_VERSION, pcm_hash(clip), pcm_hash(noise), mixture.offset, mixture.snr, level]
        path = Path.cwd() / folder / f"{hashlib.sha256(canonical_json(content_key).encode()).hexdigest()[:32]}.flac"
        if not path.is_file():
            write_atomic(path, _flac_bytes(mixture))
        audio = str(path)
    labels = {
        "noise": noise.id,
        "noise_snr": f"{mixture.snr:g}",
        "noise_offset": str(mixture.offset),
        "noise_gain": f"{mixture.gain:.6g}",
        "noise_scale": f"{mixture.scale:.6g}",
    }
    all_labels = tuple(sorted([*sample.labels, *labels.items()]))
    return replace(sample, audio=audio, labels=all_labels, seconds=None, pcm_hash=None)


def _flac_bytes(mixture: NoiseMixture) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, mixture.clip.samples, mixture.clip.rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
