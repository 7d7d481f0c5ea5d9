"""The section on Mini of docs/results/prediction.md, and results_mini.json with every measured value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.prediction import mini_targets
from experiments.prediction.analysis import Base, mean_ceiling
from experiments.prediction.mini import MINI, PREDICTORS, PRIMARY, SET_SIZE, SETS
from experiments.prediction.mini_analysis import (
    Correlation,
    all_correlations,
    correlation,
    jsr_correlation,
    permutation_p,
    primary_p_values,
    regret_share,
    seed_agreement,
)
from experiments.prediction.table_text import LABELS as SHARED_LABELS
from experiments.prediction.table_text import interval_text, number_text, p_text
from undersong.phrases import join_items

RESULTS = Path(__file__).with_name("results_mini.json")
LEVEL = 0.05
LABELS = SHARED_LABELS | {
    "imperative": "metadata: share of imperatives",
    "rehearsal": f"rehearsal of {MINI.rehearsal_steps} steps",
}


def copy_results(file: Path) -> None:
    """Copy the measurements of Mini to results_mini.json if they are complete.

    Raises:
        SystemExit: Trainings are missing.
    """
    record = json.loads(file.read_text())
    measured = sum(entry["seed"] in MINI.seeds for entry in record.get("after", []))
    if measured < SETS * len(MINI.seeds):
        raise SystemExit(f"{file} holds {measured} of {SETS * len(MINI.seeds)} trainings; run `mini` until it ends.")
    RESULTS.write_text(json.dumps(record, indent=0) + "\n")


def summary_line() -> list[str]:
    """One sentence for the head of the page; none before the experiment was run."""
    if not RESULTS.is_file():
        return []
    found = all_correlations(Base.from_record(json.loads(RESULTS.read_text()), MINI.seeds))
    return [
        "",
        f"[Mini](#real-words-mini) hears real words. There the screening score ranks {SETS} sets with a rank correlation of "
        f"{_interval(found['screening_score'])}. A rehearsal of {MINI.rehearsal_steps} steps has {_interval(found['rehearsal'])}, and influence "
        f"{_interval(found['influence'])}. The share of imperatives alone has {_interval(found['imperative'])} there.",
    ]


def section_lines() -> list[str]:
    """Lines of the section; none before the experiment was run."""
    if not RESULTS.is_file():
        return []
    record = json.loads(RESULTS.read_text())
    base = Base.from_record(record, MINI.seeds)
    found, p_values = all_correlations(base), primary_p_values(base)
    ranked = sorted(PREDICTORS, key=lambda name: -found[name].value)
    low, middle, high = np.percentile(base.damage, [25, 50, 75])
    jsr = np.mean(list(base.jsr.values()), axis=0)
    return [
        "",
        "## Real words: Mini",
        f"The same question on [Mini](mini.md), which hears real words: {SETS} disjoint sets of {SET_SIZE} clips of its spoken demo set, "
        f"{len(MINI.seeds)} trainings on each, and the loss of refusal margin on 78 spoken AdvBench requests. There is one Mini, so the "
        "unit is the set, and the result is about this model. The design and its tests were registered before the first training "
        "(`experiments/prediction/registration_mini.md`).",
        "",
        *(f"- {_primary_sentence(name, found[name], p_values[name])}" for name in PRIMARY),
        "",
        "| predictor | rank correlation over the sets | p | regret |",
        "|---|---|---|---|",
        *(_row(base, name, found[name], p_values) for name in ranked),
        "",
        "An asterisk marks the p values of the registered tests, corrected by Holm's method. All others are uncorrected and exploratory. "
        "The regret is that of the three sets that a predictor calls safest.",
        "",
        f"- Over the sets the damage has quartiles of {low:.1f}, {middle:.1f} and {high:.1f} nats. After training, "
        f"{100 * jsr.min():.0f} to {100 * jsr.max():.0f} % of the requests are not refused, and "
        f"{100 * record['before']['jsr']:.0f} % before.",
        f"- Between two seeds the damage has a rank correlation of {number_text(seed_agreement(base))}. The damage here is the mean of "
        f"{len(MINI.seeds)}, so a perfect predictor could reach about {number_text(mean_ceiling(seed_agreement(base), len(MINI.seeds)))}.",
        f"- The damage and the share of requests that are not refused have a rank correlation of {_interval(jsr_correlation(base))}.",
        "- **The share of imperatives explains much of this.** The sets were drawn with shares from 0 to 1. Imperatives are closer in words to "
        "harmful requests, and they come in fewer groups. Twelve sets cannot tell such predictors apart.",
        "- **Influence had no real replies.** One sentence stood for compliance with every request, or the openings of the next table. On organisms, whose "
        "compliant replies are known, influence was the best predictor without training. `screen` takes it by default only where such replies are given.",
        *_target_lines(base, found),
        "",
        f"All other values on Mini are in `experiments/prediction/results_mini.json` (SHA-256 "
        f"{hashlib.sha256(RESULTS.read_bytes()).hexdigest()[:16]}); `python -m experiments.prediction mini` measures them.",
    ]


def _target_lines(base: Base, found: Mapping[str, Correlation]) -> list[str]:
    """Lines on the predictors with the published targets as replies; none before they were measured."""
    if not mini_targets.RESULTS.is_file():
        return []
    sets = json.loads(mini_targets.RESULTS.read_text())["predictors"]
    values = {name: np.array([row[name] for row in sets]) for name in mini_targets.REPLY_PREDICTORS}
    rows = [
        f"| {LABELS[name].partition(': ')[2]} | {_interval(found[name])} | {_interval(correlation(own, base.damage))} | {p_text(permutation_p(own, base.damage))} |"
        for name, own in values.items()
    ]
    return [
        "",
        "### With the openings that AdvBench publishes",
        "AdvBench's file gives each request a `target`, the beginning of a reply that complies. We repeated the four predictors that read "
        "compliant replies, with these targets. The damage of the sets was known by then, so this is exploratory. It was "
        "written down (`experiments/prediction/registration_mini.md`) before it was computed, and no other variant was run. "
        + _target_sentence(values, base),
        "",
        "| predictor | one sentence for all (registered) | published targets | p, uncorrected |",
        "|---|---|---|---|",
        *rows,
        "",
        f"The values with published targets are in `experiments/prediction/results_mini_targets.json` (SHA-256 "
        f"{hashlib.sha256(mini_targets.RESULTS.read_bytes()).hexdigest()[:16]}); "
        "`python -m experiments.prediction mini-targets` measures them.",
    ]


def _target_sentence(values: Mapping[str, np.ndarray], base: Base) -> str:
    shown = [
        LABELS[name].partition(": ")[2] for name, own in values.items() if permutation_p(own, base.damage) <= LEVEL
    ]
    if not shown:
        return "None of the four ranks the sets significantly. The scores like those of LARF and DataShield depend on the replies most."
    return f"Of the four, {join_items(shown, 'and')} rank the sets significantly without a correction."


def _primary_sentence(name: str, found: Correlation, p: float) -> str:
    label = LABELS[name].partition(": ")[2] or LABELS[name]
    verdict = "significant" if p <= LEVEL else "not significant"
    return f"{label[:1].upper()}{label[1:]}: {_interval(found)}, {verdict} (corrected p = {p_text(p)})."


def _row(base: Base, name: str, found: Correlation, p_values: dict[str, float]) -> str:
    p = f"{p_text(p_values[name])}*" if name in p_values else p_text(permutation_p(base.predictors[name], base.damage))
    return f"| {LABELS[name]} | {_interval(found)} | {p} | {regret_share(base, name):.2f} |"


def _interval(found: Correlation) -> str:
    return interval_text(found.value, found.low, found.high)
