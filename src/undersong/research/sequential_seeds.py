"""Audit of a study whose seeds are added one at a time, until its contrast is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from statistics import fmean

from undersong.results.schema import Results
from undersong.results.schema_outcomes import SequentialLookRecord, SequentialRecord
from undersong.stages.context import RunContext
from undersong.statistics.sequential import SequentialLook, look
from undersong.study.arm_selection import load_selection
from undersong.study.assembly import study_outcomes
from undersong.study.audit import audit_model, audit_study, load_checked_corpora
from undersong.study.results.records import AuditRecord, ModelRecord
from undersong.study.results.run_contrasts import ArmFilter, cell_differences, default_prompt_set
from undersong.study.schema import Study
from undersong.types import UndersongError

DECISION_TEXT = {
    "shown": "the difference is shown",
    "futile": "more seeds are futile",
    "open": "nothing is decided yet",
}


def audit_sequentially(study: Study, ctx: RunContext) -> tuple[AuditRecord, SequentialRecord]:
    """Run a study with its first seeds, look at its contrast, and add seeds until it is decided.

    Blocks train and evaluate the arms only; defenses and mechanism are measured once, with the seeds that were run.

    Args:
        study: A study with `tuning.sequential_seeds` and one model.
        ctx: Run context with the artifact store.

    Returns:
        The audit with the seeds that were run, and the looks.

    Raises:
        UndersongError: The study does not measure the contrast, or a stage fails.
    """
    rule = study.tuning.sequential_seeds
    assert rule is not None, "the seeds of this study are a list"
    corpora = load_checked_corpora(study, ctx)
    arms_only = study.model_copy(update={"mechanism": None, "defenses": {}})
    modality = rule.modality or study.evaluation.modalities[0]
    stop, looks, count, prompt_set = rule.stop.split("|"), [], rule.first, ""
    for count in range(rule.first, rule.last + 1):
        results = _audit_block(corpora, _with_first_seeds(arms_only, count), ctx)
        prompt_set = default_prompt_set(results) or ""
        values = _differences_by_seed(results, rule.contrast, prompt_set, modality)
        if len(values) < count:
            raise UndersongError(
                f"Study {study.study} does not measure {rule.contrast} on {modality} prompts at every seed; change "
                "tuning.seeds.contrast or its modality."
            )
        resolution = 1 / next(r.n for run in results.runs for r in run.rates if r.prompt_set == prompt_set)
        found = look(list(values.values()), rule.last, rule.smallest, resolution=resolution)
        looks.append(_look_record(found))
        ctx.announce(f"{count} seeds: {rule.contrast} {100 * found.mean:+.1f} points, {DECISION_TEXT[found.decision]}")
        if found.decision in stop:
            break
    record = audit_study(_with_first_seeds(study, count), ctx)
    return record, SequentialRecord(
        contrast=rule.contrast,
        prompt_set=prompt_set,
        modality=modality,
        maximum=rule.last,
        smallest=rule.smallest,
        stop=stop,
        looks=looks,
    )


def sequential_note(sequential: SequentialRecord) -> str:
    """Describe in one paragraph where the seeds ended and why, and what the other intervals are worth."""
    last = sequential.looks[-1]
    interval = (
        "unbounded" if last.low is None or last.high is None else f"{100 * last.low:.1f} to {100 * last.high:.1f}"
    )
    return (
        f"Seeds were added one at a time and ended at {last.seeds} of at most {sequential.maximum}: "
        f"{DECISION_TEXT[last.decision]} ({sequential.contrast}, {sequential.modality} prompts of "
        f"{sequential.prompt_set}: {100 * last.mean:+.1f} points, 95 % confidence sequence {interval}, e-value "
        f"{last.e_value:.3g}). The confidence sequence holds at every look. The other intervals and p values over runs "
        "take no account of the looks."
    )


def _audit_block(corpora: AuditRecord, study: Study, ctx: RunContext) -> Results:
    """Rates of the study's arms, from corpora that are loaded and checked once."""
    (ref,) = study.models
    record = replace(corpora, study=study, models=[ModelRecord(ref, 0, ctx.features(ref))])
    audit_model(ctx, record, record.models[0], partial(load_selection, ctx, record.pool))
    return study_outcomes(record)


def _with_first_seeds(study: Study, count: int) -> Study:
    tuning = study.tuning
    update = {"seeds": tuning.seeds[:count], "draws": tuning.draws[:count]}
    return study.model_copy(update={"tuning": tuning.model_copy(update=update)})


def _differences_by_seed(results: Results, contrast: str, prompt_set: str, modality: str) -> Mapping[int, float]:
    """Mean difference over the arms of each seed, in the order of the seeds."""
    cells = cell_differences(results, contrast, ArmFilter(), prompt_set, modality)
    seeds = dict.fromkeys(seed for seed in results.study.seeds if any(cell.seed == seed for cell in cells))
    return {seed: fmean(cell.b - cell.a for cell in cells if cell.seed == seed) for seed in seeds}


def _look_record(found: SequentialLook) -> SequentialLookRecord:
    return SequentialLookRecord(
        seeds=found.runs,
        mean=found.mean,
        low=found.low,
        high=found.high,
        e_value=found.e_value,
        power=found.power,
        decision=found.decision,
    )
