"""A whole audit in the paper's order: corpora, embeddings, proximity, selections, tuning, replies, verdicts, mechanism.

One function a stage; `audit` reads like the method section.  What it returns is plain records for `results`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from undersong.pipeline import stages
from undersong.pipeline.asking import Said, ask, asked_at, judged, manner_of, to_repeat
from undersong.pipeline.defending import defend, prepare
from undersong.pipeline.records import AuditRecord, ModelRecord
from undersong.pipeline.refusals import (
    near_overlap,
    refuse_encoder,
    refuse_few,
    refuse_incomprehensible,
    refuse_models,
    refuse_overlap,
    refuse_rules,
    refuse_unusable,
)
from undersong.pipeline.speakers import answers_only
from undersong.pipeline.stages import Arm, Asked, mechanism
from undersong.pipeline.stages.embedded import View, embeddings
from undersong.pipeline.stages.gradients import gradients
from undersong.pipeline.stages.mechanism import Contrast
from undersong.pipeline.stages.selections import Choose, rules_of, selection
from undersong.pipeline.stages.training import recipe_of
from undersong.pipeline.workshop import Corpus, Workshop
from undersong.store import Artefact
from undersong.study import Study


def audit(study: Study, shop: Workshop, say: Callable[[str], None]) -> AuditRecord:
    """Run (or look up) every stage of a study."""
    record = usable(study, shop)
    record.overlap = near_overlap(record)
    for one, other, kind, pairs in record.overlap:
        say(f"{one} and {other} share {pairs} pairs of items: {kind}")
    for number, ref in enumerate(study.models):
        say(f"{ref}: screening {len(record.pool.samples)} benign samples on {len(study.axes)} axes")
        record.models.append(one_model(study, shop, record, ref, number, say, partial(selection, shop, record.pool)))
    return record


def usable(study: Study, shop: Workshop) -> AuditRecord:
    """The corpora, once nothing of them is to be refused."""
    refuse_models(study)
    record = gather(study, shop)
    refuse_unusable(record)
    refuse_overlap(record)
    refuse_rules(record)
    refuse_few(record)
    refuse_incomprehensible(record)
    return record


def gather(study: Study, shop: Workshop) -> AuditRecord:
    """The corpora, and no model yet.  Unknown encoders and rules are refused here, before anything is made."""
    for axis, spec in study.axes.items():
        refuse_encoder(axis, spec, shop.unread)
    rules_of(study)

    def read(ref: str, where: dict[str, list[str]] | None = None, noise: str | None = None) -> Corpus:
        return stages.corpus(shop, ref, where, study.columns.get(ref), noise=noise)

    pool = read(study.pool, study.selection.where, study.selection.noise)
    harm = {name: read(ref) for name, ref in study.harm_sets.items()}
    sets = {name: read(one.corpus, one.where, one.noise) for name, one in study.sets.items()}
    calm = read(study.harmless) if study.harmless is not None else None
    asked = study.mechanism
    contrast = {} if asked is None else {"harmful": read(asked.harmful), "harmless": read(asked.harmless)}
    defending = {ref: read(ref) for one in study.defenses.values() for ref in one.corpora.values()}
    return AuditRecord(study, pool, harm, sets, [], calm, contrast=contrast, defending=defending)


def one_model(
    study: Study,
    shop: Workshop,
    record: AuditRecord,
    ref: str,
    number: int,
    say: Callable[[str], None],
    choose: Choose,
) -> ModelRecord:
    """Every stage on one base.  Asks the store, and itself reads nothing that a stage makes but by `choose`."""
    heard = {} if answers_only(ref) else hear(shop, record, ref)
    model = ModelRecord(ref, number, heard)
    screen(study, shop, record, model, heard)
    base = Arm(ref, number)
    ears = [heard[c.artefact.hash] for c in record.sets.values() if heard]
    said = [ask_base(study, shop, record, base, ears)]
    if study.defenses and not answers_only(ref):
        prepare(study, shop, record, model)
    arms = list(arms_of(study, model, choose))  # before any training: a rule that finds nothing stops here
    said += ask_arms(study, shop, record, [] if answers_only(ref) else arms, heard, ears, say)
    if study.mechanism is not None and not answers_only(ref):
        say(f"{ref}: refusal directions")
        _explain(study, shop, record, model, base, said, ears)
    defended = defend(study, shop, record, model, said, say) if study.defenses and not answers_only(ref) else []
    say(f"{ref}: judging")
    # Last, because a judge may take the model's place in memory.
    found = judged(study, shop, [*said, *defended], record.sets)
    model.runs, model.defended = found[: len(said)], found[len(said) :]
    return model


def hear(shop: Workshop, record: AuditRecord, ref: str) -> dict[str, Artefact]:
    """What the model hears of every corpus, by corpus artefact."""
    corpora = {c.artefact.hash: c for c in record.corpora}
    partly = {c.artefact.hash for c in (record.pool, record.harmless) if c is not None}
    heard: dict[str, Artefact] = {}
    for key, corpus in corpora.items():
        heard[key] = stages.features(shop, ref, corpus, key not in partly, list(heard.values()))
    return heard


def screen(study: Study, shop: Workshop, record: AuditRecord, model: ModelRecord, heard: dict[str, Artefact]) -> None:
    """Every axis to every harm set; harmless speech to the first."""
    settings = study.proximity.model_dump()
    fit = (record.pool, *record.harm.values(), *([] if record.harmless is None else [record.harmless]))

    def vectors(spec: str, corpus: Corpus, harmful: bool = False) -> Artefact:
        made = _vectors(study, shop, spec, corpus, fit, model.ref, heard.get(corpus.artefact.hash), harmful)
        model.vectors.append(made)
        return made

    def near(axis: str, corpus: Corpus, made: Artefact, harm: Artefact, name: str) -> Artefact:
        return stages.proximity(shop, axis, made, harm, name, settings, corpus, heard.get(corpus.artefact.hash))

    for axis, spec in study.axes.items():
        pool = vectors(spec, record.pool)
        harm = {name: vectors(spec, corpus, harmful=True) for name, corpus in record.harm.items()}
        first = next(iter(harm))
        model.embeddings[axis] = pool, harm[first]
        for name, made in harm.items():
            model.measured[axis, name] = near(axis, record.pool, pool, made, name)
        if record.harmless is not None:
            calm = vectors(spec, record.harmless)
            model.calm[axis] = near(axis, record.harmless, calm, harm[first], first)


def _vectors(
    study: Study,
    shop: Workshop,
    spec: str,
    corpus: Corpus,
    fit: Sequence[Corpus],
    ref: str,
    heard: Artefact | None,
    harmful: bool,
) -> Artefact:
    """By an encoder, or by the gradients of the tuning that the study would do."""
    from undersong.encoders import gradients_dim

    dim = gradients_dim(spec)
    if dim is None or heard is None:
        return embeddings(shop, View(spec, corpus, fit, ref, heard))
    text = study.evaluation.systems[study.plain]
    settings = {"dim": dim, "rank": study.tuning.rank, "alpha": study.tuning.alpha, "seed": 0}
    return gradients(shop, ref, corpus, heard, harmful, text, study.tuning.target, settings)


def arms_of(study: Study, model: ModelRecord, choose: Choose) -> Iterator[Arm]:
    """Every arm x run of a study on a model, with its selection."""
    for rule in rules_of(study):
        for seed, draw in zip(study.tuning.seeds, study.tuning.draws):
            chosen = choose(model.measured, rule, draw)
            model.selections[f"{rule.label}/draw {draw}"] = chosen
            fraction = float(rule.keep.amount) if rule.plain else chosen.fraction
            text = "" if rule.plain else str(rule.keep)
            facts = (model.ref, model.base_seed, rule.axis, rule.name, fraction)
            for modality in study.tuning.modalities:
                yield Arm(*facts, modality, seed, draw, chosen, rule.to, text)


def ask_base(study: Study, shop: Workshop, record: AuditRecord, base: Arm, ears: list[Artefact]) -> Said:
    """The base itself, asked everything."""
    asked = asked_at(study, record.sets, base.model, last=True)
    return ask(shop, base, 0, None, asked, ears, to_repeat(study, record.sets))


def ask_arms(
    study: Study,
    shop: Workshop,
    record: AuditRecord,
    arms: Sequence[Arm],
    heard: dict[str, Artefact],
    ears: list[Artefact],
    say: Callable[[str], None],
) -> list[Said]:
    """Every arm tuned, and asked at its steps."""
    said = []
    for arm in arms:
        say(f"{arm.model}: {arm.name} seed {arm.seed}")
        adapter = _tune(study, shop, record, arm, heard)
        for step in study.tuning.steps:
            last = step == study.tuning.steps[-1]
            # Without a curve nothing is asked before the last step.
            if asked := asked_at(study, record.sets, arm.model, last):
                repeating = to_repeat(study, record.sets) if last else []
                said.append(ask(shop, arm, step, adapter, asked, ears, repeating))
    return said


def _tune(study: Study, shop: Workshop, record: AuditRecord, arm: Arm, heard: dict[str, Artefact]) -> Artefact:
    settings = study.tuning
    recipe = recipe_of(settings)
    system_text = study.evaluation.systems[study.plain]
    return stages.adapter(
        shop, arm, record.pool, heard[record.pool.artefact.hash], recipe, system_text, settings.target
    )


def _explain(
    study: Study,
    shop: Workshop,
    record: AuditRecord,
    model: ModelRecord,
    base: Arm,
    said: list[Said],
    ears: list[Artefact],
) -> None:
    """Directions on the base's contrast sets, projections of held-out prompts for the base and every last step."""
    assert study.mechanism is not None
    contrast = study.mechanism
    fitting = record.contrast
    more = [stages.features(shop, model.ref, one, known=list(model.features.values())) for one in fitting.values()]
    model.features |= {c.artefact.hash: one for c, one in zip(fitting.values(), more)}
    system, text = study.plain, study.evaluation.systems[study.plain]
    last = study.tuning.steps[-1]
    for modality in study.evaluation.modalities:

        def side(corpus: Corpus, harmful: bool, modality: str = modality) -> Asked:
            manner = manner_of(study, model.ref, modality)
            return Asked("contrast", corpus, harmful, modality, system, text, manner)

        fit = Contrast(side(fitting["harmful"], True), side(fitting["harmless"], False))
        held_out = Contrast(
            side(record.sets[contrast.held_out_harmful], True), side(record.sets[contrast.held_out_harmless], False)
        )
        direction = mechanism.direction(shop, base, fit, [*ears, *more])
        states = mechanism.states(shop, base, held_out, [*ears, *more])
        for run in said:
            if run.arm.kind == "base" or run.step == last:
                made = mechanism.projections(
                    shop, run.arm, run.adapter, run.step, direction, states, fit, held_out, [*ears, *more]
                )
                model.projections.append((run.arm, run.step, modality, made))
