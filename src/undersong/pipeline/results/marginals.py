"""What each axis, and the modality of training, does on average within each base: `marginals` of results.json.

Architectures are compared within base only: a number of one model is never taken from a number of another (DESIGN
rule 7).  Intervals are over the base's runs; with one base an architecture they say nothing of other bases of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from undersong.pipeline.results.rates import attack_rate, find_rate, metric_of
from undersong.statistics import paired_runs

Run = Mapping[str, Any]
Rates = dict[tuple[int, int, int], float]


def marginals(runs: Sequence[Run], plain: str, last: int) -> list[dict[str, Any]]:
    """One entry a base, contrast and harmful set; at the last step, spoken and typed prompts, undefended.

    `factor: axis`: closest minus distant on that axis, averaged over training modalities and fractions.  `factor:
    modality`: trained on audio minus on text, averaged over axes, kinds and fractions.  Contrasts whose sides a study
    does not have are left out.
    """
    tuned = [run for run in runs if run["kind"] != "base" and run["step"] == last]
    asked = sorted({(e["set"], e["modality"]) for run in tuned for e in run["sets"] if e["harmful"]})
    bases = dict.fromkeys((run["model"], run["base_seed"]) for run in tuned)
    return [
        _entry(model, base, name, modality, plain, last, contrast)
        for name, modality in asked
        for model, base in bases
        for contrast in _contrasts([r for r in tuned if (r["model"], r["base_seed"]) == (model, base)])
    ]


def _contrasts(mine: Sequence[Run]) -> Iterator[tuple[str, str, str, list[Run], list[Run]]]:
    """(factor, level, question, a's runs, b's runs); the difference is b - a."""
    for axis in sorted({run["axis"] for run in mine}):
        sides = [[r for r in mine if (r["axis"], r["kind"]) == (axis, kind)] for kind in ("distant", "closest")]
        if all(sides):
            yield "axis", axis, f"closest minus distant, {axis} axis", sides[0], sides[1]
    text, audio = ([r for r in mine if r["train_modality"] == modality] for modality in ("text", "audio"))
    if text and audio:
        yield "modality", "audio", "trained on audio minus on text", text, audio


def _entry(
    model: str,
    base: int,
    name: str,
    modality: str,
    plain: str,
    last: int,
    contrast: tuple[str, str, str, list[Run], list[Run]],
) -> dict[str, Any]:
    factor, level, question, a, b = contrast
    before, after = (_rates(side, name, modality, plain) for side in (a, b))
    difference = paired_runs(before, after, limits=(-1.0, 1.0))
    return {
        "model": model,
        "base_seed": base,
        "factor": factor,
        "level": level,
        "question": question,
        "set": name,
        "modality": modality,
        "system": plain,
        "step": last,
        "scope": "recipe",
        "metric": metric_of(a),
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


def _rates(runs: Sequence[Run], name: str, modality: str, plain: str) -> Rates:
    """(base, draw, seed) -> mean JSR over the arms of one side."""
    rates: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for run in runs:
        entry = find_rate(run, name, modality, plain)
        if entry is not None:
            rates[run["base_seed"], run["draw"], run["seed"]].append(attack_rate(entry))
    return {key: fmean(values) for key, values in rates.items()}
