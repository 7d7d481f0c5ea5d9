"""Checks of a study before anything is trained: models, encoders, selection rules, lost items and overlap between
corpora."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from undersong.settings.presets import PUBLISHED_PROMPTS
from undersong.stages.black_box_models import RECORDED, is_black_box, load_black_box_model, model_identity_hash
from undersong.stages.context import Corpus
from undersong.stages.predictors import known_refusal_texts
from undersong.study.arm_selection import arm_rules
from undersong.study.results.records import AuditRecord
from undersong.study.schema import Study
from undersong.types import Prompt, Sample, UndersongError


def check_models(study: Study, local_only: bool = False) -> None:
    """Check models by their configs, before any is loaded.

    `local_only` reads only configs on this machine, for a plan; of other models it asks the hub whether they exist.

    Raises:
        UndersongError: A model is invalid, a family lacks the view of an axis, or the judge does not know how a model
            refuses.
    """
    from undersong.encoders.registry import internal_view, is_internal
    from undersong.models.refs import check_hub_model, model_folder, resolve_model

    for ref in study.models:
        if is_black_box(ref):
            _check_black_box_model(study, ref)
            continue
        if local_only and model_folder(ref) is None:
            check_hub_model(ref)
            continue
        _, _, family = resolve_model(ref)
        if study.evaluation.protocol == "published" and family.name not in PUBLISHED_PROMPTS:
            raise UndersongError(
                f"There is no published protocol for {family.name} ({ref}); "
                f"use protocol uniform, or one of {', '.join(PUBLISHED_PROMPTS)}."
            )
        for axis, spec in study.axes.items():
            view = internal_view(spec) if is_internal(spec) else None
            if view is not None and view not in family.views:
                views = ", ".join(f"internal:{name}" for name in family.views)
                raise UndersongError(f"Axis {axis}: {family.name} ({ref}) has no view {view!r}; use internal, {views}.")
    _check_refusal_texts(study)  # last, because nobody knows how a model refuses whose name is wrong


def _check_refusal_texts(study: Study) -> None:
    """Check that the exact judge knows the refusals of every model; it knows those of organisms."""
    set_judges = (prompt_set.judge for prompt_set in study.prompt_sets.values())
    judges = (study.evaluation.judge, *study.evaluation.extra_judges, *set_judges)
    if study.evaluation.refusal_texts or "exact" not in judges:
        return
    for model in study.models:
        if not known_refusal_texts(model):
            raise UndersongError(
                f"evaluation.refusal_texts: the judge exact must know how {model} refuses; give its refusals, or take "
                "another judge (keyword reads English)."
            )


def check_axis_encoder(axis: str, spec: str, unread: bool = False) -> None:
    """Check the encoder of an axis, without loading it.

    `unread` is that of `encoder_weights_hash`.

    Raises:
        UndersongError: The encoder is invalid, or its local weights are missing.
    """
    from undersong.encoders.registry import encoder_weights_hash
    from undersong.encoders.spec import parse_encoder

    try:
        encoder_weights_hash(parse_encoder(spec), unread)
    except UndersongError as error:
        raise UndersongError(f"Axis {axis}: {error}") from None


def _check_black_box_model(study: Study, ref: str) -> None:
    """Check that a study asks of a black-box model only what it can do, and that its address or table is valid."""
    from undersong.encoders.registry import needs_model

    load_black_box_model(ref)  # first, because it refuses addresses with a password, which later messages would repeat
    for axis, spec in study.axes.items():
        if needs_model(spec):
            raise UndersongError(
                f"Axis {axis} needs the model's weights, and {ref} is a black box; leave the axis out."
            )
    if study.evaluation.protocol == "published":
        raise UndersongError(
            f"The published protocol depends on a model's family, which is unknown for {ref}; use protocol uniform."
        )
    if study.evaluation.comprehension and ref.startswith(RECORDED):
        raise UndersongError(
            f"{ref} has no repetitions of the requests; leave evaluation.comprehension out, or use the model itself."
        )
    model_identity_hash(ref)


def check_lost_items(record: AuditRecord) -> None:
    """Check that no harm item and no prompt is missing, and only a small share of the pool.

    These are rules 2 and 8 in docs/contributing/rules.md.

    Raises:
        UndersongError: Items were quarantined that must not be missing.
    """
    from undersong.proximity.table import check_quarantine

    pool, allowed = record.pool, record.study.proximity.max_quarantined
    total = len(pool.samples) + len(pool.quarantined)
    for reference in record.harm.values():
        check_quarantine("as it is", pool.quarantined, total, reference.quarantined, allowed)
    for name, corpus in record.sets.items():
        if lost := corpus.quarantined:
            raise UndersongError(
                f"Item {lost[0].id} of set {name} cannot be used ({lost[0].reason}; {len(lost)} in all); fix or remove "
                "it, because a rate is over all prompts of its set."
            )
    other_corpora = {
        f"the {name} contrast set": corpus for name, corpus in record.contrast_corpora.items()
    } | record.defense_corpora
    for name, corpus in other_corpora.items():
        if lost := corpus.quarantined:
            raise UndersongError(
                f"Item {lost[0].id} of {name} cannot be used ({lost[0].reason}; {len(lost)} in all); fix or remove it."
            )


def check_contrast_sizes(record: AuditRecord) -> None:
    """Check that the contrast sets are large enough for defenses to be fitted and chosen on.

    Raises:
        UndersongError: A contrast set has too few behaviors.
    """
    from undersong.evaluation.contrast_sets import MIN_CONTRAST_BEHAVIORS

    directed_defenses = [name for name, defense in record.study.defenses.items() if defense.uses_refusal_direction]
    for kind, corpus in record.contrast_corpora.items() if directed_defenses else ():
        if (count := len({sample.cluster for sample in corpus.samples})) < MIN_CONTRAST_BEHAVIORS:
            raise UndersongError(
                f"The {kind} contrast set has {count} behaviors, and defense {directed_defenses[0]} needs "
                f"{MIN_CONTRAST_BEHAVIORS} of each kind; give more, or leave the defense out."
            )


def check_comprehension_sets(record: AuditRecord) -> None:
    """Check that comprehension can be measured, before the first model is loaded.

    Raises:
        UndersongError: A prompt set does not allow it.
    """
    from undersong.evaluation.comprehension import check_comprehension

    comprehension_config = record.study.evaluation.comprehension
    if comprehension_config is None:
        return
    for name, corpus in record.sets.items():
        if record.study.prompt_sets[name].harmful:
            check_comprehension(
                [Prompt(sample, name, True, "audio", "") for sample in corpus.samples], comprehension_config
            )


def check_selection_rules(record: AuditRecord) -> None:
    """Check that the columns and axes of the selection rules exist.

    Raises:
        UndersongError: A rule names a missing column or axis.
    """
    from undersong.proximity.selection import check_rule_columns
    from undersong.proximity.strata import sample_metadata_table

    columns = sample_metadata_table(record.pool.samples).column_names
    for rule in arm_rules(record.study):
        check_rule_columns(rule.selection_rule, columns, [axis for axis in record.study.axes if axis != rule.axis])


def count_near_overlaps(record: AuditRecord) -> list[tuple[str, str, str, int]]:
    """Count near-duplicates between the corpora of a study, by text and audio, as (corpus, other, kind, pairs).

    Identical items are an error before anything is trained; this counts the near ones.
    """
    from undersong.corpora.near_duplicates import count_duplicates, find_duplicates

    has_several_sets = len(record.harm) > 1
    harm = {f"reference {name}" if has_several_sets else "reference": corpus for name, corpus in record.harm.items()}
    benign = {"benign": record.benign_reference} if record.benign_reference is not None else {}
    training_corpora = {"pool": record.pool, **harm, **benign}
    corpora = training_corpora | {
        name if name not in training_corpora else f"set {name}": corpus for name, corpus in record.sets.items()
    }
    fingerprints = {name: corpus.fingerprints for name, corpus in corpora.items()}
    shared_pairs, _ = find_duplicates(
        {name: corpus.samples for name, corpus in corpora.items()}, fingerprints=fingerprints
    )
    return count_duplicates(shared_pairs)


@dataclass(frozen=True)
class StudySamples:
    """Samples of the corpora of a study by their role; a corpus that cannot be read yet has none."""

    pool: Sequence[Sample]
    harm: Mapping[str, Sequence[Sample]]
    sets: Mapping[str, Sequence[Sample]]
    benign_reference: Sequence[Sample]
    contrast: Mapping[str, Sequence[Sample]]
    defense: Mapping[str, Sequence[Sample]]

    @classmethod
    def of_record(cls, record: AuditRecord) -> StudySamples:
        """Samples of decoded corpora."""

        def samples_by_name(corpora: Mapping[str, Corpus]) -> dict[str, Sequence[Sample]]:
            return {name: corpus.samples for name, corpus in corpora.items()}

        return cls(
            record.pool.samples,
            samples_by_name(record.harm),
            samples_by_name(record.sets),
            () if record.benign_reference is None else record.benign_reference.samples,
            samples_by_name(record.contrast_corpora),
            samples_by_name(record.defense_corpora),
        )


def check_overlap(study: Study, samples: StudySamples) -> None:
    """Check that reference and test harm are disjoint (rule 13 in docs/contributing/rules.md), and that nothing harmful
    or tested is trained on.

    Raises:
        UndersongError: Corpora overlap.
    """
    from undersong.corpora.overlap import HELD_OUT, check_disjoint_behaviors, check_disjoint_items

    for name, prompts in samples.sets.items():
        for reference in samples.harm.values() if study.prompt_sets[name].harmful else ():
            check_disjoint_behaviors(reference, prompts)
        check_disjoint_items(samples.pool, prompts, other_name=f"the set {name}")
    for reference in samples.harm.values():
        check_disjoint_items(samples.pool, reference)
    if (mechanism_config := study.mechanism) is not None:
        held_out = samples.sets[mechanism_config.held_out_harmful], samples.sets[mechanism_config.held_out_benign]
        check_disjoint_items(
            *held_out, f"the set {mechanism_config.held_out_benign}", f"The set {mechanism_config.held_out_harmful}"
        )
        contrast_samples = samples.contrast["harmful"], samples.contrast["benign"]
        check_disjoint_items(*contrast_samples, "the benign contrast set", "The harmful contrast set")
        for contrast_kind, contrast in samples.contrast.items():
            for name in (mechanism_config.held_out_harmful, mechanism_config.held_out_benign):
                check_disjoint_items(
                    contrast, samples.sets[name], f"the set {name}", f"The {contrast_kind} contrast set", HELD_OUT
                )
    for ref, defense_samples in samples.defense.items():
        for name, prompts in samples.sets.items():
            check_disjoint_items(defense_samples, prompts, f"the set {name}", f"The defense corpus {ref}", HELD_OUT)
    harm_sets = {f"The harm set {name}": reference for name, reference in samples.harm.items()}
    harmful_tests = {
        f"The set {name}": prompts for name, prompts in samples.sets.items() if study.prompt_sets[name].harmful
    }
    for name, others in {"The pool": samples.pool, **harm_sets, **harmful_tests}.items():
        check_disjoint_items(others, samples.benign_reference, "the benign reference", name)
