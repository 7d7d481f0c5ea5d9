"""What is refused before anything is trained: models that are none, items that are lost, sets that overlap."""

from __future__ import annotations

from undersong.pipeline.records import AuditRecord
from undersong.pipeline.speakers import RECORDED, answers_only, make_speaker, speaker_hash
from undersong.pipeline.stages.selections import rules_of
from undersong.study import Study
from undersong.study.protocols import PUBLISHED
from undersong.types import Prompt, UndersongError


def refuse_models(study: Study, fetched: bool = False) -> None:
    """What configs alone can tell, before the first model takes its hours: a model that is none, an axis of a view that
    a family does not have.  `fetched`: only of models that lie here, for a plan without a network."""
    from undersong.encoders import is_internal, view_of
    from undersong.models.folders import model_folder
    from undersong.models.identify import identify

    for ref in study.models:
        if answers_only(ref):
            _refuse_speaker(study, ref)
            continue
        if fetched and model_folder(ref) is None:
            continue
        _, _, family = identify(ref)
        if study.evaluation.protocol == "published" and family.name not in PUBLISHED:
            raise UndersongError(
                f"There is no published protocol for {family.name} ({ref}); there is for {', '.join(PUBLISHED)}."
            )
        for axis, spec in study.axes.items():
            view = view_of(spec) if is_internal(spec) else None
            if view is not None and view not in family.views:
                known = ", ".join(f"internal:{name}" for name in family.views)
                raise UndersongError(
                    f"Axis {axis}: {family.name} ({ref}) has no view {view!r}; take internal, {known}."
                )


def refuse_encoder(axis: str, spec: str, unread: bool = False) -> None:
    """An encoder that is none, or whose weights are to be found on this machine and are not; loads nothing.

    `unread`: as of `encoder_weights_hash`.
    """
    from undersong.encoders.options import parse_encoder
    from undersong.encoders.weights import encoder_weights_hash

    try:
        encoder_weights_hash(parse_encoder(spec), unread)
    except UndersongError as error:
        raise UndersongError(f"Axis {axis}: {error}") from None


def _refuse_speaker(study: Study, ref: str) -> None:
    """What cannot be asked of a model that only answers; and an address or a table that is none."""
    from undersong.encoders import gradients_dim, is_internal

    for axis, spec in study.axes.items():
        if is_internal(spec) or gradients_dim(spec) is not None:
            raise UndersongError(f"Axis {axis} looks into the model, and {ref} only answers; leave the axis out.")
    if study.evaluation.protocol == "published":
        raise UndersongError(
            f"The published protocol goes by a model's family, which {ref} does not tell; take uniform."
        )
    if study.evaluation.comprehension and ref.startswith(RECORDED):
        raise UndersongError(
            f"{ref} cannot be asked to repeat what it heard; leave evaluation.comprehension out, or ask the model."
        )
    make_speaker(ref)
    speaker_hash(ref)


def refuse_unusable(record: AuditRecord) -> None:
    """No harm item and no prompt may be missing, and only a small share of the pool (DESIGN rules 2 and 8)."""
    from undersong.proximity import check_quarantine

    pool, allowed = record.pool, record.study.proximity.max_quarantined
    total = len(pool.samples) + len(pool.quarantined)
    for reference in record.harm.values():
        check_quarantine("as it is", pool.quarantined, total, reference.quarantined, allowed)
    for name, corpus in record.sets.items():
        if lost := corpus.quarantined:
            raise UndersongError(
                f"Item {lost[0].id} of set {name} cannot be used ({lost[0].reason}; {len(lost)} in all); mend it or "
                "take it out: a rate is over all prompts of its set."
            )
    kept_apart = {f"the {name} contrast set": one for name, one in record.contrast.items()} | record.defending
    for name, corpus in kept_apart.items():
        if lost := corpus.quarantined:
            raise UndersongError(
                f"Item {lost[0].id} of {name} cannot be used ({lost[0].reason}; {len(lost)} in all); mend it or take "
                "it out."
            )


