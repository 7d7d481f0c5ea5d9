"""The comparisons of results.json, of the two kinds DESIGN rule 9 keeps apart.

`scope: recipe` – does this selection, modality or defense matter? – runs are the sample, paired by (base, draw, seed).
`scope: model` – does this adapter differ from its base? – prompts are the sample, clustered by behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from undersong.pipeline.rates import find_rate
from undersong.statistics import compare_paired, holm, paired_runs
from undersong.types import UndersongError, Verdict

Run = Mapping[str, Any]
Side = Callable[[Run], bool]


def recipe_comparisons(runs: Sequence[Run], plain: str, safe: str | None, last: int) -> list[dict[str, Any]]:
    """Every contrast of a study, at the last step and on spoken harmful prompts, corrected by Holm together."""
    tuned = [run for run in runs if run["kind"] != "base" and run["step"] == last]
    harm_sets = sorted({e["set"] for run in tuned for e in run["sets"] if e["harmful"]})
    made = [c for name in harm_sets for c in _contrasts(tuned, name, plain, safe, last)]
    for comparison, p in zip(made, holm([c["p"] for c in made])):
        comparison["p_adjusted"] = p
    return made


def _contrasts(tuned: Sequence[Run], name: str, plain: str, safe: str | None, last: int) -> Iterable[dict[str, Any]]:
    axes = sorted({run["axis"] for run in tuned})
    fractions = sorted({run["fraction"] for run in tuned})
    for axis in axes:
        for fraction in fractions:
            cell = [run for run in tuned if run["axis"] == axis and run["fraction"] == fraction]
            kinds = {run["kind"] for run in cell}
            modalities = sorted({run["train_modality"] for run in cell})
            for modality in modalities:
                here = [run for run in cell if run["train_modality"] == modality]
                for a, b in (("distant", "closest"), ("random", "closest"), ("distant", "random")):
                    if {a, b} <= kinds:
                        question = f"Does {b} data break more than {a} data ({axis}, trained on {modality})?"
                        label = {"axis": axis, "fraction": fraction, "train_modality": modality}
                        yield _recipe(question, _of(here, a), _of(here, b), {**label, "kind": a}, {**label, "kind": b}, name, plain, plain, last)
                if safe is not None and "closest" in kinds:
                    question = f"Does the system prompt bring the JSR back ({axis} closest, trained on {modality})?"
                    label = {"axis": axis, "fraction": fraction, "train_modality": modality, "kind": "closest"}
                    yield _recipe(question, _of(here, "closest"), _of(here, "closest"), {**label, "system": plain}, {**label, "system": safe}, name, plain, safe, last)
            if modalities == ["audio", "text"]:
                for kind in sorted(kinds):
                    question = f"Does training on audio break more than on text ({axis} {kind}, same samples)?"
                    label = {"axis": axis, "fraction": fraction, "kind": kind}
                    sides = [[r for r in _of(cell, kind) if r["train_modality"] == m] for m in ("text", "audio")]
                    yield _recipe(question, *sides, {**label, "train_modality": "text"}, {**label, "train_modality": "audio"}, name, plain, plain, last)


def _of(runs: Sequence[Run], kind: str) -> list[Run]:
    return [run for run in runs if run["kind"] == kind]


def _recipe(
    question: str, a: Sequence[Run], b: Sequence[Run], label_a: dict, label_b: dict, name: str, system_a: str, system_b: str, step: int
) -> dict[str, Any]:
    rates = [_rates(side, name, system) for side, system in ((a, system_a), (b, system_b))]
    difference = paired_runs(*rates, limits=(-1.0, 1.0))
    return {
        "id": f"recipe:{name}:{question}",
        "scope": "recipe",
        "question": question,
        "a": {"label": _label(label_a, label_b), **label_a},
        "b": {"label": _label(label_b, label_a), **label_b},
        "set": name,
        "modality": "audio",
        "system": system_b if system_a == system_b else f"{system_a} / {system_b}",
        "step": step,
        "metric": "jsr",
        "estimates": [
            {"base_seed": e.base, "draw": e.draw, "seed": e.seed, "a": e.a, "b": e.b, "difference": e.difference}
            for e in difference.estimates
        ],
        "n": difference.n,
        "difference": difference.difference,
        "low": difference.low,
        "high": difference.high,
        "p": difference.p,
        "method": difference.method,
        "note": difference.note,
    }


def _label(mine: dict, other: dict) -> str:
    """What sets this side apart."""
    return " ".join(str(value) for key, value in mine.items() if other.get(key) != value)


def _rates(runs: Sequence[Run], name: str, system: str) -> dict[tuple[int, int, int], float]:
    out = {}
    for run in runs:
        entry = find_rate(run, name, "audio", system)
        if entry is not None:
            out[run["base_seed"], run["draw"], run["seed"]] = entry["jsr"]
    return out


def model_comparison(arm: Mapping[str, Any], before: Sequence[Verdict], after: Sequence[Verdict], name: str, system: str) -> dict[str, Any]:
    """One adapter against its base on the same spoken prompts, clustered by behaviour."""
    keyed = [
        {v.prompt_id: v for v in verdicts if (v.set, v.modality, v.system) == (name, "audio", system)}
        for verdicts in (before, after)
    ]
    if keyed[0].keys() != keyed[1].keys():
        lost = sorted(keyed[0].keys() ^ keyed[1].keys())[0]
        raise UndersongError(f"Prompt {lost} of set {name} was asked of only one of base and {arm['arm']}; ask it of both.")
    ids = sorted(keyed[0])
    hits = [[side[i].verdict == "jailbreak" for i in ids] for side in keyed]
    paired = compare_paired(*hits, clusters=[keyed[0][i].cluster for i in ids])
    return {
        "id": f"model:{name}:{arm['arm']}:{arm['seed']}:{arm['step']}",
        "scope": "model",
        "question": f"Is {arm['arm']} (seed {arm['seed']}) less safe than its base?",
        "a": {"label": "base"},
        "b": {"label": arm["arm"], "seed": arm["seed"]},
        "set": name,
        "modality": "audio",
        "system": system,
        "step": arm["step"],
        "metric": "jsr",
        "estimates": [],
        "n": paired.n,
        "difference": paired.difference,
        "low": paired.clustered_low,
        "high": paired.clustered_high,
        "p": paired.clustered_p,
        "p_adjusted": None,
        "method": f"sign-flip over {paired.clusters} clusters; Newcombe interval at the clustered effective n",
        "note": f"exact McNemar over prompts, unclustered: p = {paired.p:.3g}",
        "paired": {key: value for key, value in asdict(paired).items() if key in ("b", "c", "clusters")},
    }
