"""What each axis, and the modality of training, does on average within each base: `marginals` of results.json.

Architectures are compared within base only: a number of one model is never taken from a number of another (DESIGN
rule 7).  Intervals are over the base's runs; with one base an architecture they say nothing of other bases of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from undersong.evaluation.rates import attack_rate, find_set_entry, harm_metric
from undersong.statistics import paired_runs

RunEntry = Mapping[str, Any]
RatesByRun = dict[tuple[int, int, int], float]


def marginal_effects(runs: Sequence[RunEntry], plain: str, last_step: int) -> list[dict[str, Any]]:
    """One entry a base, contrast and harmful set; at the last step, spoken and typed prompts, undefended.

    `factor: axis`: closest minus distant on that axis, averaged over training modalities and fractions.  `factor:
    modality`: trained on audio minus on text, averaged over axes, kinds and fractions.  Contrasts whose sides a study
    does not have are left out.
    """
    tuned = [run for run in runs if run["kind"] != "base" and run["step"] == last_step]
    prompt_sets = sorted(
        {(entry["set"], entry["modality"]) for run in tuned for entry in run["sets"] if entry["harmful"]}
    )
    bases = dict.fromkeys((run["model"], run["base_seed"]) for run in tuned)
    return [
        _marginal_entry(model, base, name, modality, plain, last_step, contrast)
        for name, modality in prompt_sets
        for model, base in bases
        for contrast in _marginal_contrasts([r for r in tuned if (r["model"], r["base_seed"]) == (model, base)])
    ]


def _marginal_contrasts(
    base_runs: Sequence[RunEntry],
) -> Iterator[tuple[str, str, str, list[RunEntry], list[RunEntry]]]:
    """(factor, level, question, a's runs, b's runs); the difference is b - a."""
    for axis in sorted({run["axis"] for run in base_runs}):
        kind_runs = [
            [r for r in base_runs if (r["axis"], r["kind"]) == (axis, kind)] for kind in ("distant", "closest")
        ]
        if all(kind_runs):
            yield "axis", axis, f"closest minus distant, {axis} axis", kind_runs[0], kind_runs[1]
    text, audio = ([r for r in base_runs if r["train_modality"] == modality] for modality in ("text", "audio"))
    if text and audio:
        yield "modality", "audio", "trained on audio minus on text", text, audio


def _marginal_entry(
    model: str,
    base: int,
    set_name: str,
    modality: str,
    plain: str,
    last_step: int,
    contrast: tuple[str, str, str, list[RunEntry], list[RunEntry]],
) -> dict[str, Any]:
    factor, level, question, a, b = contrast
    rates_a, rates_b = (_mean_rates(contrast_runs, set_name, modality, plain) for contrast_runs in (a, b))
    difference = paired_runs(rates_a, rates_b, limits=(-1.0, 1.0))
    return {
        "model": model,
        "base_seed": base,
        "factor": factor,
        "level": level,
        "question": question,
        "set": set_name,
        "modality": modality,
        "system": plain,
        "step": last_step,
        "scope": "recipe",
        "metric": harm_metric(a),
        "n": difference.n,
        "arms": len({run["arm"] for run in a}),
        "difference": difference.difference,
        "low": difference.low,
        "high": difference.high,
        "method": difference.method,
        "note": difference.note,
        "estimates": [
            {"draw": e.draw, "seed": e.seed, "a": e.a, "b": e.b, "difference": e.difference}
            for e in difference.estimates
        ],
    }


def _mean_rates(runs: Sequence[RunEntry], set_name: str, modality: str, plain: str) -> RatesByRun:
    """(base, draw, seed) -> mean JSR over the arms of one side."""
    rates: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for run in runs:
        entry = find_set_entry(run, set_name, modality, plain)
        if entry is not None:
            rates[run["base_seed"], run["draw"], run["seed"]].append(attack_rate(entry))
    return {key: fmean(values) for key, values in rates.items()}
