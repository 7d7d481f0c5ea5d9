"""Comparisons of recipes in results.json: contrasts paired over runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from undersong.evaluation.rates import Metric
from undersong.results.schema import RunResult, identity_hash
from undersong.results.schema_mechanism import LateGapComparison
from undersong.results.schema_outcomes import (
    ComparisonRecord,
    ComparisonSide,
    MixedModelRecord,
    PairedRunDifference,
    RandomEffectRecord,
)
from undersong.statistics import RunDifference, fit_mixed_model, holm, paired_runs

RatesByRun = dict[tuple[int, int, int], float]  # by (base, draw, seed)
T = TypeVar("T", ComparisonRecord, LateGapComparison)


@dataclass(frozen=True)
class ContrastArm:
    """One side of a contrast: its runs, what distinguishes it, and their system prompt.

    With `subtracted` the side is an effect, the runs' rate minus that of another side; a contrast of two such sides is
    an interaction.
    """

    runs: Sequence[RunResult]
    labels: Mapping[str, Any]
    system: str
    subtracted: ContrastArm | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest possible difference between two such sides."""
        return (-1.0, 1.0) if self.subtracted is None else (-2.0, 2.0)

    def rates(self, set_name: str, modality: str) -> RatesByRun:
        """Return the JSR on a prompt set in one modality, or its difference from that of the subtracted side."""
        found = ((run, run.find_rate(set_name, modality, self.system)) for run in self.runs)
        rates = {run.run_key: rate.rate for run, rate in found if rate is not None}
        if self.subtracted is None:
            return rates
        estimates = paired_runs(self.subtracted.rates(set_name, modality), rates).estimates
        return {(estimate.base, estimate.draw, estimate.seed): estimate.difference for estimate in estimates}

    @property
    def selection_hashes(self) -> dict[tuple[int, int, int], tuple[str | None, ...]]:
        """The ids that each run trained on, by (base, draw, seed), and those of the subtracted side."""
        hashes: dict[tuple[int, int, int], tuple[str | None, ...]] = {
            run.run_key: (run.selection_hash,) for run in self.runs
        }
        if self.subtracted is None:
            return hashes
        subtracted = self.subtracted.selection_hashes
        return {key: (*own, *subtracted.get(key, ())) for key, own in hashes.items()}

    def label(self, other: ContrastArm) -> str:
        """Return a label of the properties in which this side differs from the other."""
        differences = [str(value) for key, value in self.labels.items() if other.labels.get(key) != value]
        return " ".join([*differences, *([self.system] if self.system != other.system else [])])


def recipe_comparisons(
    runs: Sequence[RunResult], plain: str, defense_system: str | None, last_step: int
) -> list[ComparisonRecord]:
    """Return the recipe comparisons of a study on harmful prompts, Holm-corrected as one family.

    Args:
        runs: Runs of one study, on all bases.
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt used as a defense, or None.
        last_step: Training step at which arms are compared.
    """
    tuned = tuned_runs(runs, last_step)
    comparisons = [
        _recipe_comparison(question, a, b, name, modality, last_step)
        for name, modality in harmful_prompts(tuned)
        for axis, fraction in sorted(
            {(run.axis, run.fraction) for run in tuned if run.axis is not None and run.fraction is not None}
        )
        for question, a, b in recipe_contrasts(tuned, axis, fraction, plain, defense_system)
    ]
    return adjust_p_values(comparisons)


def adjust_p_values(comparisons: Sequence[T]) -> list[T]:
    """Set `p_adjusted` by Holm's method over all of these together: one family a scope."""
    adjusted = holm([comparison.p for comparison in comparisons])
    return [
        comparison.model_copy(update={"p_adjusted": p_adjusted})
        for comparison, p_adjusted in zip(comparisons, adjusted)
    ]


def tuned_runs(runs: Iterable[RunResult], last_step: int) -> list[RunResult]:
    """The runs of tuned arms at the last step."""
    return [run for run in runs if run.kind != "base" and run.step == last_step]


def harmful_prompts(runs: Iterable[RunResult]) -> list[tuple[str, str]]:
    """Return the sorted (prompt set, modality) of all harmful prompts that any of the runs was evaluated on."""
    return sorted({(rate.prompt_set, rate.modality) for run in runs for rate in run.rates if rate.harmful})


def harm_metric(runs: Iterable[RunResult]) -> Metric:
    """The name of the runs' rate on harmful prompts; all of a study have one judge."""
    return next((rate.metric for run in runs for rate in run.rates if rate.harmful), "jsr")


