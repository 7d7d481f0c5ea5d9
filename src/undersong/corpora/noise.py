"""Mixing of speech with pink noise, babble or recorded noise at a given signal-to-noise ratio, reproducible by clip id
and seed, and writing of the noisy samples.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.corpora.decode import UnreadableAudioError, load_clip, pcm_hash
from undersong.store.atomic import write_atomic
from undersong.store.hashing import canonical_json
from undersong.types import Clip, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    import numpy as np


FRAME_SECONDS = 0.02  # seconds
ACTIVE_DECIBELS = 40.0  # dB below the loudest frame: what is above counts as speech
PEAK_LIMIT = 0.99  # what a mixture is scaled to where it would clip
LEVELS = ("active", "whole")


@dataclass(frozen=True, slots=True)
class NoiseMixture:
    """A mixture and the parameters that made it, so that it can be made again and undone."""

    clip: Clip
    snr: float  # dB, as requested
    gain: float  # factor of the noise
    offset: int  # first sample of the noise that is used
    scale: float  # factor of the sum against clipping; 1 if nothing clipped


def mix_noise(speech: Clip, noise: Clip, snr: float, seed: int, level: str = "active") -> NoiseMixture:
    """Mix speech + gain * noise, so that 20 log10(RMS of speech / RMS of the added noise) is `snr` dB.

    The noise starts at an offset drawn from the id of the speech and `seed`; noise that is too short repeats. A sum
    beyond 0.99 of full scale is scaled down as a whole, which keeps the SNR and is recorded; it is never clipped.

    Args:
        speech: The clip.
        noise: The noise, at the same rate.
        snr: Signal-to-noise ratio in dB.
        seed: Seed of the offset.
        level: RMS of the speech over its `active` frames (20 ms, at most 40 dB below the loudest; pauses would make
            speech and noise quieter), or over the `whole` clip. The RMS of the noise is that of the added excerpt.

    Raises:
        UndersongError: Different rates, silent speech, silent noise, or an SNR that is not finite.
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
    """Start of the noise excerpt for a clip, uniform in `length` samples, by the id and the seed alone."""
    return int(seeded_generator(clip_id, seed).integers(0, length))


def seeded_generator(name: str, seed: int) -> np.random.Generator:
    """Random generator of one name and seed: PCG64 on the SHA-256 of both."""
    import numpy as np

    digest = hashlib.sha256(f"{seed}\n{name}".encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def speech_level(clip: Clip, level: str = "active") -> float:
    """RMS of a clip over its active frames (see `mix_noise`) or over the whole clip; 0 for silence."""
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
    """Noise whose power falls by 3 dB per octave (1/f) above 20 Hz, with zero mean and RMS 0.1."""
    import numpy as np

    n = max(2, round(seconds * rate))
    spectrum = np.fft.rfft(seeded_generator("pink", seed).standard_normal(n))
    frequencies = np.fft.rfftfreq(n, 1 / rate)
    shape = np.zeros_like(frequencies)
    shape[1:] = 1 / np.sqrt(np.maximum(frequencies[1:], 20.0))  # flat below 20 Hz, which would take most of the power
    return Clip(f"pink-{seed}", _normalize_rms(np.fft.irfft(spectrum * shape, n)), rate)


def babble_noise(voices: Sequence[Clip], seconds: float, seed: int, talkers: int = 6) -> Clip:
    """Several talkers at once, equally loud, each from a random position of a random clip.

    Args:
        voices: Clips of speech; a clip that is too short repeats.
        seconds: Length of the result.
        seed: Seed of the choice of clips and positions.
        talkers: Number of clips that are mixed.

    Raises:
        UndersongError: Too few audible clips, or different rates.
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


MIXING_VERSION = 1  # part of the file's name; raise it when the mixing changes
NOISE_LABELS = ("noise", "noise_snr", "noise_offset", "noise_gain", "noise_scale")


def load_noise(path: str | Path, rate: int = 16_000) -> Clip:
    """Load a file as noise. Its id contains the hash of its content, so a moved file is the same noise."""
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
    """Add noise to samples, as 16-bit FLAC. Returns the noisy samples, and those that cannot be mixed.

    The labels `noise`, `noise_snr`, `noise_offset`, `noise_gain` and `noise_scale` record how each was made;
    `noise_scale` is below 1 if the mixture would have clipped. Ids, texts and answers stay, so noisy and clean arms
    hold the same items.

    Args:
        samples: Samples with audio.
        noise: The noise.
        snr: Signal-to-noise ratio in dB.
        seed: Seed of the offset into the noise.
        folder: Folder for the files; existing files are not made again. None: the bytes are kept in the samples.
        level: As in `mix_noise`.
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
