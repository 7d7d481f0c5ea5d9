"""One contrast of several studies put together: random effects over bases, or over the studies of one base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from undersong.research.statistics.meta_analysis import MetaAnalysis, pooled_variances, random_effects
from undersong.results.schema import Results
from undersong.results.schema_comparisons import PairedRunDifference
from undersong.results.schema_synthesis import (
    HeterogeneityRecord,
    Synthesis,
    SynthesisAnalysis,
    SynthesisEstimate,
    SynthesizedStudy,
)
from undersong.settings.judge_names import RATE_LABELS
from undersong.statistics.runs import mean_runs
from undersong.study.results.comparability import evaluation_facts, fact_differences, study_titles
from undersong.study.results.comparisons import harm_metric, mixed_model_record
from undersong.study.results.run_contrasts import (
    DEFAULT_CONTRAST,
    ArmFilter,
    CellDifference,
    cell_differences,
    check_contrast,
    contrast_train_modalities,
    default_prompt_set,
    harmful_sets,
)
from undersong.suggestions import did_you_mean
from undersong.types import UndersongError

ALL_ARMS = ArmFilter()
LIMITS = (-1.0, 1.0)  # of a difference of two shares
MODALITIES = ("audio", "text")
TauMethod = Literal["paule-mandel", "dersimonian-laird"]
NOTE_ONE_BASE = "All studies audit one base: the interval holds for further studies of it, and not for other bases."
NOTE_PROMPTS = "Prompts are taken as fixed: all intervals are over bases, studies and runs."


@dataclass(frozen=True)
class SynthesisOptions:
    """What is put together. With `prompt_set` None each study's set `harm` counts, or else its first harmful set."""

    contrast: str = DEFAULT_CONTRAST
    prompt_set: str | None = None
    modality: str | None = None
    arms: ArmFilter = ALL_ARMS
    method: TauMethod = "paule-mandel"


@dataclass(frozen=True)
class _StudyBase:
    """Differences of one study and base, run by run: the means over its arms by (draw, seed)."""

    study: str
    model: str
    prompt_set: str
    arms: tuple[str, ...]
    differences: Mapping[tuple[int, int], tuple[float, float]]  # a, b

    @property
    def values(self) -> list[float]:
        return [b - a for a, b in self.differences.values()]


def study_differences(studies: Sequence[tuple[str, Results]], options: SynthesisOptions) -> list[list[str]]:
    """Return, for each study, one phrase per fact in which it must be like the first and is not.

    Rates depend on the judge, the metric, the harmful prompts and their number, the instruction, the system prompt and
    the limit of new tokens.
    """
    names = study_titles(studies)
    facts = []
    for (_, results), name in zip(studies, names):
        prompt_set = _prompt_set(results, options.prompt_set, name)
        label = RATE_LABELS[harm_metric(results.runs)]
        facts.append(evaluation_facts(results, prompt_set, results.study.undefended_system, label))
    return [fact_differences(names[0], facts[0], study_facts) for study_facts in facts]


def synthesize(studies: Sequence[tuple[str, Results]], options: SynthesisOptions) -> Synthesis:
    """Put one contrast of several studies together, for prompts of each modality that they measured.

    A study gives one estimate for each of its bases. The independent units are the bases; studies of one base are
    averaged within it. If all studies have one base, the studies are the units.

    Args:
        studies: Label and results of each study. Whether they may be put together is for the caller to check
            (`study_differences`).
        options: Contrast, prompts and arms.

    Raises:
        UndersongError: There is no such contrast, prompt set or modality, fewer than two estimates of it, or its arms
            were trained on speech and on text and may not be averaged.
    """
    question = check_contrast(options.contrast)
    if options.modality is not None and options.modality not in MODALITIES:
        raise UndersongError(f"There is no modality {options.modality!r} of prompts; take audio or text.")
    distinct, notes = _distinct_studies(studies)
    _check_training_modality(distinct, options)
    names = study_titles(distinct)
    analyses = [
        analysis
        for modality in MODALITIES
        if options.modality in (None, modality)
        and (analysis := _analyze(distinct, names, options, modality)) is not None
    ]
    if not analyses:
        raise UndersongError(
            f"Only one study and base, or none, has the contrast {options.contrast} with these options; name results "
            f"of two at least, of the arms {_arm_names(distinct)}."
        )
    differences = study_differences(distinct, options)
    return Synthesis(
        contrast=options.contrast,
        question=question,
        studies=[
            SynthesizedStudy(
                name=name,
                models=results.study.models,
                judge=results.study.judge,
                steps=results.study.steps,
                result_hash=results.provenance.result_hash if results.provenance is not None else None,
                differences=phrases,
            )
            for name, (_, results), phrases in zip(names, distinct, differences)
        ],
        analyses=analyses,
        notes=[*notes, *_dose_notes(distinct, names), NOTE_PROMPTS],
    )


