"""Comparisons of recipes in results.json: contrasts paired over runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from undersong.evaluation.rates import Metric
from undersong.results.schema import PromptSetRate, RunResult, identity_hash
from undersong.results.schema_mechanism import LateGapComparison
from undersong.results.schema_outcomes import (
    ComparisonRecord,
    ComparisonSide,
    PairedRunDifference,
)
from undersong.statistics import (
    RunBounds,
    RunDifference,
    bound_change_from_base,
    holm,
    paired_runs,
    prompt_interval,
    run_mean_p,
)
from undersong.study import Study
from undersong.study.analysis import (
    AXES,
    CLOSENESS_BY_MODALITY,
    KIND_PAIRS,
    SYSTEM_PROMPT,
    Question,
    RuleFacts,
    rule_facts,
    rule_pairs,
)

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

    def label(self, other: ContrastArm) -> str:
        """Return a label of the properties in which this side differs from the other."""
        differences = [str(value) for key, value in self.labels.items() if other.labels.get(key) != value]
        return " ".join([*differences, *([self.system] if self.system != other.system else [])])


class Contrast(NamedTuple):
    """Two sides of a comparison of recipes, by the name that a study may declare it with; the difference is b - a."""

    name: str
    question: str
    a: ContrastArm
    b: ContrastArm


@dataclass(frozen=True)
class PrimaryPlan:
    """Primary questions, and the order in which a study names what a question may be asked of.

    A question stands for one comparison: of those with its name (and axis), the first by axis, fraction, prompt set,
    modality of the prompts and modality of training.
    """

    questions: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    fractions: tuple[float, ...] = ()
    prompt_sets: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    train_modalities: tuple[str, ...] = ()

    @classmethod
    def of_study(cls, study: Study) -> PrimaryPlan:
        """The plan of a study, with its declared questions or the default one."""
        return cls(
            questions=study.primary_questions,
            axes=study.selection.axes,
            fractions=study.selection.fractions,
            prompt_sets=tuple(study.prompt_sets),
            modalities=tuple(study.evaluation.modalities),
            train_modalities=tuple(study.tuning.modalities),
        )

    def choose(self, asked: Sequence[tuple[Contrast, str, str]]) -> set[int]:
        """Return the places of the primary comparisons among (contrast, prompt set, modality of the prompts)."""
        chosen = set()
        for question in map(Question.parse, self.questions):
            places = [
                place
                for place, (contrast, _, _) in enumerate(asked)
                if contrast.name == question.name and question.axis in (None, contrast.b.labels["axis"])
            ]
            if places:
                chosen.add(min(places, key=lambda place: self._rank(*asked[place])))
        return chosen

    def _rank(self, contrast: Contrast, prompt_set: str, modality: str) -> tuple[int, ...]:
        labels = contrast.b.labels
        places: tuple[tuple[object, Sequence[object]], ...] = (
            (labels["axis"], self.axes),
            (labels["fraction"], self.fractions),
            (prompt_set, self.prompt_sets),
            (modality, self.modalities),
            (labels["train_modality"], self.train_modalities),
        )
        return tuple(order.index(value) if value in order else len(order) for value, order in places)


def recipe_comparisons(
    runs: Sequence[RunResult],
    plain: str,
    defense_system: str | None,
    last_step: int,
    primary: PrimaryPlan = PrimaryPlan(),
) -> list[ComparisonRecord]:
    """Return the recipe comparisons of a study on harmful prompts.

    The primary questions are Holm-corrected as a family of their own, and so are all others, which are exploratory.

    Args:
        runs: Runs of one study, on all bases.
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt used as a defense, or None.
        last_step: Training step at which arms are compared.
        primary: The primary questions.
    """
    tuned = tuned_runs(runs, last_step)
    bases = [run for run in runs if run.kind == "base"]
    asked = [
        (contrast, name, modality)
        for name, modality in harmful_prompts(tuned)
        for contrast in all_contrasts(tuned, bases, plain, defense_system, primary)
        if contrast.a.subtracted is not None or contrast.a.rates(name, modality)
    ]
    primary_places = primary.choose(asked)
    comparisons = [
        _recipe_comparison(contrast, name, modality, last_step, is_primary=place in primary_places)
        for place, (contrast, name, modality) in enumerate(asked)
    ]
    adjusted = {
        comparison.id: comparison
        for family in ("primary", "exploratory")
        for comparison in adjust_p_values([row for row in comparisons if row.family == family])
    }
    return [adjusted[comparison.id] for comparison in comparisons]


def adjust_p_values(comparisons: Sequence[T]) -> list[T]:
    """Set `p_adjusted` by Holm's method over all of these together: one family."""
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


