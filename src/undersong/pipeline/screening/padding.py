"""What skipping the padding does to a user's own ranking: both ways on some of the clips, before all are embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from undersong.pipeline.screening.inputs import ScreeningCorpora
from undersong.pipeline.screening.options import PRECOMPUTED
from undersong.types import Sample, UndersongError

MAX_CLIPS = 200  # of each side: padded to 30 s each costs a second or so


def padding_checks(axes: Mapping[str, str], corpora: ScreeningCorpora, device: str) -> dict[str, dict[str, Any]]:
    """Axis -> rank correlation and overlap of the closest quarter, `pad=exact` against `pad=bucket`.

    Clips are taken evenly over the pool, 200 at most.  Only Whisper-class speech encoders have padding to skip;
    raises UndersongError where no axis is one.
    """
    from undersong.encoders import make_encoder
    from undersong.encoders.padding_check import check_padding

    pool, harm = corpora.pool.samples, [sample for harm_input in corpora.harm.values() for sample in harm_input.samples]
    checks = {}
    for axis, spec in padded_axes(axes).items():
        base_spec = ",".join(part for part in spec.split(",") if not part.startswith("pad="))
        encoders = [make_encoder(f"{base_spec},pad={pad}", fit=(), device=device) for pad in ("exact", "bucket")]
        checks[axis] = asdict(check_padding(encoders[0], encoders[1], _evenly_spaced(pool), _evenly_spaced(harm)))
    return checks


def padded_axes(axes: Mapping[str, str]) -> dict[str, str]:
    """The axes whose encoder pads.  Raises UndersongError where none does; reads no weights."""
    from undersong.encoders.spec import parse_encoder
    from undersong.encoders.speech import has_padding

    def is_padded(spec: str) -> bool:
        return spec != PRECOMPUTED and parse_encoder(spec).kind == "speech" and has_padding(parse_encoder(spec).ref)

    if not (padded_specs := {axis: spec for axis, spec in axes.items() if is_padded(spec)}):
        raise UndersongError("There is no padding to check: no axis is a speech encoder of the Whisper class; add one.")
    return padded_specs


def _evenly_spaced(samples: Sequence[Sample]) -> list[Sample]:
    if len(samples) <= MAX_CLIPS:
        return list(samples)
    return [samples[i * len(samples) // MAX_CLIPS] for i in range(MAX_CLIPS)]