def _check_training_modality(studies: Sequence[tuple[str, Results]], options: SynthesisOptions) -> None:
    """Check that arms trained on speech and on text are not averaged unasked: they differ in more than their data."""
    if options.arms.mix_modalities:
        return
    modalities = {
        modality
        for _, results in studies
        for modality in contrast_train_modalities(results, options.contrast, options.arms)
    }
    if len(modalities) > 1:
        raise UndersongError(
            f"The arms of {options.contrast} were trained on {' and on '.join(sorted(modalities))}; give --trained-on "
            f"{' or '.join(sorted(modalities))}, or --trained-on both to average them."
        )


def _distinct_studies(studies: Sequence[tuple[str, Results]]) -> tuple[list[tuple[str, Results]], list[str]]:
    """Studies without those that are named twice, and a note on each of these."""
    names, notes = study_titles(studies), []
    first_names: dict[str, str] = {}
    distinct = []
    for name, (label, results) in zip(names, studies):
        result_hash = results.provenance.result_hash if results.provenance is not None else name
        if (first := first_names.setdefault(result_hash, name)) != name:
            notes.append(f"{name} has the same results as {first} and is counted once.")
        else:
            distinct.append((label, results))
    return distinct, notes


def _prompt_set(results: Results, wanted: str | None, name: str) -> str | None:
    """The harmful set to compare on; None if the study measured none."""
    if wanted is None:
        return default_prompt_set(results)
    sets = harmful_sets(results)
    if wanted not in sets:
        available = f"; it has {', '.join(sets) or 'none'}."
        raise UndersongError(f"{name} has no harmful prompt set {wanted!r}{did_you_mean(wanted, sets) or available}")
    return wanted


def _analyze(
    studies: Sequence[tuple[str, Results]], names: Sequence[str], options: SynthesisOptions, modality: str
) -> SynthesisAnalysis | None:
    """Put together what the studies measured in one modality; None for fewer than two estimates."""
    counted: set[Any] = set()
    groups: list[_StudyBase] = []
    notes: list[str] = []
    for name, (_, results) in zip(names, studies):
        prompt_set = _prompt_set(results, options.prompt_set, name)
        cells = (
            []
            if prompt_set is None
            else cell_differences(results, options.contrast, options.arms, prompt_set, modality)
        )
        fresh, shared = _uncounted(cells, counted)
        if not cells:
            notes.append(f"{name} does not have this contrast and is left out.")
        elif len(fresh) < len(cells):
            notes.append(
                f"{len(cells) - len(fresh)} of {len(cells)} differences in {name} rest on trainings that were counted "
                "before (same adapter); each counts once."
            )
        if shared:
            notes.append(f"{shared} differences in {name} share one of their two trainings with another difference.")
        groups += _study_bases(name, prompt_set or "", fresh)
    if len(groups) < 2:
        return None
    unit: Literal["base", "study"] = "base" if len({group.model for group in groups}) > 1 else "study"
    units = _group_by(groups, unit)
    values = [[value for group in members for value in group.values] for members in units.values()]
    found = random_effects(
        [fmean(run_values) for run_values in values], pooled_variances(values), method=options.method, limits=LIMITS
    )
    if unit == "study":
        notes.append(NOTE_ONE_BASE)
    return _analysis_record(groups, units, unit, modality, harm_metric(studies[0][1].runs), found, notes)


