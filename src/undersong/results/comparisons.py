"""Comparisons of results.json: contrasts of recipes paired over runs, adapters against their base over prompts, and
marginal effects of axis and modality.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from undersong.evaluation.rates import attack_rate, attack_rate_name, find_set_entry, harm_metric
from undersong.evaluation.verdicts import pair_verdicts
from undersong.results.schema_base import modality_label
from undersong.statistics import compare_paired, holm, paired_runs
from undersong.types import UndersongError, Verdict

RunEntry = Mapping[str, Any]
RatesByRun = dict[tuple[int, int, int], float]  # by (base, draw, seed)


@dataclass(frozen=True)
class ContrastArm:
    """One side of a contrast: its runs, what it is, and the system text they are asked under.

    With `less`, what the runs have more than those of another side: of two such sides the contrast is an interaction.
    """

    runs: Sequence[RunEntry]
    labels: Mapping[str, Any]
    system: str
    subtracted: ContrastArm | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """What the difference of two such sides can be."""
        return (-1.0, 1.0) if self.subtracted is None else (-2.0, 2.0)

    def rates(self, set_name: str, modality: str) -> RatesByRun:
        """JSR on the set `name`, asked in `modality`, or how much more it is than the other side's."""
        entries = ((run, find_set_entry(run, set_name, modality, self.system)) for run in self.runs)
        rates = {
            (run["base_seed"], run["draw"], run["seed"]): attack_rate(entry)
            for run, entry in entries
            if entry is not None
        }
        if self.subtracted is None:
            return rates
        estimates = paired_runs(self.subtracted.rates(set_name, modality), rates).estimates
        return {(estimate.base, estimate.draw, estimate.seed): estimate.difference for estimate in estimates}

    def label(self, other: ContrastArm) -> str:
        """What sets this side apart from the other."""
        differences = [str(value) for key, value in self.labels.items() if other.labels.get(key) != value]
        return " ".join([*differences, *([self.system] if self.system != other.system else [])])


def recipe_comparisons(
    runs: Sequence[RunEntry], plain: str, defense_system: str | None, last_step: int
) -> list[dict[str, Any]]:
    """Every contrast of a study, at the last step, on spoken and typed harmful prompts, corrected by Holm together."""
    tuned = [run for run in runs if run["kind"] != "base" and run["step"] == last_step]
    prompt_sets = {(e["set"], e["modality"]) for run in tuned for e in run["sets"] if e["harmful"]}
    comparisons = [
        _recipe_comparison(question, a, b, name, modality, last_step)
        for name, modality in sorted(prompt_sets)
        for axis, fraction in sorted({(run["axis"], run["fraction"]) for run in tuned})
        for question, a, b in recipe_contrasts(tuned, axis, fraction, plain, defense_system)
    ]
    return adjust_p_values(comparisons)


