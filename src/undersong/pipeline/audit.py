"""A whole audit in the paper's order: corpora, embeddings, proximity, selections, tuning, replies, verdicts,
mechanism. Each function is one stage; what is returned is plain records for `results`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from undersong import stages
from undersong.defenses.run import prepare_defenses, run_defenses
from undersong.pipeline.study_checks import (
    check_axis_encoder,
    check_comprehension_sets,
    check_contrast_sizes,
    check_lost_items,
    check_models,
    check_overlap,
    check_selection_rules,
    count_near_overlaps,
)
from undersong.results.records import ArmReplies, AuditRecord, ModelRecord, RunRecord
from undersong.stages import mechanism
from undersong.stages.black_box_models import is_black_box
from undersong.stages.context import Corpus, RunContext
from undersong.stages.embeddings import EmbeddingRequest, compute_gradients, embed_corpus
from undersong.stages.mechanism import ContrastRequests
from undersong.stages.replies import PromptSetRequest, prompt_set_requests, prompt_settings_for, repetition_requests
from undersong.stages.selection import SelectionFunction, arm_rules, load_selection
from undersong.stages.training import StudyArm, training_recipe
from undersong.store import Artifact
from undersong.study import Study


def audit_study(study: Study, ctx: RunContext, say: Callable[[str], None]) -> AuditRecord:
    """Run (or look up) every stage of a study."""
    record = load_checked_corpora(study, ctx)
    record.overlap = count_near_overlaps(record)
    for corpus_name, other_name, kind, pairs in record.overlap:
        say(f"{corpus_name} and {other_name} share {pairs} pairs of items: {kind}")
    for base_seed, ref in enumerate(study.models):
        say(f"{ref}: screening {len(record.pool.samples)} benign samples on {len(study.axes)} axes")
        record.models.append(
            audit_model(study, ctx, record, ref, base_seed, say, partial(load_selection, ctx, record.pool))
        )
    return record


def load_checked_corpora(study: Study, ctx: RunContext) -> AuditRecord:
    """The corpora, once nothing of them is to be refused."""
    check_models(study)
    record = load_corpora(study, ctx)
    check_lost_items(record)
    check_overlap(record)
    check_selection_rules(record)
    check_contrast_sizes(record)
    check_comprehension_sets(record)
    return record


def load_corpora(study: Study, ctx: RunContext) -> AuditRecord:
    """The corpora, and no model yet.  Unknown encoders and rules are refused here, before anything is made."""
    for axis, spec in study.axes.items():
        check_axis_encoder(axis, spec, ctx.unread)
    arm_rules(study)

    def load(ref: str, filters: dict[str, list[str]] | None = None, noise: str | None = None) -> Corpus:
        return stages.load_corpus(ctx, ref, filters, study.columns.get(ref), noise=noise)

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
        else {"harmful": load(mechanism_config.contrast_harmful), "harmless": load(mechanism_config.contrast_benign)}
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


def audit_model(
    study: Study,
    ctx: RunContext,
    record: AuditRecord,
    ref: str,
    base_seed: int,
    say: Callable[[str], None],
    select_samples: SelectionFunction,
) -> ModelRecord:
    """Every stage on one base.  Asks the store, and itself reads nothing that a stage makes but by `choose`."""
    features = {} if is_black_box(ref) else encode_corpora(ctx, record, ref)
    model = ModelRecord(ref, base_seed, features)
    compute_proximities(study, ctx, record, model, features)
    base = StudyArm(ref, base_seed)
    prompt_features = [features[corpus.artifact.hash] for corpus in record.sets.values() if features]
    arm_replies = [evaluate_base(study, ctx, record, base, prompt_features)]
    if study.defenses and not is_black_box(ref):
        prepare_defenses(study, ctx, record, model)
    arms = list(study_arms(study, model, select_samples))  # before any training: a rule that finds nothing stops here
    arm_replies += train_and_evaluate_arms(
        study, ctx, record, [] if is_black_box(ref) else arms, features, prompt_features, say
    )
    if study.mechanism is not None and not is_black_box(ref):
        say(f"{ref}: refusal directions")
        _measure_mechanism(study, ctx, record, model, base, arm_replies, prompt_features)
    defended_replies = (
        run_defenses(study, ctx, record, model, arm_replies, say) if study.defenses and not is_black_box(ref) else []
    )
    say(f"{ref}: judging")
    # Last, because a judge may take the model's place in memory.
    run_records = judge_arm_replies(study, ctx, [*arm_replies, *defended_replies], record.sets)
    model.runs, model.defended_runs = run_records[: len(arm_replies)], run_records[len(arm_replies) :]
    return model


def encode_corpora(ctx: RunContext, record: AuditRecord, ref: str) -> dict[str, Artifact]:
    """What the model hears of every corpus, by corpus artifact."""
    corpora = {corpus.artifact.hash: corpus for corpus in record.corpora}
    droppable = {corpus.artifact.hash for corpus in (record.pool, record.harmless) if corpus is not None}
    features: dict[str, Artifact] = {}
    for key, corpus in corpora.items():
        features[key] = stages.compute_features(ctx, ref, corpus, key not in droppable, list(features.values()))
    return features


def compute_proximities(
    study: Study, ctx: RunContext, record: AuditRecord, model: ModelRecord, features: dict[str, Artifact]
) -> None:
    """Every axis to every harm set; harmless speech to the first."""
    settings = study.proximity.model_dump()
    fit_corpora = (record.pool, *record.harm.values(), *([] if record.harmless is None else [record.harmless]))

    def embed_on_axis(spec: str, corpus: Corpus, harmful: bool = False) -> Artifact:
        artifact = _compute_vectors(
            study, ctx, spec, corpus, fit_corpora, model.ref, features.get(corpus.artifact.hash), harmful
        )
        model.vectors.append(artifact)
        return artifact

    def measure_to(
        axis: str, corpus: Corpus, corpus_vectors: Artifact, reference_vectors: Artifact, name: str
    ) -> Artifact:
        return stages.measure_proximity(
            ctx, axis, corpus_vectors, reference_vectors, name, settings, corpus, features.get(corpus.artifact.hash)
        )

    for axis, spec in study.axes.items():
        pool_vectors = embed_on_axis(spec, record.pool)
        harm_vectors = {name: embed_on_axis(spec, corpus, harmful=True) for name, corpus in record.harm.items()}
        first_set = next(iter(harm_vectors))
        model.embeddings[axis] = pool_vectors, harm_vectors[first_set]
        for name, set_vectors in harm_vectors.items():
            model.proximities[axis, name] = measure_to(axis, record.pool, pool_vectors, set_vectors, name)
        if record.harmless is not None:
            baseline_vectors = embed_on_axis(spec, record.harmless)
            model.benign_proximity[axis] = measure_to(
                axis, record.harmless, baseline_vectors, harm_vectors[first_set], first_set
            )


def _compute_vectors(
    study: Study,
    ctx: RunContext,
    spec: str,
    corpus: Corpus,
    fit_corpora: Sequence[Corpus],
    ref: str,
    features: Artifact | None,
    harmful: bool,
) -> Artifact:
    """By an encoder, or by the gradients of the tuning that the study would do."""
    from undersong.encoders import gradients_dim

    dim = gradients_dim(spec)
    if dim is None or features is None:
        return embed_corpus(ctx, EmbeddingRequest(spec, corpus, fit_corpora, ref, features))
    system_text = study.evaluation.system_prompts[study.undefended_system]
    settings = {"dim": dim, "rank": study.tuning.lora_rank, "alpha": study.tuning.lora_alpha, "seed": 0}
    return compute_gradients(ctx, ref, corpus, features, harmful, system_text, study.tuning.target_column, settings)


def study_arms(study: Study, model: ModelRecord, select_samples: SelectionFunction) -> Iterator[StudyArm]:
    """Every arm x run of a study on a model, with its selection."""
    for rule in arm_rules(study):
        for seed, draw in zip(study.tuning.seeds, study.tuning.draws):
            arm_selection = select_samples(model.proximities, rule, draw)
            model.selections[f"{rule.label}/draw {draw}"] = arm_selection
            fraction = float(rule.selection_rule.amount) if rule.is_builtin else arm_selection.fraction
            rule_text = "" if rule.is_builtin else str(rule.selection_rule)
            facts = (model.ref, model.base_seed, rule.axis, rule.name, fraction)
            for modality in study.tuning.modalities:
                yield StudyArm(*facts, modality, seed, draw, arm_selection, rule.harm_set, rule_text)


def evaluate_base(
    study: Study, ctx: RunContext, record: AuditRecord, base: StudyArm, prompt_features: list[Artifact]
) -> ArmReplies:
    """The base itself, asked everything."""
    requests = prompt_set_requests(study, record.sets, base.model, is_last_step=True)
    return evaluate_arm(ctx, base, 0, None, requests, prompt_features, repetition_requests(study, record.sets))


def train_and_evaluate_arms(
    study: Study,
    ctx: RunContext,
    record: AuditRecord,
    arms: Sequence[StudyArm],
    features: dict[str, Artifact],
    prompt_features: list[Artifact],
    say: Callable[[str], None],
) -> list[ArmReplies]:
    """Every arm tuned, and asked at its steps."""
    arm_replies = []
    for arm in arms:
        say(f"{arm.model}: {arm.name} seed {arm.seed}")
        adapter = _train_arm(study, ctx, record, arm, features)
        for step in study.tuning.save_steps:
            is_last_step = step == study.tuning.save_steps[-1]
            # Without a curve nothing is asked before the last step.
            if requests := prompt_set_requests(study, record.sets, arm.model, is_last_step):
                repeat_requests = repetition_requests(study, record.sets) if is_last_step else []
                arm_replies.append(evaluate_arm(ctx, arm, step, adapter, requests, prompt_features, repeat_requests))
    return arm_replies


def _train_arm(
    study: Study, ctx: RunContext, record: AuditRecord, arm: StudyArm, features: dict[str, Artifact]
) -> Artifact:
    settings = study.tuning
    recipe = training_recipe(settings)
    system_text = study.evaluation.system_prompts[study.undefended_system]
    return stages.train_adapter(
        ctx, arm, record.pool, features[record.pool.artifact.hash], recipe, system_text, settings.target_column
    )


def _measure_mechanism(
    study: Study,
    ctx: RunContext,
    record: AuditRecord,
    model: ModelRecord,
    base: StudyArm,
    arm_replies: list[ArmReplies],
    prompt_features: list[Artifact],
) -> None:
    """Directions on the base's contrast sets, projections of held-out prompts for the base and every last step."""
    assert study.mechanism is not None
    mechanism_config = study.mechanism
    contrast_corpora = record.contrast_corpora
    contrast_features = [
        stages.compute_features(ctx, model.ref, corpus, cached_features=list(model.features.values()))
        for corpus in contrast_corpora.values()
    ]
    model.features |= {
        corpus.artifact.hash: artifact for corpus, artifact in zip(contrast_corpora.values(), contrast_features)
    }
    system, system_text = study.undefended_system, study.evaluation.system_prompts[study.undefended_system]
    last_step = study.tuning.save_steps[-1]
    for modality in study.evaluation.modalities:

        def contrast_request(corpus: Corpus, harmful: bool, modality: str = modality) -> PromptSetRequest:
            prompt_settings = prompt_settings_for(study, model.ref, modality)
            return PromptSetRequest("contrast", corpus, harmful, modality, system, system_text, prompt_settings)

        fit_requests = ContrastRequests(
            contrast_request(contrast_corpora["harmful"], True), contrast_request(contrast_corpora["harmless"], False)
        )
        held_out_requests = ContrastRequests(
            contrast_request(record.sets[mechanism_config.held_out_harmful], True),
            contrast_request(record.sets[mechanism_config.held_out_benign], False),
        )
        direction = mechanism.fit_base_direction(ctx, base, fit_requests, [*prompt_features, *contrast_features])
        states = mechanism.compute_hidden_states(ctx, base, held_out_requests, [*prompt_features, *contrast_features])
        for reply_set in arm_replies:
            if reply_set.arm.kind == "base" or reply_set.step == last_step:
                projections = mechanism.project_held_out(
                    ctx,
                    reply_set.arm,
                    reply_set.adapter,
                    reply_set.step,
                    direction,
                    states,
                    fit_requests,
                    held_out_requests,
                    [*prompt_features, *contrast_features],
                )
                model.projections.append((reply_set.arm, reply_set.step, modality, projections))