def _uncounted(cells: Iterable[CellDifference], counted: set[Any]) -> tuple[list[CellDifference], int]:
    """Differences of which a training is new, and how many of them have another that is not.

    Their trainings are then counted.
    """
    fresh, shared = [], 0
    for cell in cells:
        are_new = [counted.isdisjoint(names) for names in cell.trainings]
        if any(are_new):
            fresh.append(cell)
            shared += not all(are_new)
        counted.update(*cell.trainings)
    return fresh, shared


def _study_bases(name: str, prompt_set: str, cells: Sequence[CellDifference]) -> list[_StudyBase]:
    """Average the differences of a study over its arms, by base, draw and seed."""
    groups = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own_cells = [cell for cell in cells if cell.model == model]
        keys = dict.fromkeys((cell.draw, cell.seed) for cell in own_cells)
        sides = {key: [(cell.a, cell.b) for cell in own_cells if (cell.draw, cell.seed) == key] for key in keys}
        means = {key: (fmean(a for a, _ in pairs), fmean(b for _, b in pairs)) for key, pairs in sides.items()}
        groups.append(_StudyBase(name, model, prompt_set, tuple(dict.fromkeys(c.arms for c in own_cells)), means))
    return groups


def _group_by(groups: Sequence[_StudyBase], unit: Literal["base", "study"]) -> dict[str, list[_StudyBase]]:
    units: dict[str, list[_StudyBase]] = {}
    for group in groups:
        units.setdefault(group.model if unit == "base" else group.study, []).append(group)
    return units


def _analysis_record(
    groups: Sequence[_StudyBase],
    units: Mapping[str, Sequence[_StudyBase]],
    unit: Literal["base", "study"],
    modality: str,
    metric: Any,
    found: MetaAnalysis,
    notes: Sequence[str],
) -> SynthesisAnalysis:
    estimates = [
        _estimate_record(group, weight * len(group.values) / sum(len(member.values) for member in members))
        for members, weight in zip(units.values(), found.weights)
        for group in members
    ]
    rows = [(group.model, group.study, value) for group in groups for value in group.values]
    spread = found.heterogeneity
    return SynthesisAnalysis(
        modality=modality,
        metric=metric,
        unit=unit,
        units=found.units,
        estimates=estimates,
        mean=found.mean,
        low=found.low,
        high=found.high,
        p=found.p,
        prediction_low=found.prediction_low,
        prediction_high=found.prediction_high,
        heterogeneity=spread
        and HeterogeneityRecord(q=spread.q, df=spread.df, p=spread.p, tau=spread.tau, i_squared=spread.i_squared),
        mixed_model=mixed_model_record(
            {"base": [model for model, _, _ in rows], "study": [study for _, study, _ in rows]},
            [value for _, _, value in rows],
            LIMITS,
        ),
        method=f"{found.method}; units are {'bases' if unit == 'base' else 'studies'}",
        notes=[*notes, *([found.note] if found.note else [])],
    )


def _estimate_record(group: _StudyBase, weight: float) -> SynthesisEstimate:
    runs = {(0, draw, seed): b - a for (draw, seed), (a, b) in group.differences.items()}
    mean = mean_runs(runs, limits=LIMITS)
    return SynthesisEstimate(
        study=group.study,
        model=group.model,
        prompt_set=group.prompt_set,
        arms=list(group.arms),
        runs=mean.n,
        difference=mean.mean,
        low=mean.low,
        high=mean.high,
        weight=weight,
        differences=[
            PairedRunDifference(base_seed=0, draw=draw, seed=seed, a=a, b=b, difference=b - a)
            for (draw, seed), (a, b) in group.differences.items()
        ],
    )


def _dose_notes(studies: Sequence[tuple[str, Results]], names: Sequence[str]) -> list[str]:
    """A note on studies that trained for another number of steps than the first."""
    steps = [max(results.study.steps, default=0) for _, results in studies]
    others = [f"{name} {count}" for name, count in zip(names, steps) if count != steps[0]]
    return (
        [f"Studies trained for other numbers of steps: {names[0]} {steps[0]}, {', '.join(others)}."] if others else []
    )


def _arm_names(studies: Sequence[tuple[str, Results]]) -> str:
    """Names of the trained arms of all studies, for an error message."""
    names = dict.fromkeys(run.arm for _, results in studies for run in results.runs if run.kind != "base")
    return ", ".join(names) or "none"
