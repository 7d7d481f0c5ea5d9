"""Whole audit in the paper's order: corpora, embeddings, proximity, selections, tuning, replies, verdicts, mechanism.
Each function is one stage and returns plain records for `results`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from undersong.phrases import count
from undersong.research.defenses.run import prepare_defenses, run_defenses
from undersong.stages.black_box_models import is_black_box
from undersong.stages.context import Corpus, RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.embeddings import EmbeddingRequest, compute_gradients, embed_corpus
from undersong.stages.features import compute_features
from undersong.stages.predictors import PredictorAxis, known_refusal_texts, predictor_modality
from undersong.stages.training import StudyArm, train_adapter, training_instruction, training_recipe
from undersong.store.store import Artifact
from undersong.study.arm_evaluation import evaluate_arm, judge_arm_replies, measure_refusal_gaps
from undersong.study.arm_selection import SelectionFunction, arm_rules, load_selection, measure_proximity
from undersong.study.checks import (
    StudySamples,
    check_axis_encoder,
    check_comprehension_sets,
    check_contrast_sizes,
    check_lost_items,
    check_models,
    check_overlap,
    check_selection_rules,
    count_near_overlaps,
)
from undersong.study.inputs import check_study_inputs
from undersong.study.prompt_requests import prompt_set_requests, repetition_requests
from undersong.study.results.records import ArmReplies, AuditRecord, ModelRecord
from undersong.study.schema import Study


def audit_study(study: Study, ctx: RunContext) -> AuditRecord:
    """Run (or look up) every stage of a study."""
    record = load_checked_corpora(study, ctx)
    record.overlap = count_near_overlaps(record)
    for corpus_name, other_name, kind, pairs in record.overlap:
        ctx.announce(f"overlap of {corpus_name} and {other_name}: {pairs} pairs with {kind} (listed in the report)")
    for base_seed, ref in enumerate(study.models):
        samples, axes = count(len(record.pool.samples), "benign sample"), count(len(study.axes), "axis", "axes")
        ctx.announce(f"{ref}: screening {samples} on {axes}")
        model = ModelRecord(ref, base_seed, ctx.features(ref))
        audit_model(ctx, record, model, partial(load_selection, ctx, record.pool))
        record.models.append(model)
    return record


def load_checked_corpora(study: Study, ctx: RunContext) -> AuditRecord:
    """Load the corpora of a study, and check them and its models.

    Raises:
        UndersongError: A check fails.
    """
    check_models(study)
    check_study_inputs(study)
    record = load_corpora(study, ctx)
    check_lost_items(record)
    check_overlap(study, StudySamples.of_record(record))
    check_selection_rules(record)
    check_contrast_sizes(record)
    check_comprehension_sets(record)
    return record


def load_corpora(study: Study, ctx: RunContext) -> AuditRecord:
    """Load the corpora, without any model; unknown encoders and rules are errors before anything is made.

    Raises:
        UndersongError: An encoder, a rule or a corpus is invalid.
    """
    from undersong.corpora.column_names import STUDY_COLUMN_ADVICE

    for axis, spec in study.axes.items():
        check_axis_encoder(axis, spec, ctx.unread)
    arm_rules(study)

    def load(ref: str, filters: dict[str, list[str]] | None = None, noise: str | None = None) -> Corpus:
        columns = study.columns.get(ref)
        return load_corpus(ctx, ref, filters, columns, noise=noise, column_advice=STUDY_COLUMN_ADVICE)

    pool = load(study.pool, study.selection.filters, study.selection.noise)
    harm_sets = {name: load(ref) for name, ref in study.harm_sets.items()}
    prompt_sets = {
        name: load(prompt_set.corpus, prompt_set.filters, prompt_set.noise)
        for name, prompt_set in study.prompt_sets.items()
    }
    benign_baseline = load(study.benign_reference) if study.benign_reference is not None else None
    mechanism_config = study.mechanism
    contrast = (
        {}
        if mechanism_config is None
        else {"harmful": load(mechanism_config.contrast_harmful), "benign": load(mechanism_config.contrast_benign)}
    )
    defense_corpora = {ref: load(ref) for defense in study.defenses.values() for ref in defense.corpora.values()}
    return AuditRecord(
        study,
        pool,
        harm_sets,
        prompt_sets,
        [],
        benign_baseline,
        contrast_corpora=contrast,
        defense_corpora=defense_corpora,
    )


def audit_model(ctx: RunContext, record: AuditRecord, model: ModelRecord, select_samples: SelectionFunction) -> None:
    """Run every stage on one base model and fill its record.

    Stages look up or make artifacts in the store; only `select_samples` reads the content of one.

    Args:
        ctx: Run context with the artifact store.
        record: Corpora and settings of the audit.
        model: Record of the base model, which is filled in place.
        select_samples: Function that returns the selection for an arm.
    """
    study, ref, only_replies = record.study, model.ref, is_black_box(model.ref)
    encode_corpora(ctx, record, model)
    compute_proximities(ctx, record, model)
    arm_replies = [evaluate_base(ctx, record, model)]
    if study.defenses and not only_replies:
        prepare_defenses(ctx, record, model)
    arms = list(study_arms(record, model, select_samples))  # before any training: a rule that finds nothing stops here
    arm_replies += train_and_evaluate_arms(ctx, record, [] if only_replies else arms)
    if study.mechanism is not None and not only_replies:
        ctx.announce(f"{ref}: refusal directions")
        measure_refusal_gaps(ctx, record, model, study.mechanism, arm_replies)
    defended_replies = run_defenses(ctx, record, model, arm_replies) if study.defenses and not only_replies else []
    ctx.announce(f"{ref}: judging")
    # Last, because a judge may take the model's place in memory.
    run_records = judge_arm_replies(ctx, record, [*arm_replies, *defended_replies])
    model.runs, model.defended_runs = run_records[: len(arm_replies)], run_records[len(arm_replies) :]


def encode_corpora(ctx: RunContext, record: AuditRecord, model: ModelRecord) -> None:
    """Compute the audio features of every corpus; pool and benign baseline may have clips that cannot be encoded."""
    if is_black_box(model.ref):
        return
    droppable = {corpus.artifact.hash for corpus in (record.pool, record.benign_reference) if corpus is not None}
    for corpus in record.corpora:
        compute_features(ctx, model.ref, corpus, corpus.artifact.hash not in droppable)


def compute_proximities(ctx: RunContext, record: AuditRecord, model: ModelRecord) -> None:
    """Measure the pool on every axis to every harm set, and the benign baseline to the first."""
    from undersong.predictors.registry import axis_measure

    study, settings = record.study, record.study.proximity.model_dump()
    fit_corpora = (
        record.pool,
        *record.harm.values(),
        *([] if record.benign_reference is None else [record.benign_reference]),
    )

    def embed_on_axis(spec: str, corpus: Corpus, harmful: bool = False) -> Artifact:
        artifact = _compute_vectors(ctx, record, model, spec, corpus, fit_corpora, harmful)
        model.vectors.append(artifact)
        return artifact

    def measure_to(
        axis: str, corpus: Corpus, corpus_vectors: Artifact, reference_vectors: Artifact, name: str
    ) -> Artifact:
        features = model.features.get(corpus.artifact.hash)
        axis_settings = settings | axis_measure(study.axes[axis])
        return measure_proximity(ctx, axis, corpus_vectors, reference_vectors, name, axis_settings, corpus, features)

    for axis, spec in study.axes.items():
        pool_vectors = embed_on_axis(spec, record.pool)
        harm_vectors = {name: embed_on_axis(spec, corpus, harmful=True) for name, corpus in record.harm.items()}
        first_set = next(iter(harm_vectors))
        model.embeddings[axis] = pool_vectors, harm_vectors[first_set]
        for name, set_vectors in harm_vectors.items():
            model.proximities[axis, name] = measure_to(axis, record.pool, pool_vectors, set_vectors, name)
        if record.benign_reference is not None:
            baseline_vectors = embed_on_axis(spec, record.benign_reference)
            model.benign_proximity[axis] = measure_to(
                axis, record.benign_reference, baseline_vectors, harm_vectors[first_set], first_set
            )


def _compute_vectors(
    ctx: RunContext,
    record: AuditRecord,
    model: ModelRecord,
    spec: str,
    corpus: Corpus,
    fit_corpora: Sequence[Corpus],
    harmful: bool,
) -> Artifact:
    """Compute vectors by an encoder, or by the model under the study's tuning."""
    from undersong.encoders.registry import gradients_dim, is_predictor

    study = record.study
    if is_predictor(spec):
        predictor = _predictor_axis(ctx, record, model, spec)
        return predictor.reference_vectors(corpus) if harmful else predictor.sample_vectors(corpus)
    dim, features = gradients_dim(spec), model.features.get(corpus.artifact.hash)
    if dim is None or features is None:
        return embed_corpus(ctx, EmbeddingRequest(spec, corpus, fit_corpora, model.ref, features))
    system_text = study.system_text(study.undefended_system)
    settings = {"dim": dim, "rank": study.tuning.lora_rank, "alpha": study.tuning.lora_alpha, "seed": 0}
    instruction = training_instruction(training_recipe(study.tuning), "audio")
    return compute_gradients(
        ctx, model.ref, corpus, features, harmful, system_text, study.tuning.target_column, settings, instruction
    )


