"""Does a study's tuning take away the refusal and leave the knowledge of harm?  `mechanism.recognition`.

Late balanced accuracy of probes after less before, beside the change of the refusal rate; runs are the sample, within
one base.  Where all runs agree exactly, as near the ceiling, the widest of their own intervals over prompts stands.
Knows runs and their numbers; measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean
from typing import Any

from undersong.mechanism.probe_change import recognition_of, sentence_of
from undersong.mechanism.probe_scores import LEVEL, Decided, Told, late_difference
from undersong.mechanism.recognition import MARGIN, SEED
from undersong.pipeline.results.rates import find_rate
from undersong.pipeline.results.suppression import by_run
from undersong.pipeline.stages import Arm
from undersong.statistics import RunMean, mean_runs

Run = Mapping[str, Any]
DRAWS = 2000
UNKNOWN = "Nothing can be said of a loss"


@dataclass(frozen=True)
class Known:
    """What probes of one model tell, in one modality; `run` is its entry of results.json."""

    arm: Arm
    probed: str
    told: Told
    run: Run
    decided: Decided


def recognition(known: Sequence[Known], harm: str, plain: str) -> list[dict[str, Any]]:
    """One entry a base, kind, modality of training and of probing, at the last step; `harm`: whose refusals go beside.

    Late probes must be above chance in the base and in every run for harm to be `kept`.
    """
    bases = {(one.arm.model, one.probed): one for one in known if one.arm.kind == "base"}
    groups: dict[tuple[str, str, str, str | None], list[Known]] = {}
    for one in known:
        if one.arm.kind != "base":
            groups.setdefault((one.arm.model, one.probed, one.arm.kind, one.arm.modality), []).append(one)
    return [entry for key, mine in groups.items() for entry in _entries(mine, bases[key[:2]], harm, plain)]


def _entries(mine: Sequence[Known], base: Known, harm: str, plain: str) -> Iterator[dict[str, Any]]:
    if any(isnan(one.told.late) for one in (base, *mine)):
        return  # no probe has varying states
    arm, before = mine[0].arm, base.told.late
    change = mean_runs(by_run((one.arm, one.told.late - before) for one in mine), limits=(-1.0, 1.0))
    low, high, over = change.low, change.high, "runs"
    if low is None and len(mine) > 1:
        low, high = _over_prompts(base, mine)
        over = "prompts"
    refused = _refusals(base, mine, harm, plain)
    shown = base.told.late_p <= LEVEL, all(one.told.late_p <= LEVEL for one in mine)
    word = recognition_of(low, high, MARGIN, *shown)
    less = _refused_less(refused, base, mine, harm, plain)
    yield {
        "model": arm.model, "kind": arm.kind, "train_modality": arm.modality, "modality": base.probed,
        "scope": "recipe", "n": len(mine), "before": before, "before_p": base.told.late_p,
        "after": fmean(one.told.late for one in mine), "after_p": max(one.told.late_p for one in mine),
        "change": change.mean, "low": low, "high": high, "over": over, "margin": MARGIN,
        "refusals": refused.mean if refused else None, "refusals_low": refused.low if refused else None,
        "refusals_high": refused.high if refused else None,
        "recognition": word, "dissociated": word == "kept" and less,
        "sentence": sentence_of(word, MARGIN, less) if low is not None else f"{UNKNOWN}: {change.note}",
    }  # fmt: skip


def _over_prompts(base: Known, mine: Sequence[Known]) -> tuple[float | None, float | None]:
    changes = [late_difference(base.decided, one.decided, DRAWS, SEED) for one in mine]
    ends = [(change.low, change.high) for change in changes if change.low is not None and change.high is not None]
    if len(ends) < len(changes):
        return None, None
    return min(low for low, _ in ends), max(high for _, high in ends)


def _refused_less(refused: RunMean | None, base: Known, mine: Sequence[Known], harm: str, plain: str) -> bool:
    """By runs; where these agree exactly, if the answers of every run lie above the base's, both by their prompts."""
    if refused is None or refused.high is not None or len(mine) < 2:
        return refused is not None and refused.high is not None and refused.high < 0
    entries = [find_rate(one.run, harm, one.probed, plain) for one in (base, *mine)]
    ends = [(entry["low"], entry["high"]) for entry in entries if entry is not None]
    return refused.mean < 0 and all(low > ends[0][1] for low, _ in ends[1:])


def _refusals(base: Known, mine: Sequence[Known], harm: str, plain: str) -> RunMean | None:
    """Change of the refusal rate; None where that was not asked."""
    entries = [find_rate(one.run, harm, one.probed, plain) for one in (base, *mine)]
    rates = [entry["refusal"] / entry["n"] for entry in entries if entry is not None]
    if len(rates) < len(entries):
        return None
    return mean_runs(by_run((one.arm, rate - rates[0]) for one, rate in zip(mine, rates[1:])), limits=(-1.0, 1.0))
