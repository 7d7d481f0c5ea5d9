"""A spoken corpus as a noisy one: files named by what they were made of, written once, resumed after a kill.

Knows files and samples; how speech and noise are mixed is `noise.py`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from undersong.corpora.decode import UnreadableAudioError, load_clip, pcm_hash
from undersong.corpora.noise import NoiseMixture, mix_noise
from undersong.store import canonical_json, write_atomic
from undersong.types import Clip, Quarantined, Sample, UndersongError

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