def all_contrasts(
    tuned: Sequence[RunResult],
    bases: Sequence[RunResult],
    plain: str,
    defense_system: str | None,
    primary: PrimaryPlan = PrimaryPlan(),
) -> Iterator[Contrast]:
    """Yield the contrasts of all axes and fractions, and of the first two axes if that question is primary.

    Args:
        tuned: Tuned runs at the last step.
        bases: Runs of the bases.
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt used as a defense, or None.
        primary: The primary questions.
    """
    for axis, fraction in sorted(
        {(run.axis, run.fraction) for run in tuned if run.axis is not None and run.fraction is not None}
    ):
        yield from recipe_contrasts(tuned, axis, fraction, plain, defense_system, bases)
    if AXES in primary.questions:
        yield from _axis_contrasts(tuned, primary.axes[:2], plain)


def _axis_contrasts(tuned: Sequence[RunResult], axes: Sequence[str], plain: str) -> Iterator[Contrast]:
    first, second = axes
    closest = [run for run in tuned if run.kind == "closest" and run.axis in axes]
    for fraction, modality in sorted({(run.fraction or 0.0, str(run.train_modality)) for run in closest}):
        sides = [
            ContrastArm(
                [run for run in closest if (run.axis, run.fraction, run.train_modality) == (axis, fraction, modality)],
                {"axis": axis, "fraction": fraction, "kind": "closest", "train_modality": modality},
                plain,
            )
            for axis in (second, first)
        ]
        if all(side.runs for side in sides):
            question = f"Does closest data by the {first} axis break more than by the {second} axis"
            yield Contrast(AXES, f"{question} (at {fraction:g}, trained on {modality})?", *sides)


def recipe_contrasts(
    tuned: Sequence[RunResult],
    axis: str,
    fraction: float,
    plain: str,
    defense_system: str | None,
    bases: Sequence[RunResult] = (),
) -> Iterator[Contrast]:
    """Yield each contrast of arms on one axis and fraction; the difference is b - a.

    Args:
        tuned: Tuned runs at the last step.
        axis: Name of the axis that the arms were selected on.
        fraction: Selected share of the pool, in [0, 1].
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt used as a defense, or None.
        bases: Runs of the bases; without them no arm is compared with its base.
    """
    cell = [run for run in tuned if (run.axis, run.fraction) == (axis, fraction)]
    kinds, modalities = {run.kind for run in cell}, {str(run.train_modality) for run in cell}
    cell_label = f"{axis} at {fraction:g}"

    def contrast_arm(kind: str, modality: str, system: str = plain) -> ContrastArm:
        labels = {"axis": axis, "fraction": fraction, "kind": kind, "train_modality": modality}
        return ContrastArm([r for r in cell if (r.kind, r.train_modality) == (kind, modality)], labels, system)

    base = ContrastArm(bases, {"kind": "base"}, plain)
    for modality in sorted(modalities):
        for kind in sorted(kinds) if bases else ():
            question = f"Does {kind} data break the base ({cell_label}, trained on {modality})?"
            yield Contrast(f"{kind}-base", question, base, contrast_arm(kind, modality))
        for a, b in KIND_PAIRS:
            if {a, b} <= kinds:
                question = f"Does {b} data break more than {a} data ({cell_label}, trained on {modality})?"
                yield Contrast(f"{b}-{a}", question, contrast_arm(a, modality), contrast_arm(b, modality))
        if defense_system is not None and "closest" in kinds:
            question = f"Does the system prompt bring the JSR back (closest, {cell_label}, trained on {modality})?"
            yield Contrast(
                SYSTEM_PROMPT,
                question,
                contrast_arm("closest", modality),
                contrast_arm("closest", modality, defense_system),
            )
        for a, b, question in rule_pairs(_rules_of(cell), {run.harm_set for run in cell if not run.rule}):
            if {a, b} <= kinds:
                question = f"{question} ({cell_label}, trained on {modality})?"
                yield Contrast(f"{b}-{a}", question, contrast_arm(a, modality), contrast_arm(b, modality))
    for kind in sorted(kinds) if modalities == {"audio", "text"} else ():
        question = f"Does training on audio break more than on text ({kind}, {cell_label}, same samples)?"
        yield Contrast(f"modality-{kind}", question, contrast_arm(kind, "text"), contrast_arm(kind, "audio"))
    if modalities == {"audio", "text"} and {"closest", "distant"} <= kinds:
        gaps = []
        for modality in ("text", "audio"):
            closest_arm, distant_arm = contrast_arm("closest", modality), contrast_arm("distant", modality)
            gaps.append(
                ContrastArm(
                    closest_arm.runs, {**closest_arm.labels, "kind": "closest − distant"}, plain, subtracted=distant_arm
                )
            )
        question = f"Does it matter more on audio than on text how close the data is ({cell_label})?"
        yield Contrast(CLOSENESS_BY_MODALITY, question, gaps[0], gaps[1])