def _predictor_axis(ctx: RunContext, record: AuditRecord, model: ModelRecord, spec: str) -> PredictorAxis:
    """Axis that runs the model on the prompts that the study trains on."""
    from undersong.predictors.registry import PredictorSettings

    study = record.study
    modality = predictor_modality(spec, study.tuning.modalities[0])
    settings = PredictorSettings(
        modality=modality,
        system_text=study.system_text(study.undefended_system),
        target=study.tuning.target_column,
        refusal_texts=known_refusal_texts(model.ref, study.evaluation.refusal_texts),
        rank=study.tuning.lora_rank,
        alpha=study.tuning.lora_alpha,
        **training_instruction(training_recipe(study.tuning), modality),
    )
    return PredictorAxis(ctx, spec, model.ref, settings, record.pool, next(iter(record.harm.values())))


def study_arms(record: AuditRecord, model: ModelRecord, select_samples: SelectionFunction) -> Iterator[StudyArm]:
    """Yield every arm of a study on a model at each draw and seed, with its selection."""
    study = record.study
    for rule in arm_rules(study):
        for seed, draw in zip(study.tuning.seeds, study.tuning.draws):
            arm_selection = select_samples(model.proximities, rule, draw)
            model.selections[f"{rule.label}/draw {draw}"] = arm_selection
            fraction = float(rule.selection_rule.amount) if rule.is_builtin else arm_selection.fraction
            rule_text = "" if rule.is_builtin else str(rule.selection_rule)
            facts = (model.ref, model.base_seed, rule.axis, rule.name, fraction)
            for modality in study.tuning.modalities:
                yield StudyArm(*facts, modality, seed, draw, arm_selection, rule.harm_set, rule_text)