def evaluate_arm(
    ctx: RunContext,
    arm: StudyArm,
    step: int,
    adapter: Artifact | None,
    requests: list[PromptSetRequest],
    prompt_features: Sequence[Artifact],
    repeat_requests: Sequence[PromptSetRequest] = (),
) -> ArmReplies:
    """What an arm says at a step."""
    replies = stages.generate_replies(ctx, arm, adapter, step, requests, prompt_features)
    repetitions = (
        stages.generate_replies(ctx, arm, adapter, step, repeat_requests, prompt_features) if repeat_requests else None
    )
    return ArmReplies(arm, step, adapter, requests, replies, repeated=repetitions)


def judge_arm_replies(
    study: Study, ctx: RunContext, arm_replies: Sequence[ArmReplies], corpora: dict[str, Corpus]
) -> list[RunRecord]:
    """Judge by judge: one may need the model's place in memory, and so each is loaded once a base."""
    evaluation = study.evaluation
    judges = (evaluation.judge, *evaluation.extra_judges)
    verdicts_by_judge = {
        judge: [
            stages.judge_replies(ctx, reply_set.replies, reply_set.asked, judge, study.refusal_texts)
            for reply_set in arm_replies
        ]
        for judge in judges
    }
    comprehension_pairs = zip(
        [reply_set.repeated for reply_set in arm_replies],
        evaluate_arm_comprehension(study, ctx, arm_replies, verdicts_by_judge[evaluation.judge], corpora),
    )
    return [
        RunRecord(
            reply_set.arm,
            reply_set.step,
            reply_set.adapter,
            reply_set.replies,
            main_verdicts,
            tuple(zip(evaluation.extra_judges, other_verdicts)),
            reply_set.defense,
            *comprehension_pair,
        )
        for reply_set, comprehension_pair, main_verdicts, *other_verdicts in zip(
            arm_replies, comprehension_pairs, *verdicts_by_judge.values()
        )
    ]


def evaluate_arm_comprehension(
    study: Study,
    ctx: RunContext,
    arm_replies: Sequence[ArmReplies],
    verdicts: Sequence[Artifact],
    corpora: dict[str, Corpus],
) -> list[Artifact | None]:
    """At the last step, of the base and of every arm: what was heard, and what non-refusals are about."""
    comprehension_config, last_step = study.evaluation.comprehension, study.tuning.save_steps[-1]
    if comprehension_config is None:
        return [None] * len(arm_replies)
    harmful_corpora = [corpora[name] for name, prompt_set in study.prompt_sets.items() if prompt_set.harmful]
    reply_encoder, repeat_requests = (
        stages.ReplyEncoder(comprehension_config, harmful_corpora, ctx.loading.device),
        repetition_requests(study, corpora),
    )
    return [
        stages.evaluate_comprehension(
            ctx,
            reply_encoder,
            reply_set.asked,
            reply_set.replies,
            verdict_artifact,
            repeat_requests,
            reply_set.repeated,
        )
        if reply_set.arm.kind == "base" or reply_set.step == last_step
        else None
        for reply_set, verdict_artifact in zip(arm_replies, verdicts, strict=True)
    ]
