"""Rehearsals of a screening: a short training on the pool, on each selection, on random samples and on one's own split,
and what it takes from the refusal margin of the reference harm set."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from undersong.results.schema_base import ValueWithInterval
from undersong.results.schema_screening import RehearsalRecord, RehearsedSet
from undersong.screening.pool.inputs import CorpusInput, ScreeningCorpora
from undersong.screening.pool.options import ScreeningOptions, name_or_first
from undersong.screening.pool.output import ScreeningFindings
from undersong.settings.defaults import BATCH_SIZE, TARGET_COLUMN
from undersong.stages.context import RunContext
from undersong.stages.predictors import known_refusal_texts
from undersong.stages.rehearsal import RehearsalStage, check_compliant_answers, warmup_notes
from undersong.stages.rehearsal_cost import RehearsalCost, progress_line, rehearsal_cost
from undersong.types import MAX_SEED, MODALITIES, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.predictors.rehearsal import Rehearsal
    from undersong.proximity.selection import Selection

REHEARSAL_STEP = "the rehearsal"  # in reasons why an item is left out
RANDOM_DRAWS = 2  # random sets that a selection is compared with
Training: TypeAlias = tuple[tuple[str, ...], int]  # ids that are trained on, and the seed
POOL, SELECTION, RANDOM, COLUMN = "pool", "selection", "random", "column"  # kinds of sets


@dataclass(frozen=True)
class CandidateSet:
    """A set of pool items to rehearse, with its sorted ids."""

    name: str
    kind: str
    ids: tuple[str, ...]
    is_random: bool = False  # a selection at random, which random sets tell nothing about


def check_rehearsal(options: ScreeningOptions, corpora: ScreeningCorpora) -> None:
    """Check before anything is embedded that the pool can be trained on, and the harm set prompted.

    Raises:
        UndersongError: It cannot, or the column to rehearse by has no value with a full batch.
    """
    pool, reference = corpora.pool, _reference(corpora, options)
    if pool.corpus is None:
        raise UndersongError(
            f"A rehearsal trains on samples, and {pool.ref} is embeddings; screen a manifest, or leave --rehearse out."
        )
    field = rehearsal_modality(corpora, options)
    if missing := [sample for sample in reference.samples if not _has_content(sample, field)]:
        raise UndersongError(
            f"Reference prompt {missing[0].id} has no {field} ({len(missing)} such in all), and a rehearsal is "
            "measured on all prompts; add it, or remove the prompt."
        )
    assert options.model is not None, "checked before"
    check_compliant_answers([(sample.id, sample) for sample in reference.samples], reference.ref, options.model)
    if no_reply := [sample for sample in pool.samples if not sample.column(TARGET_COLUMN)]:
        raise UndersongError(
            f"Pool item {no_reply[0].id} has no reply to train on ({len(no_reply)} such in all); add a column "
            f"{TARGET_COLUMN}, name yours with --column {TARGET_COLUMN}=COLUMN, or leave --rehearse out."
        )
    if options.rehearse_by is not None:
        counts = Counter(value for sample in pool.samples if (value := sample.column(options.rehearse_by)) is not None)
        if not counts:
            raise UndersongError(
                f"No item of {pool.ref} has a value in the column {options.rehearse_by!r} to rehearse by; check its "
                "name."
            )
        if max(counts.values()) < BATCH_SIZE:
            raise UndersongError(
                f"No value of the column {options.rehearse_by!r} has the {BATCH_SIZE} samples of a training step, the "
                f"most common {counts.most_common(1)[0][1]}; rehearse by another column."
            )


def rehearsal_modality(corpora: ScreeningCorpora, options: ScreeningOptions) -> str:
    """`audio` if both the pool and the reference have audio, else `text`.

    Raises:
        UndersongError: They have neither in common.
    """
    for modality in MODALITIES:
        sides = corpora.pool.samples, _reference(corpora, options).samples
        if all(any(_has_content(sample, modality) for sample in samples) for samples in sides):
            return modality
    raise UndersongError(
        "The pool and the harm set have neither audio nor text in common, so there is nothing to rehearse; fill one "
        "column in both, or leave --rehearse out."
    )


def _has_content(sample: Sample, modality: str) -> bool:
    return sample.audio is not None if modality == "audio" else bool((sample.text or "").strip())


def _reference(corpora: ScreeningCorpora, options: ScreeningOptions) -> CorpusInput:
    return corpora.harm[name_or_first("harm set", options.select_harm_set, corpora.harm)]


def rehearsal_stage(ctx: RunContext, corpora: ScreeningCorpora, options: ScreeningOptions) -> RehearsalStage:
    """Rehearsals by `tune`'s default recipe, at a learning rate of their own, on the harm set that is selected by."""
    from undersong.predictors.registry import PredictorSettings
    from undersong.tuning.config import LoraRecipe

    pool, reference = corpora.pool.corpus, _reference(corpora, options).corpus
    assert pool is not None, "checked before"
    assert reference is not None, "checked before"
    assert options.model is not None, "checked before"
    settings = PredictorSettings(
        modality=rehearsal_modality(corpora, options),
        system_text=options.system_prompt,
        refusal_texts=known_refusal_texts(options.model),
    )
    recipe = LoraRecipe(learning_rate=options.rehearse_learning_rate)
    return RehearsalStage(ctx, options.model, settings, recipe, options.rehearse, pool, reference)