def _rules_of(cell: Sequence[RunResult]) -> dict[str, RuleFacts]:
    return {run.kind: rule_facts(run.rule, run.harm_set) for run in cell if run.rule}


def _recipe_comparison(
    contrast: Contrast, set_name: str, modality: str, step: int, is_primary: bool
) -> ComparisonRecord:
    _, question, a, b = contrast
    if a.labels["kind"] == "base":
        difference = _change_from_base(a, b, set_name, modality)
    else:
        difference = paired_runs(a.rates(set_name, modality), b.rates(set_name, modality), limits=a.limits)
    sides, metric = (_recipe_side(a, b), _recipe_side(b, a)), harm_metric(b.runs)
    return ComparisonRecord(
        # without the step: studies of other lengths ask the same question
        id=identity_hash(["recipe", *side_identity(*sides), set_name, modality, metric]),
        scope="recipe",
        family="primary" if is_primary else "exploratory",
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
    )


def _change_from_base(base: ContrastArm, tuned: ContrastArm, set_name: str, modality: str) -> RunDifference:
    """The change of the JSR from the base, bounded for any run noise.

    A base has no run noise, so the changes of an arm that does nothing on average are not symmetric, and Student's t
    does not hold: where few trainings break, most studies see none of them.
    """
    rates = {run.run_key: run.find_rate(set_name, modality, tuned.system) for run in tuned.runs}
    after = {key: rate for key, rate in rates.items() if rate is not None}
    by_base = {run.base_seed: run.find_rate(set_name, modality, base.system) for run in base.runs}
    before = {key: rate for key in after if (rate := by_base.get(key[0])) is not None}
    plain = paired_runs(
        {key: rate.rate for key, rate in before.items()}, {key: rate.rate for key, rate in after.items()}
    )

    def bounds_at(confidence: float) -> RunBounds:
        was, ends = ({key: _ends_at(rate, confidence) for key, rate in side.items()} for side in (before, after))
        return bound_change_from_base(was, ends, confidence)

    if plain.units < 2:
        return plain
    bounds = bounds_at(0.975)
    method = plain.method.replace("paired t", "bound for any run noise")
    return replace(plain, low=bounds.low, high=bounds.high, p=run_mean_p(bounds_at, 0.0), method=method, note="")


def _ends_at(rate: PromptSetRate, confidence: float) -> tuple[float, float]:
    if rate.low is None or rate.high is None:
        return rate.rate, rate.rate
    return prompt_interval(rate.rate, rate.low, rate.high, rate.n, rate.clusters, confidence)


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