def evaluate_base(ctx: RunContext, record: AuditRecord, model: ModelRecord) -> ArmReplies:
    """Generate the base's replies to all prompt sets."""
    requests = prompt_set_requests(record.study, record.sets, model.ref, is_last_step=True)
    repeat_requests = repetition_requests(record.study, record.sets)
    return evaluate_arm(ctx, StudyArm(model.ref, model.base_seed), 0, None, requests, repeat_requests)


def train_and_evaluate_arms(ctx: RunContext, record: AuditRecord, arms: Sequence[StudyArm]) -> list[ArmReplies]:
    """Tune every arm and generate its replies at its saved steps."""
    study, arm_replies = record.study, []
    for number, arm in enumerate(arms, 1):
        ctx.begin_step(f"{arm.model}: {arm.name} seed {arm.seed}", number, len(arms))
        adapter = _train_arm(ctx, record, arm)
        for step in study.tuning.save_steps:
            is_last_step = step == study.tuning.save_steps[-1]
            # Without per-step prompt sets, nothing is evaluated before the last step.
            if requests := prompt_set_requests(study, record.sets, arm.model, is_last_step):
                repeat_requests = repetition_requests(study, record.sets) if is_last_step else []
                arm_replies.append(evaluate_arm(ctx, arm, step, adapter, requests, repeat_requests))
        ctx.end_step()
    return arm_replies


def _train_arm(ctx: RunContext, record: AuditRecord, arm: StudyArm) -> Artifact:
    study, features = record.study, ctx.features(arm.model)[record.pool.artifact.hash]
    recipe, system_text = training_recipe(study.tuning), study.system_text(study.undefended_system)
    return train_adapter(ctx, arm, record.pool, features, recipe, system_text, study.tuning.target_column)