def recipe_contrasts(
    tuned: Sequence[RunResult], axis: str, fraction: float, plain: str, defense_system: str | None
) -> Iterator[tuple[str, ContrastArm, ContrastArm]]:
    """Yield (question, a, b) for each contrast of arms on one axis and fraction; the difference is b - a.

    Args:
        tuned: Tuned runs at the last step.
        axis: Name of the axis that the arms were selected on.
        fraction: Selected share of the pool, in [0, 1].
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt used as a defense, or None.
    """
    cell = [run for run in tuned if (run.axis, run.fraction) == (axis, fraction)]
    kinds, modalities = {run.kind for run in cell}, {str(run.train_modality) for run in cell}
    cell_label = f"{axis} at {fraction:g}"

    def contrast_arm(kind: str, modality: str, system: str = plain) -> ContrastArm:
        labels = {"axis": axis, "fraction": fraction, "kind": kind, "train_modality": modality}
        return ContrastArm([r for r in cell if (r.kind, r.train_modality) == (kind, modality)], labels, system)

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


def _rule_contrasts(cell: Sequence[RunResult]) -> Iterator[tuple[str, str, str]]:
    """Return (a, b, question) for arms that a rule selected.

    Contrasts are with random samples, with the same kind without the rule's conditions, and of closest with distant
    under the same conditions. Random samples that match in a property separate closeness from what comes with it.
    Closest samples are compared with these, and these with plain random samples.
    """
    rules = {run.kind: (*_split_rule(run.rule), run.harm_set) for run in cell if run.rule}
    plain_harm_sets = {run.harm_set for run in cell if not run.rule}
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
    """Return the kind of a rule, and its remaining parts except the amount."""
    kind, _, conditions = rule.partition("+")
    return kind.partition(":")[0], conditions


def _recipe_comparison(
    question: str, a: ContrastArm, b: ContrastArm, set_name: str, modality: str, step: int
) -> ComparisonRecord:
    difference = paired_runs(a.rates(set_name, modality), b.rates(set_name, modality), limits=a.limits)
    sides, metric = (_recipe_side(a, b), _recipe_side(b, a)), harm_metric(a.runs)
    return ComparisonRecord(
        id=recipe_question_id(a, b, set_name, modality, metric),
        scope="recipe",
        question=question,
        a=sides[0],
        b=sides[1],
        prompt_set=set_name,
        modality=modality,
        step=step,
        metric=metric,
        estimates=paired_differences(difference),
        n=difference.n,
        difference=difference.difference,
        low=difference.low,
        high=difference.high,
        p=difference.p,
        method=difference.method,
        note=difference.note or None,
        mixed_model=_comparison_model(difference, a, b),
    )


def _comparison_model(difference: RunDifference, a: ContrastArm, b: ContrastArm) -> MixedModelRecord | None:
    """Mixed model of the paired differences: bases, draws that kept other samples, and seeds."""
    selections = [side.selection_hashes for side in (a, b)]
    keys = [(pair.base, pair.draw, pair.seed) for pair in difference.estimates]
    levels: dict[str, list[Any]] = {
        "base": [base for base, _, _ in keys],
        "draw": [tuple(hashes.get(key) for hashes in selections) for key in keys],
    }
    return mixed_model_record(levels, [pair.difference for pair in difference.estimates], a.limits)


def mixed_model_record(
    levels: Mapping[str, Sequence[Any]], differences: Sequence[float], limits: tuple[float, float]
) -> MixedModelRecord | None:
    """Fit a mixed model of differences run by run; None if their runs have one level only.

    Args:
        levels: Label of each run by the name of the level, the outermost first.
        differences: Difference of each run.
        limits: Range of a possible difference.
    """
    model = fit_mixed_model(levels, differences, limits=limits)
    if model is None:
        return None
    return MixedModelRecord(
        runs=model.runs,
        difference=model.mean,
        low=model.low,
        high=model.high,
        effects=[RandomEffectRecord(name=part.name, groups=part.groups, sd=part.sd) for part in model.effects],
        note=model.note or None,
    )


def recipe_question_id(a: ContrastArm, b: ContrastArm, set_name: str, modality: str, metric: Metric) -> str:
    """Identify the question of a contrast, without the step: studies of other lengths ask the same question.

    Args:
        a: The side that is subtracted.
        b: The other side.
        set_name: Name of the harmful prompt set.
        modality: Modality of the prompts.
        metric: Metric of the rates.
    """
    sides = side_identity(_recipe_side(a, b), _recipe_side(b, a))
    return identity_hash(["recipe", *sides, set_name, modality, metric])


def _recipe_side(side: ContrastArm, other: ContrastArm) -> ComparisonSide:
    minus_arm = None if side.subtracted is None else side.subtracted.runs[0].arm
    return ComparisonSide(arm=side.runs[0].arm, minus_arm=minus_arm, system=side.system, label=side.label(other))


def side_identity(*sides: ComparisonSide) -> list[str | None]:
    """Return what identifies the sides of a comparison: arm, subtracted arm and system prompt of each."""
    return [part for side in sides for part in (side.arm, side.minus_arm, side.system)]


def paired_differences(difference: RunDifference) -> list[PairedRunDifference]:
    """Return the differences run by run as records of results.json."""
    return [
        PairedRunDifference(base_seed=e.base, draw=e.draw, seed=e.seed, a=e.a, b=e.b, difference=e.difference)
        for e in difference.estimates
    ]
