"""Contrasts of recipes: the pairs of arms that a study compares, by the name that it may declare them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from undersong.results.schema import RunResult
from undersong.statistics.runs import paired_runs
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
from undersong.study.results.prompt_outcomes import ClusterMeans, PromptEndpoint, PromptOutcomes
from undersong.study.schema import Study

RunKey = tuple[int, int, int]  # (base, draw, seed)
RatesByRun = dict[RunKey, float]
RunMeasure = Callable[[RunResult, str], float | None]  # (run, name of the system prompt) -> a number, if measured


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

        def jsr(run: RunResult, system: str) -> float | None:
            rate = run.find_rate(set_name, modality, system)
            return None if rate is None else rate.rate

        rates = self._own_values(jsr)
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

    def values(self, measure: RunMeasure) -> RatesByRun:
        """Return a measure that some runs may lack, or its difference from that of the subtracted side.

        Runs without it, or without a partner on the subtracted side, are left out.
        """
        values = self._own_values(measure)
        if self.subtracted is None:
            return values
        subtracted = self.subtracted.values(measure)
        return {key: value - subtracted[key] for key, value in values.items() if key in subtracted}

    def cluster_means(
        self, outcomes: PromptOutcomes, endpoint: PromptEndpoint, set_name: str, modality: str
    ) -> dict[RunKey, ClusterMeans]:
        """Return the means of each cluster of prompts by run, or their differences from those of the subtracted side.

        Args:
            outcomes: Outcomes of single prompts. Runs without them are left out.
            endpoint: The endpoint.
            set_name: Name of the prompt set.
            modality: Modality of the prompts.
        """
        found = ((run.run_key, outcomes.find(endpoint, run, set_name, modality, self.system)) for run in self.runs)
        means = {key: values for key, values in found if values is not None}
        if self.subtracted is None:
            return means
        other = self.subtracted.cluster_means(outcomes, endpoint, set_name, modality)
        return {
            key: {name: value - other[key][name] for name, value in values.items()}
            for key, values in means.items()
            if key in other and values.keys() == other[key].keys()
        }

    def _own_values(self, measure: RunMeasure) -> RatesByRun:
        values = ((run.run_key, measure(run, self.system)) for run in self.runs)
        return {key: value for key, value in values if value is not None}

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


NO_PRIMARY: PrimaryPlan = PrimaryPlan()


def all_contrasts(
    tuned: Sequence[RunResult],
    bases: Sequence[RunResult],
    plain: str,
    defense_system: str | None,
    primary: PrimaryPlan = NO_PRIMARY,
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
