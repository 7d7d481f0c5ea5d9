"""What the change of the late gap says over runs: `mechanism.claims`, `.cells`, `.asymmetry` and `.with_jsr`.

A run's change is one number (mean over the last quarter of layers), and runs are the sample.  All within one base: gaps
of two models have no common scale.  Knows runs and their changes; measures nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np

from undersong.pipeline.results.comparisons import correct
from undersong.pipeline.results.rates import attack_rate, find_rate
from undersong.pipeline.stages import Arm
from undersong.statistics import mean_runs, paired_runs, predict

Run = Mapping[str, Any]
Key = tuple[int, int, int]  # base, draw, seed
BOTH = ("audio", "text")


@dataclass(frozen=True)
class Change:
    """One run's, probed in one modality."""

    arm: Arm
    probed: str
    late: float


def suppression(changes: Sequence[Change], runs: Sequence[Run], harm: str, plain: str, last: int) -> dict[str, Any]:
    """`changes` at the last step; `runs` of results.json; `harm`: the set whose JSR goes beside."""
    models = list(dict.fromkeys(change.arm.model for change in changes))
    by_model = {model: [change for change in changes if change.arm.model == model] for model in models}
    jsr = _jsr(runs, harm, plain, last)
    return {
        "claims": correct([claim for mine in by_model.values() for claim in _claims(mine)]),
        "cells": [cell for mine in by_model.values() for cell in _cells(mine)],
        "asymmetry": [one for mine in by_model.values() for one in _asymmetry(mine, jsr)],
        "with_jsr": [one for mine in by_model.values() for one in _with_jsr(mine, jsr)],
    }


def _claims(changes: Sequence[Change]) -> Iterator[dict[str, Any]]:
    """Does closest data suppress more than distant data?  Negative: its gap fell further."""
    for place in dict.fromkeys((c.arm.axis, c.arm.fraction, c.arm.modality, c.probed) for c in changes):
        sides = [_of(changes, place, kind) for kind in ("distant", "closest")]
        if all(sides):
            found = paired_runs(sides[0], sides[1])
            axis, fraction, trained, probed = place
            yield {
                "question": f"Does closest data suppress the late gap more than distant data ({axis} at {fraction:g}, "
                f"trained on {trained})?",
                "model": changes[0].arm.model, "scope": "recipe", "axis": axis, "fraction": fraction,
                "train_modality": trained, "modality": probed, "n": found.n, "difference": found.difference,
                "low": found.low, "high": found.high, "p": found.p, "method": found.method, "note": found.note,
            }  # fmt: skip


def _of(changes: Sequence[Change], place: tuple[Any, ...], kind: str) -> dict[Key, float]:
    return {
        c.arm.run: c.late
        for c in changes
        if (c.arm.axis, c.arm.fraction, c.arm.modality, c.probed) == place and (c.arm.kind, c.arm.rule) == (kind, "")
    }


def _cells(changes: Sequence[Change]) -> Iterator[dict[str, Any]]:
    """Trained on {audio, text} x probed with {audio, text}, for each kind: mean change, over axes and fractions."""
    for kind, trained, probed in product(dict.fromkeys(c.arm.kind for c in changes), BOTH, BOTH):
        found = _means([c for c in changes if (c.arm.kind, c.arm.modality, c.probed) == (kind, trained, probed)])
        if found:
            mean = mean_runs(found)
            yield {
                "model": changes[0].arm.model, "kind": kind, "train_modality": trained, "modality": probed,
                "scope": "recipe", "n": len(found), "change": mean.mean, "low": mean.low, "high": mean.high,
                "note": mean.note,
            }  # fmt: skip


def _asymmetry(changes: Sequence[Change], jsr: Mapping[tuple[Any, ...], float]) -> Iterator[dict[str, Any]]:
    """Trained on audio less trained on text, same samples: the late gap beside the JSR.  Opposite signs agree: the
    modality that suppresses the gap more is the one that breaks more."""
    for kind, probed in product(dict.fromkeys(c.arm.kind for c in changes), BOTH):
        mine = [c for c in changes if (c.arm.kind, c.probed) == (kind, probed)]
        text, audio = ([c for c in mine if c.arm.modality == trained] for trained in ("text", "audio"))
        if not (text and audio) or any(_place(c) not in jsr for c in mine):
            continue
        late = paired_runs(_means(text), _means(audio))
        before, after = (_means([replace(c, late=jsr[_place(c)]) for c in side]) for side in (text, audio))
        broken = paired_runs(before, after, limits=(-1.0, 1.0))
        yield {
            "model": changes[0].arm.model, "kind": kind, "modality": probed, "scope": "recipe", "n": late.n,
            "late": late.difference, "late_low": late.low, "late_high": late.high,
            "jsr": broken.difference, "jsr_low": broken.low, "jsr_high": broken.high,
            "mirrors": _mirrors((late.low, late.high), (broken.low, broken.high)),
        }  # fmt: skip


def _mirrors(late: tuple[float | None, float | None], jsr: tuple[float | None, float | None]) -> bool | None:
    """Whether the two are of opposite signs; None where an interval holds 0, or there is none."""
    signs = [_sign(*ends) for ends in (late, jsr)]
    return None if 0 in signs else signs[0] == -signs[1]


def _sign(low: float | None, high: float | None) -> int:
    if low is None or high is None or low <= 0 <= high:
        return 0
    return 1 if low > 0 else -1


def _with_jsr(changes: Sequence[Change], jsr: Mapping[tuple[Any, ...], float]) -> Iterator[dict[str, Any]]:
    """Over arms: how the late change goes along with the JSR, prompts asked and probed in the same modality."""
    for probed in BOTH:
        points: dict[tuple[str, str | None], list[Change]] = defaultdict(list)
        for change in changes:
            if change.probed == probed and _place(change) in jsr:
                assert change.arm.selection is not None
                points[change.arm.selection.ids_hash, change.arm.modality].append(change)
        if len(points) > 1:
            late = np.array([[-fmean(c.late for c in group)] for group in points.values()])
            found = predict(("suppression",), late, [[jsr[_place(c)] for c in group] for group in points.values()])
            yield {"model": changes[0].arm.model, "modality": probed, "scope": "recipe", **asdict(found)}


def by_run(values: Iterable[tuple[Arm, float]]) -> dict[Key, float]:
    """Mean over the arms of each (base, draw, seed)."""
    groups: dict[Key, list[float]] = defaultdict(list)
    for arm, value in values:
        groups[arm.run].append(value)
    return {key: fmean(group) for key, group in groups.items()}


def _means(changes: Sequence[Change]) -> dict[Key, float]:
    return by_run((change.arm, change.late) for change in changes)


def _place(change: Change) -> tuple[Any, ...]:
    return (change.arm.model, change.arm.name, change.arm.seed, change.arm.draw, change.probed)


def _jsr(runs: Sequence[Run], harm: str, plain: str, last: int) -> dict[tuple[Any, ...], float]:
    found = {}
    for run in runs:
        if run["kind"] != "base" and run["step"] == last:
            for modality in BOTH:
                if (entry := find_rate(run, harm, modality, plain)) is not None:
                    found[run["model"], run["arm"], run["seed"], run["draw"], modality] = attack_rate(entry)
    return found
