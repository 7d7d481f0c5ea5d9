"""Is harm still recognised?  What probes tell of held-out prompts before and after, beside the refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.mechanism.probe_change import probe_change
from undersong.mechanism.recognition import SEED, States, nested_scores, recognise, recognition_scores
from undersong.pipeline.probing.asked import Sides
from undersong.pipeline.probing.numbers import by_place, number
from undersong.pipeline.probing.replied import Replied
from undersong.statistics import Interval, compare_paired

if TYPE_CHECKING:
    from undersong.mechanism.probe_scores import Scores
    from undersong.models.adapter import AudioModel


@dataclass(frozen=True)
class Recognised:
    """Of probes of one model's own states: `decisions` (layers + 1, held-out prompts), and `nested`, their scores in
    the contrast sets themselves, where that was asked for."""

    decisions: np.ndarray
    nested: Scores | None


def recognised(
    model: AudioModel, sides: dict[str, Sides], fitted: States, tested: States, permutations: int
) -> Recognised | None:
    """Nothing is chosen by hand, so probes may learn from the choosing split too; None with too few behaviours.

    `fitted`, `tested`: the model's states of these splits.  `permutations`: of labels through the whole nested
    cross-validation; 0: that is left out.
    """
    choose, contrast = sides["choose"], _contrast(sides).samples
    more = model.hidden(choose.harmful), model.hidden(choose.harmless)
    states = np.concatenate([fitted[0], more[0]], axis=1), np.concatenate([fitted[1], more[1]], axis=1)
    decisions = recognise(contrast, states, sides["test"].samples, tested)
    if decisions is None:
        return None
    return Recognised(decisions, nested_scores(contrast, states, permutations) if permutations else None)


def _contrast(sides: dict[str, Sides]) -> Sides:
    fit, choose = sides["fit"], sides["choose"]
    return Sides([*fit.harmful, *choose.harmful], [*fit.harmless, *choose.harmless])


def recognition(
    before: Recognised,
    after: Recognised,
    said: tuple[Replied, Replied],
    sides: dict[str, Sides],
    margin: float,
) -> dict[str, Any]:
    """Late balanced accuracy before and after, by place too, and what may be said of it beside the refusals."""
    test = sides["test"]
    scores = [recognition_scores(one.decisions, _contrast(sides).samples, test.samples) for one in (before, after)]
    change, refused = probe_change(scores[0], scores[1], margin, SEED), _refused(said, test)
    found: dict[str, Any] = {
        "before": number(change.before),
        "after": number(change.after),
        "before_p": number(change.before_p),
        "after_p": number(change.after_p),
        "change": _ends(change.change),
        "refusals": _ends(refused),
        "margin": margin,
        "recognition": change.recognition,
        "dissociated": change.dissociated(refused),
        "sentence": change.sentence(refused),
    }
    found["by_place"] = by_place(**_columns(scores[0], "before"), **_columns(scores[1], "after"))
    if before.nested is not None and after.nested is not None:
        found["nested"] = by_place(**_columns(before.nested, "before"), **_columns(after.nested, "after"))
    return found


def _refused(said: tuple[Replied, Replied], test: Sides) -> Interval:
    """Change of the refusal rate on harmful prompts."""
    was, now = (replied.refused[: len(test.harmful)] for replied in said)
    found = compare_paired(was, now, test.clusters[0])
    return Interval(found.difference, found.clustered_low, found.clustered_high)


def _columns(scores: Scores, when: str) -> dict[str, np.ndarray]:
    names = {"balanced_accuracy": "accuracy", "low": "low", "high": "high", "auc": "auc", "p_holm": "p"}
    return {f"{name}_{when}": getattr(scores, column) for column, name in names.items()}


def _ends(found: Interval) -> dict[str, float | None]:
    return {"value": number(found.value), "low": found.low, "high": found.high}