def adjust_p_values(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`p_adjusted` by Holm over all of these together: one family a scope (DESIGN rule 9)."""
    for comparison, p in zip(comparisons, holm([c["p"] for c in comparisons])):
        comparison["p_adjusted"] = p
    return comparisons


def recipe_contrasts(
    tuned: Sequence[RunEntry], axis: str, fraction: float, plain: str, defense_system: str | None
) -> Iterator[tuple[str, ContrastArm, ContrastArm]]:
    """(question, a, b) of one axis and fraction; the difference is b - a."""
    cell = [run for run in tuned if (run["axis"], run["fraction"]) == (axis, fraction)]
    kinds, modalities = {run["kind"] for run in cell}, {run["train_modality"] for run in cell}
    cell_label = f"{axis} at {fraction:g}"

    def contrast_arm(kind: str, modality: str, system: str = plain) -> ContrastArm:
        labels = {"axis": axis, "fraction": fraction, "kind": kind, "train_modality": modality}
        return ContrastArm([r for r in cell if (r["kind"], r["train_modality"]) == (kind, modality)], labels, system)

    for modality in sorted(modalities):
        for a, b in (("distant", "closest"), ("random", "closest"), ("distant", "random")):
            if {a, b} <= kinds:
                question = f"Does {b} data break more than {a} data ({cell_label}, trained on {modality})?"
                yield question, contrast_arm(a, modality), contrast_arm(b, modality)
        if defense_system is not None and "closest" in kinds:
            question = f"Does the system prompt bring the JSR back (closest, {cell_label}, trained on {modality})?"
            yield question, contrast_arm("closest", modality), contrast_arm("closest", modality, defense_system)
        for a, b, question in _rule_contrasts(cell):
            if {a, b} <= kinds:
                yield (
                    f"{question} ({cell_label}, trained on {modality})?",
                    contrast_arm(a, modality),
                    contrast_arm(b, modality),
                )
    for kind in sorted(kinds) if modalities == {"audio", "text"} else ():
        question = f"Does training on audio break more than on text ({kind}, {cell_label}, same samples)?"
        yield question, contrast_arm(kind, "text"), contrast_arm(kind, "audio")
    if modalities == {"audio", "text"} and {"closest", "distant"} <= kinds:
        gaps = []
        for modality in ("text", "audio"):
            closest_arm, distant_arm = contrast_arm("closest", modality), contrast_arm("distant", modality)
            gaps.append(
                ContrastArm(
                    closest_arm.runs, {**closest_arm.labels, "kind": "closest − distant"}, plain, subtracted=distant_arm
                )
            )
        yield f"Does it matter more on audio than on text how close the data is ({cell_label})?", gaps[0], gaps[1]


def _rule_contrasts(cell: Sequence[RunEntry]) -> Iterator[tuple[str, str, str]]:
    """(a, b, question) of the arms that a rule selected: against random samples, against the same kind without the
    rule's conditions, and closest against distant under the same conditions.  Random samples that are alike in
    something part what closeness does from what comes with it: closest against them, and they against plain ones."""
    rules = {run["kind"]: (*_split_rule(run["rule"]), run.get("harm_set")) for run in cell if run.get("rule")}
    plain_harm_sets = {run.get("harm_set") for run in cell if not run.get("rule")}
    for name, (kind, conditions, harm_set) in sorted(rules.items()):
        yield "random", name, f"Does {name} data break more than random data"
        if conditions and kind in ("closest", "distant") and harm_set in plain_harm_sets:
            yield kind, name, f"Does {name} data break more than {kind} data without its conditions"
        if conditions and kind == "random" and harm_set in plain_harm_sets:
            yield name, "closest", f"Does closest data break more than {name} data"
        for other_name, (opposite, other_conditions, other_harm_set) in sorted(rules.items()):
            if (kind, opposite, conditions, harm_set) == ("closest", "distant", other_conditions, other_harm_set):
                yield other_name, name, f"Does {name} data break more than {other_name} data"


def _split_rule(rule: str) -> tuple[str, str]:
    """The kind of a rule, and all it says beyond kind and amount."""
    kind, _, conditions = rule.partition("+")
    return kind.partition(":")[0], conditions


def _recipe_comparison(
    question: str, a: ContrastArm, b: ContrastArm, set_name: str, modality: str, step: int
) -> dict[str, Any]:
    difference = paired_runs(a.rates(set_name, modality), b.rates(set_name, modality), limits=a.limits)
    return {
        "id": f"recipe:{set_name}:{modality}:{question}",
        "scope": "recipe",
        "question": question,
        "a": {"label": a.label(b), **a.labels, "system": a.system},
        "b": {"label": b.label(a), **b.labels, "system": b.system},
        "set": set_name,
        "modality": modality,
        "system": b.system if a.system == b.system else f"{a.system} / {b.system}",
        "step": step,
        "metric": harm_metric(a.runs),
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


def model_comparison(
    arm: Mapping[str, Any],
    before: Sequence[Verdict],
    after: Sequence[Verdict],
    set_name: str,
    modality: str,
    system: str,
) -> dict[str, Any]:
    """One adapter against its base on the same prompts, all spoken or all typed, clustered by behavior."""
    verdict_pairs = pair_verdicts(
        *(
            [v for v in verdicts if (v.set, v.modality, v.system) == (set_name, modality, system)]
            for verdicts in (before, after)
        )
    )
    if unpaired := (*verdict_pairs.only_before, *verdict_pairs.only_after):
        unpaired_id = min(verdict.prompt_id for verdict in unpaired)
        raise UndersongError(
            f"Prompt {unpaired_id} of set {set_name} was asked of only one of base and {arm['arm']}; ask it of both."
        )
    rows = verdict_pairs.by_prompt
    outcomes = [[row[side] is not None and row[side].verdict == "jailbreak" for row in rows] for side in (0, 1)]
    paired = compare_paired(outcomes[0], outcomes[1], clusters=[cluster for _, _, cluster in rows])
    return {
        "id": f"model:{set_name}:{modality}:{arm['arm']}:{arm['seed']}:{arm['step']}",
        "scope": "model",
        "question": f"Is {arm['arm']} (seed {arm['seed']}) less safe than its base ({modality_label(modality)} requests)?",
        "a": {"label": "base"},
        "b": {"label": arm["arm"], "seed": arm["seed"]},
        "set": set_name,
        "modality": modality,
        "system": system,
        "step": arm["step"],
        "metric": attack_rate_name(after[0].judge),
        "estimates": [],
        "n": paired.n,
        "difference": paired.difference,
        "low": paired.clustered_low,
        "high": paired.clustered_high,
        "p": paired.clustered_p,
        "p_adjusted": None,
        "method": f"sign-flip over {paired.clusters} clusters; Newcombe interval at the clustered effective n",
        "note": f"exact McNemar over prompts, unclustered: p = {paired.p:.3g}",
        "paired": {"b": paired.b, "c": paired.c, "clusters": paired.clusters},
    }


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
