"""Whether there is anything to hear in a clip: silence and near-constant audio are flagged, never embedded unnoticed.

Knows samples; does not decide what becomes of a flagged clip.
"""

from __future__ import annotations

from undersong.types import Clip

FRAME_SECONDS = 0.025  # seconds
SILENCE_RMS = 1e-3  # RMS about a frame's own mean: 60 dB below full scale, what a converter's hum may reach
MIN_SOUND_SECONDS = 0.1  # seconds of sound: a click or a cough of the recorder is no speech


def is_audible(clip: Clip) -> bool:
    """Whether at least 0.1 s of the clip is louder than -60 dB of full scale; see `why_inaudible`."""
    return inaudible_reason(clip) is None


def inaudible_reason(clip: Clip, min_seconds: float = MIN_SOUND_SECONDS) -> str | None:
    """Why nobody can hear anything in a clip, for a quarantine's reason; None where there is something.

    `least`: seconds that have to be loud.

    Loudness is the RMS of 25 ms frames about each frame's own mean, so an offset of the converter, however large, or
    one that steps, is no sound.
    """
    import numpy as np

    size = max(1, round(FRAME_SECONDS * clip.rate))
    usable_length = clip.samples.size // size * size
    frames = clip.samples[:usable_length].reshape(-1, size) if usable_length else clip.samples.reshape(1, -1)
    if not frames.size or not np.isfinite(frames).all():
        return "the audio holds no usable samples"
    if clip.samples.min() == clip.samples.max():
        return f"the audio is constant ({float(clip.samples[0]):g} throughout)"
    is_loud = frames.std(axis=1, dtype=np.float64) > SILENCE_RMS
    seconds = float(is_loud.sum()) * frames.shape[1] / clip.rate
    if seconds < min_seconds:
        total_seconds = clip.samples.size / clip.rate
        return f"the audio is silent or too short: {seconds:.2f} s of {total_seconds:.2f} s are above -60 dB"
    return None
