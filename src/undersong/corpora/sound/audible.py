"""Whether there is anything to hear in a clip: silence and near-constant audio are flagged, never embedded unnoticed.

Knows samples; does not decide what becomes of a flagged clip.
"""

from __future__ import annotations

from undersong.types import Clip

FRAME = 0.025  # seconds
QUIET = 1e-3  # RMS about a frame's own mean: 60 dB below full scale, what a converter's hum may reach
LEAST = 0.1  # seconds of sound: a click or a cough of the recorder is no speech


def audible(clip: Clip) -> bool:
    """Whether at least 0.1 s of the clip is louder than -60 dB of full scale; see `why_inaudible`."""
    return why_inaudible(clip) is None


def why_inaudible(clip: Clip, least: float = LEAST) -> str | None:
    """Why nobody can hear anything in a clip, for a quarantine's reason; None where there is something.

    `least`: seconds that have to be loud.

    Loudness is the RMS of 25 ms frames about each frame's own mean, so an offset of the converter, however large, or
    one that steps, is no sound.
    """
    import numpy as np

    size = max(1, round(FRAME * clip.rate))
    whole = clip.samples.size // size * size
    parts = clip.samples[:whole].reshape(-1, size) if whole else clip.samples.reshape(1, -1)
    if not parts.size or not np.isfinite(parts).all():
        return "the audio holds no usable samples"
    if clip.samples.min() == clip.samples.max():
        return f"the audio is constant ({float(clip.samples[0]):g} throughout)"
    loud = parts.std(axis=1, dtype=np.float64) > QUIET
    seconds = float(loud.sum()) * parts.shape[1] / clip.rate
    if seconds < least:
        all_of_it = clip.samples.size / clip.rate
        return f"the audio is silent or too short: {seconds:.2f} s of {all_of_it:.2f} s are above -60 dB"
    return None
