"""The comparisons of results.json, of the two kinds DESIGN rule 9 keeps apart.

`scope: recipe` – does this selection, modality or defense matter? – runs are the sample, paired by (base, draw, seed).
`scope: model` – does this adapter differ from its base? – prompts are the sample, clustered by behaviour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from undersong.pipeline.results.rates import attack_name, attack_rate, find_rate, metric_of
from undersong.report.words import spoken
from undersong.statistics import compare_paired, holm, paired_runs
from undersong.types import UndersongError, Verdict

Run = Mapping[str, Any]
Rates = dict[tuple[int, int, int], float]  # by (base, draw, seed)


@dataclass(frozen=True)
class Side:
    """One side of a contrast: its runs, what it is, and the system text they are asked under.

    With `less`, what the runs have more than those of another side: of two such sides the contrast is an interaction.
    """

    runs: Sequence[Run]
    facts: Mapping[str, Any]
    system: str
    less: Side | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """What the difference of two such sides can be."""
        return (-1.0, 1.0) if self.less is None else (-2.0, 2.0)

    def rates(self, name: str, modality: str) -> Rates:
        """JSR on the set `name`, asked in `modality`, or how much more it is than the other side's."""
        found = ((run, find_rate(run, name, modality, self.system)) for run in self.runs)
        rates = {
            (run["base_seed"], run["draw"], run["seed"]): attack_rate(entry)
            for run, entry in found
            if entry is not None
        }
        if self.less is None:
            return rates
        more = paired_runs(self.less.rates(name, modality), rates).estimates
        return {(one.base, one.draw, one.seed): one.difference for one in more}

    def label(self, other: Side) -> str:
        """What sets this side apart from the other."""
        apart = [str(value) for key, value in self.facts.items() if other.facts.get(key) != value]
        return " ".join([*apart, *([self.system] if self.system != other.system else [])])


def recipe_comparisons(runs: Sequence[Run], plain: str, safe: str | None, last: int) -> list[dict[str, Any]]:
    """Every contrast of a study, at the last step, on spoken and typed harmful prompts, corrected by Holm together."""
    tuned = [run for run in runs if run["kind"] != "base" and run["step"] == last]
    asked = {(e["set"], e["modality"]) for run in tuned for e in run["sets"] if e["harmful"]}
    made = [
        _recipe(question, a, b, name, modality, last)
        for name, modality in sorted(asked)
        for axis, fraction in sorted({(run["axis"], run["fraction"]) for run in tuned})
        for question, a, b in contrasts(tuned, axis, fraction, plain, safe)
    ]
    return correct(made)