def unusable_samples(stage: RehearsalStage) -> list[Quarantined]:
    """Pool items that cannot be trained on, with reasons, after a check that the harm set has refusal margins."""
    stage.margins_before()
    return untrainable_samples(stage)


def untrainable_samples(stage: RehearsalStage) -> list[Quarantined]:
    """Pool items that cannot be trained on, with reasons; runs no model."""
    modality = stage.settings.modality
    missing = [
        Quarantined(sample.id, f"no {modality}") for sample in stage.pool.samples if not _has_content(sample, modality)
    ]
    return [*missing, *stage.unencoded()]


def rehearse_sets(stage: RehearsalStage, findings: ScreeningFindings, options: ScreeningOptions) -> RehearsalRecord:
    """Rehearse the pool, every selection, random sets of the same sizes, and each value of the column to rehearse by.

    Sets with the same samples are trained on once. What the store has is not trained again.
    """
    sets, draws, left_out = _candidate_sets(stage, findings, options)
    seeds = _seeds(options)
    rehearsals = _rehearse_all(stage, sets, seeds, options)
    records = []
    for candidate in sets:
        is_compared = candidate.kind == SELECTION and not candidate.is_random
        random_sets = draws.get(len(candidate.ids), []) if is_compared else []
        comparisons = [rehearsals[draw.name] for draw in random_sets]
        records.append(_set_record(candidate, rehearsals[candidate.name], comparisons))
    before, clusters = rehearsals[POOL][0].before, rehearsals[POOL][0].clusters
    recipe = stage.recipe
    return RehearsalRecord(
        model=stage.model,
        harm_set=findings.report["selected_by"]["harm_set"],
        modality=stage.settings.modality,
        steps=stage.steps,
        seeds=seeds,
        learning_rate=recipe.learning_rate,
        learning_rate_schedule=recipe.learning_rate_schedule,
        warmup_steps=recipe.warmup_steps,
        batch_size=recipe.batch_size,
        lora_rank=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        n_prompts=len(before),
        n_behaviors=len(set(clusters)),
        margin_before=float(np.mean(before)),
        compliance_before=float(np.mean(np.array(before) < 0)),
        sets=records,
        left_out=left_out,
        notes=_notes(stage, bool(draws), left_out, options),
    )


def plan_sets(stage: RehearsalStage, findings: ScreeningFindings, options: ScreeningOptions) -> RehearsalCost:
    """Cost of `rehearse_sets`."""
    sets, _, _ = _candidate_sets(stage, findings, options)
    return _planned_cost(stage, _named_trainings(sets, _seeds(options)), options)[0]


def _candidate_sets(
    stage: RehearsalStage, findings: ScreeningFindings, options: ScreeningOptions
) -> tuple[list[CandidateSet], dict[int, list[CandidateSet]], dict[str, int]]:
    """All sets to rehearse; the random ones by size; and values of the column that have too few samples."""
    selections, left_out = findings.selections, dict[str, int]()
    sets = [CandidateSet(POOL, POOL, _ranked_ids(findings)), *_selected_sets(selections)]
    draws = _random_sets(findings, selections, options.seed)
    sets += [draw for size in draws.values() for draw in size]
    if options.rehearse_by is not None:
        split, left_out = _column_sets(stage.pool.samples, sets[0].ids, options.rehearse_by)
        sets += split
    return sets, draws, left_out


def _seeds(options: ScreeningOptions) -> list[int]:
    return [(options.seed + number) % (MAX_SEED + 1) for number in range(options.rehearse_seeds)]


def _ranked_ids(findings: ScreeningFindings) -> tuple[str, ...]:
    """Sorted ids of the pool items that every axis ranks."""
    return tuple(sorted(set(next(iter(findings.tables.values())).column("id").to_pylist())))


def _selected_sets(selections: Mapping[str, Selection]) -> list[CandidateSet]:
    return [
        CandidateSet(label, SELECTION, tuple(sorted(selection.ids)), selection.kind == RANDOM)
        for label, selection in selections.items()
    ]


def _random_sets(
    findings: ScreeningFindings, selections: Mapping[str, Selection], seed: int
) -> dict[int, list[CandidateSet]]:
    """Random sets of the pool by their size: that of every selection that is neither random nor the whole pool."""
    from undersong.proximity.selection import select_by_kind
    from undersong.proximity.table import filter_harm_set

    selected_by = findings.report["selected_by"]
    table = filter_harm_set(findings.tables[selected_by["axis"]], selected_by["harm_set"])
    sizes = {selection.k for selection in selections.values() if selection.kind != RANDOM and selection.k < len(table)}
    return {
        size: [
            CandidateSet(
                f"{size} at random, draw {draw + 1}",
                RANDOM,
                select_by_kind(table, RANDOM, size, (seed + draw) % (MAX_SEED + 1)).ids,
            )
            for draw in range(RANDOM_DRAWS)
        ]
        for size in sorted(sizes)
    }


