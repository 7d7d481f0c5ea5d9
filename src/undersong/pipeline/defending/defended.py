"""Every undefended arm under every defense of a study: made, chosen and asked, in the order of the changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from undersong.pipeline.asking import Said, asked_at, to_repeat
from undersong.pipeline.defending.altered import projected, removed
from undersong.pipeline.defending.bench import Bench, refused
from undersong.pipeline.defending.guarded import guarded, step_of, tuned_again
from undersong.pipeline.defending.learned import learned
from undersong.pipeline.defending.steered import steering
from undersong.pipeline.records import AuditRecord, Defended, ModelRecord
from undersong.pipeline.stages import Arm, Asked, replies
from undersong.pipeline.workshop import Workshop
from undersong.store import Artefact
from undersong.study import Study
from undersong.study.defenses import Defense
from undersong.types import UndersongError


def prepare(study: Study, shop: Workshop, record: AuditRecord, model: ModelRecord) -> None:
    """What defenses need of a base, made or refused before anything is trained."""
    from undersong.models.folders import model_hash
    from undersong.models.identify import identify

    for name, defense in study.defenses.items():
        unaligned = defense.projection.unaligned if defense.projection else None
        if unaligned is None:
            continue
        if model_hash(unaligned) == model_hash(model.ref):
            raise UndersongError(
                f"Defense {name}: {unaligned} is {model.ref} itself, so that alignment moved nothing; give the model "
                "that it began from."
            )
        other, own = (identify(ref)[2].name for ref in (unaligned, model.ref))
        if other != own:
            raise UndersongError(
                f"Defense {name}: {unaligned} is a {other}, and {model.ref} a {own}; give the model that its "
                "alignment began from."
            )
    if any(defense.directed for defense in study.defenses.values()):
        refused(Bench(study, shop, record, model))


def defend(
    study: Study,
    shop: Workshop,
    record: AuditRecord,
    model: ModelRecord,
    said: Sequence[Said],
    say: Callable[[str], None],
) -> list[Said]:
    """What the defended arms say, at the last step, in the order of the study's defenses."""
    bench, last = Bench(study, shop, record, model), study.tuning.steps[-1]
    tuned = [one for one in said if one.arm.kind != "base" and one.step == last]
    undefended = [one for one in tuned if one.arm.kind == "closest" and not one.arm.rule]
    return list(_all(bench, undefended, tuned, say))


def _all(bench: Bench, undefended: Sequence[Said], tuned: Sequence[Said], say: Callable[[str], None]) -> Iterator[Said]:
    again = bench.study.tuned_again
    if again is not None:
        for one in undefended:
            yield _again(bench, _as_it_is(one), _run_on(again, one, tuned))
    for name, defense in bench.study.defenses.items():
        say(f"{bench.model.ref}: defense {name}")
        for one in undefended:
            data = one if defense.data is None else _run_on(defense.data, one, tuned)
            done = _one(bench, name, defense, one, data)
            yield done
            if again is not None:
                yield _again(bench, done, _run_on(again, one, tuned))


def _as_it_is(one: Said) -> Said:
    """An undefended arm, as if it were defended by nothing."""
    assert one.adapter is not None
    plain = [asked for asked in one.asked if asked.system == one.asked[0].system]
    return replace(one, asked=plain, defense=Defended("none", (), one.adapter, None, None, ()))


def _again(bench: Bench, done: Said, data: Said) -> Said:
    """A defended arm after a second training on benign data; system text and steering stay on."""
    assert done.adapter is not None
    assert done.defense is not None
    step = step_of(done.adapter, done.step)
    adapter = tuned_again(bench, data.arm, done.adapter, step)
    steer = done.defense.steering
    made = replies(bench.shop, data.arm, adapter, done.step, done.asked, bench.ears, steer)
    repeated = _repeated(bench, data.arm, adapter, done.step, steer)
    facts = replace(done.defense, losses=(), again=True)
    return replace(done, adapter=adapter, replies=made, defense=facts, repeated=repeated)


def _run_on(kind: str, one: Said, tuned: Sequence[Said]) -> Said:
    """The run on data of a kind that goes with `one`: of the same axis and share, where the kind has them."""
    same = [
        other
        for other in tuned
        if other.arm.kind == kind
        and (other.arm.modality, other.arm.seed, other.arm.draw) == (one.arm.modality, one.arm.seed, one.arm.draw)
    ]
    near = [other for other in same if (other.arm.axis, other.arm.fraction) == (one.arm.axis, one.arm.fraction)]
    return (near or same)[0]


def _one(bench: Bench, name: str, defense: Defense, one: Said, data: Said) -> Said:
    study, last = bench.study, one.step
    guard = defense.corpora or defense.constrained
    adapter = guarded(bench, data.arm, defense) if guard else data.adapter
    assert adapter is not None
    assert one.adapter is not None
    trained, step = adapter, step_of(adapter, last)
    altered = None
    if defense.projection:
        altered = adapter = projected(bench, trained, step, defense.projection)
    if defense.removal:
        altered = adapter = removed(bench, trained, step, defense.removal)
    steer = steering(bench, adapter, step, defense.steering) if defense.steering else None
    system = defense.system or study.plain
    asked = _asked(bench, system)
    arm = replace(data.arm, kind=one.arm.kind, axis=one.arm.axis, fraction=one.arm.fraction, rule="")
    made = replies(bench.shop, data.arm, adapter, step, asked, bench.ears, steer)
    arms = [one.arm, data.arm]
    losses = (
        learned(bench, arms, None, 0, study.plain, None),
        learned(bench, arms, one.adapter, last, study.plain, None),
        learned(bench, arms, adapter, step, system, steer),
    )
    facts = Defended(name, defense.changes, trained, altered, steer, losses)
    return Said(arm, last, adapter, asked, made, facts, _repeated(bench, data.arm, adapter, step, steer))


def _repeated(bench: Bench, arm: Arm, adapter: Artefact, step: int, steer: Artefact | None) -> Artefact | None:
    """What it repeats of harmful requests, where the study tells what was heard."""
    asked = to_repeat(bench.study, bench.record.sets)
    return replies(bench.shop, arm, adapter, step, asked, bench.ears, steer) if asked else None


def _asked(bench: Bench, system: str) -> list[Asked]:
    """All that is asked at the last step under the first system text, under this one."""
    study = bench.study
    plain = [one for one in asked_at(study, bench.record.sets, bench.model.ref, last=True) if one.system == study.plain]
    return [replace(one, system=system, system_text=study.system_text(system)) for one in plain]
