"""Is harm still recognised?  What probes tell of held-out prompts before and after, beside the refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.mechanism.probe_change import probe_change
from undersong.mechanism.recognition import SEED, recognise, recognition_scores
from undersong.pipeline.probing.asked import Sides
from undersong.pipeline.probing.numbers import by_place, number
from undersong.pipeline.probing.replied import Replied
from undersong.statistics import Interval, compare_paired

if TYPE_CHECKING:
    from undersong.mechanism.probe_scores import Scores
    from undersong.models.adapter import AudioModel


def recognised(
    model: AudioModel, sides: dict[str, Sides], test_states: tuple[np.ndarray, np.ndarray]
) -> np.ndarray | None:
    """Decisions by probes of this model's own states.  Nothing is chosen by hand, so they may learn from the choosing
    split too."""
    contrast = _contrast(sides)
    states = model.hidden(contrast.harmful), model.hidden(contrast.harmless)
    return recognise(contrast.samples, states, sides["test"].samples, test_states)


def _contrast(sides: dict[str, Sides]) -> Sides:
    fit, choose = sides["fit"], sides["choose"]
    return Sides([*fit.harmful, *choose.harmful], [*fit.harmless, *choose.harmless])


def recognition(
    before: np.ndarray,
    after: np.ndarray,
    said: tuple[Replied, Replied],
    sides: dict[str, Sides],
    margin: float,
) -> dict[str, Any]:
    """Late balanced accuracy before and after, by place too, and what may be said of it beside the refusals."""
    test = sides["test"]
    scores = [recognition_scores(one, _contrast(sides).samples, test.samples) for one in (before, after)]
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
    return found | {"by_place": by_place(**_columns(scores[0], "before"), **_columns(scores[1], "after"))}


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