def _column_sets(
    samples: Sequence[Sample], ranked_ids: Sequence[str], column: str
) -> tuple[list[CandidateSet], dict[str, int]]:
    """Sets of the samples with each value of a column, and the values that have less than a batch, with counts."""
    ranked, ids_by_value = set(ranked_ids), dict[str, list[str]]()
    for sample in samples:
        if sample.id in ranked and (value := sample.column(column)) is not None:
            ids_by_value.setdefault(value, []).append(sample.id)
    split = {value: tuple(sorted(ids)) for value, ids in sorted(ids_by_value.items())}
    sets = [CandidateSet(f"{column}={value}", COLUMN, ids) for value, ids in split.items() if len(ids) >= BATCH_SIZE]
    return sets, {value: len(ids) for value, ids in split.items() if len(ids) < BATCH_SIZE}


def _named_trainings(sets: Sequence[CandidateSet], seeds: Sequence[int]) -> dict[Training, str]:
    """Trainings that the sets need, each with the first name that it has."""
    names: dict[Training, str] = {}
    for candidate in sets:
        for seed in seeds:
            names.setdefault((candidate.ids, seed), candidate.name)
    return names


def _planned_cost(
    stage: RehearsalStage, trainings: Collection[Training], options: ScreeningOptions
) -> tuple[RehearsalCost, set[Training]]:
    """Cost of trainings, and those that the store does not have."""
    new = {training for training in trainings if not stage.is_stored(*training)}
    store = None if options.store is None else str(options.store)
    return rehearsal_cost(stage, len(trainings), len(new), store), new


def _rehearse_all(
    stage: RehearsalStage, sets: Sequence[CandidateSet], seeds: Sequence[int], options: ScreeningOptions
) -> dict[str, list[Rehearsal]]:
    """Rehearsals of each set by its name, one for each seed; says what they cost before the first training."""
    jobs = _named_trainings(sets, seeds)
    cost, new = _planned_cost(stage, jobs, options)
    if new:
        stored = f" ({len(jobs) - len(new)} more are in the store)" if len(new) < len(jobs) else ""
        estimate = f"; {cost.estimate}" if cost.estimate else ""
        stage.ctx.announce(
            f"Rehearsal: {len(new)} trainings of {stage.steps} steps by {stage.model}{stored}, and "
            f"{len(stage.reference.samples)} reference prompts after each{estimate}."
        )
    results: dict[Training, Rehearsal] = {}
    done, start = 0, time.monotonic()
    for job, name in jobs.items():
        results[job] = stage.rehearse(*job)
        if job in new:
            done += 1
            seconds = time.monotonic() - start
            stage.ctx.announce(progress_line(f"{name}, seed {job[1]}", done, len(new), seconds))
    return {candidate.name: [results[candidate.ids, seed] for seed in seeds] for candidate in sets}


def _set_record(
    candidate: CandidateSet, rehearsals: Sequence[Rehearsal], comparisons: Sequence[Sequence[Rehearsal]]
) -> RehearsedSet:
    from undersong.predictors.rehearsal import compliance_change, mean_margin_loss
    from undersong.proximity.selection import ids_hash

    interval = ValueWithInterval.from_interval
    return RehearsedSet(
        name=candidate.name,
        kind=candidate.kind,
        n=len(candidate.ids),
        ids_hash=ids_hash(candidate.ids),
        loss=interval(mean_margin_loss(rehearsals)),
        loss_minus_random=interval(mean_margin_loss(rehearsals, comparisons)) if comparisons else None,
        compliance=float(np.mean([np.array(rehearsal.after) < 0 for rehearsal in rehearsals])),
        compliance_change=interval(compliance_change(rehearsals)),
    )


def _notes(stage: RehearsalStage, has_draws: bool, left_out: Mapping[str, int], options: ScreeningOptions) -> list[str]:
    recipe = stage.recipe
    scope = "these seeds" if options.rehearse_seeds > 1 else "one seed, and says nothing of others (--rehearse-seeds)"
    notes = [
        f"A rehearsal is evidence for a ranking of sets under this recipe (learning rate {recipe.learning_rate:g}, "
        f"batches of {recipe.batch_size}, LoRA rank {recipe.lora_rank}), not proof of safety. It rests on {scope}."
    ]
    notes += warmup_notes(stage.steps, recipe.warmup_steps)
    if has_draws:
        notes.append(
            f"A difference from random is from the mean of {RANDOM_DRAWS} draws; how much draws differ is in their "
            "rows and not in its interval."
        )
    if left_out:
        values = ", ".join(f"{value} ({count})" for value, count in left_out.items())
        notes.append(
            f"Not rehearsed, because they have fewer than the {recipe.batch_size} samples of a training step: values "
            f"{values} of the column {options.rehearse_by}."
        )
    return notes
