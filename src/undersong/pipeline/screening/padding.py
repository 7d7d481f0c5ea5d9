"""What skipping the padding does to a user's own ranking: both ways on some of the clips, before all are embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from undersong.pipeline.screening.asked import READY
from undersong.pipeline.screening.sides import Sides
from undersong.types import Sample, UndersongError

CLIPS = 200  # of each side: padded to 30 s each costs a second or so


def padding_checks(axes: Mapping[str, str], sides: Sides, device: str) -> dict[str, dict[str, Any]]:
    """Axis -> rank correlation and overlap of the closest quarter, `pad=exact` against `pad=bucket`.

    Clips are taken evenly over the pool, 200 at most.  Only Whisper-class speech encoders have padding to skip;
    raises UndersongError where no axis is one.
    """
    from undersong.encoders import make_encoder
    from undersong.encoders.spoken.padding import check_padding

    pool, harm = sides.pool.samples, [sample for side in sides.harm.values() for sample in side.samples]
    found = {}
    for axis, spec in padded(axes).items():
        plain = ",".join(part for part in spec.split(",") if not part.startswith("pad="))
        ways = [make_encoder(f"{plain},pad={pad}", fit=(), device=device) for pad in ("exact", "bucket")]
        found[axis] = asdict(check_padding(ways[0], ways[1], _some(pool), _some(harm)))
    return found


def padded(axes: Mapping[str, str]) -> dict[str, str]:
    """The axes whose encoder pads.  Raises UndersongError where none does; reads no weights."""
    from undersong.encoders.options import parse_encoder
    from undersong.encoders.spoken.speech import has_padding

    def pads(spec: str) -> bool:
        return spec != READY and parse_encoder(spec).kind == "speech" and has_padding(parse_encoder(spec).ref)

    if not (found := {axis: spec for axis, spec in axes.items() if pads(spec)}):
        raise UndersongError("There is no padding to check: no axis is a speech encoder of the Whisper class; add one.")
    return found


def _some(samples: Sequence[Sample]) -> list[Sample]:
    if len(samples) <= CLIPS:
        return list(samples)
    return [samples[i * len(samples) // CLIPS] for i in range(CLIPS)]