def refuse_few(record: AuditRecord) -> None:
    """Contrast sets that defenses cannot be fitted and chosen on."""
    from undersong.pipeline.probing.asked import LEAST

    directed = [name for name, defense in record.study.defenses.items() if defense.directed]
    for kind, corpus in record.contrast.items() if directed else ():
        if (count := len({sample.cluster for sample in corpus.samples})) < LEAST:
            raise UndersongError(
                f"The {kind} contrast set has {count} behaviours, and defense {directed[0]} needs {LEAST} of each "
                "kind; give more, or leave it out."
            )


def refuse_incomprehensible(record: AuditRecord) -> None:
    """What comprehension cannot be told by, before the first model takes its hours."""
    from undersong.evaluation.comprehension.measured import check_comprehension

    how = record.study.evaluation.comprehension
    if how is None:
        return
    for name, corpus in record.sets.items():
        if record.study.sets[name].harmful:
            check_comprehension([Prompt(sample, name, True, "audio", "") for sample in corpus.samples], how)


def refuse_rules(record: AuditRecord) -> None:
    """A rule that names a column which the pool does not have, or an axis of no study."""
    from undersong.proximity import check_rule, facts_of

    columns = facts_of(record.pool.samples).column_names
    for rule in rules_of(record.study):
        check_rule(rule.keep, columns, [axis for axis in record.study.axes if axis != rule.axis])


def near_overlap(record: AuditRecord) -> list[tuple[str, str, str, int]]:
    """(corpus, other, kind, pairs): how many items two corpora of a study have in common or nearly so, by their texts
    and their sound.  The very same items are refused before anything is trained; this counts what comes near it."""
    from undersong.corpora import count_shared, find_shared

    several = len(record.harm) > 1
    harm = {f"reference {name}" if several else "reference": corpus for name, corpus in record.harm.items()}
    calm = {"harmless": record.harmless} if record.harmless is not None else {}
    known = {"pool": record.pool, **harm, **calm}
    corpora = known | {name if name not in known else f"set {name}": one for name, one in record.sets.items()}
    prints = {name: corpus.prints for name, corpus in corpora.items()}
    found, _ = find_shared({name: corpus.samples for name, corpus in corpora.items()}, prints=prints)
    return count_shared(found)


def refuse_overlap(record: AuditRecord) -> None:
    """Reference and test harm are disjoint (DESIGN rule 13), and nothing harmful or tested is trained on."""
    from undersong.corpora import HELD_OUT, refuse_shared_behaviour, refuse_shared_items

    for name, corpus in record.sets.items():
        for reference in record.harm.values() if record.study.sets[name].harmful else ():
            refuse_shared_behaviour(reference.samples, corpus.samples)
        refuse_shared_items(record.pool.samples, corpus.samples, name=f"the set {name}")
    for reference in record.harm.values():
        refuse_shared_items(record.pool.samples, reference.samples)
    if (asked := record.study.mechanism) is not None:
        held = record.sets[asked.held_out_harmful].samples, record.sets[asked.held_out_harmless].samples
        refuse_shared_items(*held, f"the set {asked.held_out_harmless}", f"The set {asked.held_out_harmful}")
        sides = record.contrast["harmful"].samples, record.contrast["harmless"].samples
        refuse_shared_items(*sides, "the harmless one", "The harmful contrast set")
        for ours, fitted in record.contrast.items():
            for name in (asked.held_out_harmful, asked.held_out_harmless):
                tested = record.sets[name].samples
                refuse_shared_items(fitted.samples, tested, f"the set {name}", f"The {ours} contrast set", HELD_OUT)
    for ref, corpus in record.defending.items():
        for name, other in record.sets.items():
            refuse_shared_items(corpus.samples, other.samples, f"the set {name}", f"What defends, {ref},", HELD_OUT)
    if record.harmless is not None:
        harm = {f"The harm set {name}": corpus for name, corpus in record.harm.items()}
        tests = {f"The set {name}": one for name, one in record.sets.items() if record.study.sets[name].harmful}
        for name, other in {"The pool": record.pool, **harm, **tests}.items():
            refuse_shared_items(other.samples, record.harmless.samples, "the harmless set", name)