def correct(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`p_adjusted` by Holm over all of these together: one family a scope (DESIGN rule 9)."""
    for comparison, p in zip(comparisons, holm([c["p"] for c in comparisons])):
        comparison["p_adjusted"] = p
    return comparisons


def contrasts(
    tuned: Sequence[Run], axis: str, fraction: float, plain: str, safe: str | None
) -> Iterator[tuple[str, Side, Side]]:
    """(question, a, b) of one axis and fraction; the difference is b - a."""
    cell = [run for run in tuned if (run["axis"], run["fraction"]) == (axis, fraction)]
    kinds, modalities = {run["kind"] for run in cell}, {run["train_modality"] for run in cell}
    at = f"{axis} at {fraction:g}"

    def side(kind: str, modality: str, system: str = plain) -> Side:
        facts = {"axis": axis, "fraction": fraction, "kind": kind, "train_modality": modality}
        return Side([r for r in cell if (r["kind"], r["train_modality"]) == (kind, modality)], facts, system)

    for modality in sorted(modalities):
        for a, b in (("distant", "closest"), ("random", "closest"), ("distant", "random")):
            if {a, b} <= kinds:
                question = f"Does {b} data break more than {a} data ({at}, trained on {modality})?"
                yield question, side(a, modality), side(b, modality)
        if safe is not None and "closest" in kinds:
            question = f"Does the system prompt bring the JSR back (closest, {at}, trained on {modality})?"
            yield question, side("closest", modality), side("closest", modality, safe)
        for a, b, question in _rules(cell):
            if {a, b} <= kinds:
                yield f"{question} ({at}, trained on {modality})?", side(a, modality), side(b, modality)
    for kind in sorted(kinds) if modalities == {"audio", "text"} else ():
        question = f"Does training on audio break more than on text ({kind}, {at}, same samples)?"
        yield question, side(kind, "text"), side(kind, "audio")
    if modalities == {"audio", "text"} and {"closest", "distant"} <= kinds:
        gaps = []
        for modality in ("text", "audio"):
            near, far = side("closest", modality), side("distant", modality)
            gaps.append(Side(near.runs, {**near.facts, "kind": "closest − distant"}, plain, less=far))
        yield f"Does it matter more on audio than on text how close the data is ({at})?", gaps[0], gaps[1]


def _rules(cell: Sequence[Run]) -> Iterator[tuple[str, str, str]]:
    """(a, b, question) of the arms that a rule selected: against random samples, against the same kind without the
    rule's conditions, and closest against distant under the same conditions.  Random samples that are alike in
    something part what closeness does from what comes with it: closest against them, and they against plain ones."""
    rules = {run["kind"]: (*_conditions(run["rule"]), run.get("harm_set")) for run in cell if run.get("rule")}
    plain = {run.get("harm_set") for run in cell if not run.get("rule")}
    for name, (kind, conditions, to) in sorted(rules.items()):
        yield "random", name, f"Does {name} data break more than random data"
        if conditions and kind in ("closest", "distant") and to in plain:
            yield kind, name, f"Does {name} data break more than {kind} data without its conditions"
        if conditions and kind == "random" and to in plain:
            yield name, "closest", f"Does closest data break more than {name} data"
        for other, (opposite, same, theirs) in sorted(rules.items()):
            if (kind, opposite, conditions, to) == ("closest", "distant", same, theirs):
                yield other, name, f"Does {name} data break more than {other} data"


def _conditions(rule: str) -> tuple[str, str]:
    """The kind of a rule, and all it says beyond kind and amount."""
    kind, _, conditions = rule.partition("+")
    return kind.partition(":")[0], conditions


def _recipe(question: str, a: Side, b: Side, name: str, modality: str, step: int) -> dict[str, Any]:
    difference = paired_runs(a.rates(name, modality), b.rates(name, modality), limits=a.limits)
    return {
        "id": f"recipe:{name}:{modality}:{question}",
        "scope": "recipe",
        "question": question,
        "a": {"label": a.label(b), **a.facts, "system": a.system},
        "b": {"label": b.label(a), **b.facts, "system": b.system},
        "set": name,
        "modality": modality,
        "system": b.system if a.system == b.system else f"{a.system} / {b.system}",
        "step": step,
        "metric": metric_of(a.runs),
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
    arm: Mapping[str, Any], before: Sequence[Verdict], after: Sequence[Verdict], name: str, modality: str, system: str
) -> dict[str, Any]:
    """One adapter against its base on the same prompts, all spoken or all typed, clustered by behaviour."""
    keyed = [
        {v.prompt_id: v for v in verdicts if (v.set, v.modality, v.system) == (name, modality, system)}
        for verdicts in (before, after)
    ]
    if keyed[0].keys() != keyed[1].keys():
        lost = sorted(keyed[0].keys() ^ keyed[1].keys())[0]
        raise UndersongError(
            f"Prompt {lost} of set {name} was asked of only one of base and {arm['arm']}; ask it of both."
        )
    ids = sorted(keyed[0])
    hits = [[side[i].verdict == "jailbreak" for i in ids] for side in keyed]
    paired = compare_paired(hits[0], hits[1], clusters=[keyed[0][i].cluster for i in ids])
    return {
        "id": f"model:{name}:{modality}:{arm['arm']}:{arm['seed']}:{arm['step']}",
        "scope": "model",
        "question": f"Is {arm['arm']} (seed {arm['seed']}) less safe than its base ({spoken(modality)} requests)?",
        "a": {"label": "base"},
        "b": {"label": arm["arm"], "seed": arm["seed"]},
        "set": name,
        "modality": modality,
        "system": system,
        "step": arm["step"],
        "metric": attack_name(after[0].judge),
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
