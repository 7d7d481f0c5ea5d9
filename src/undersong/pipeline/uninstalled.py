"""What a study still needs and is not installed here, told by plans and before a run makes anything.

Of axes, judges and served models; what is in the store needs no package, so the ledger is asked first.  Imports none of
the packages that are looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from undersong.pipeline.ledger import Asked, Ledger, look
from undersong.pipeline.speakers import SERVED, speaker_hash
from undersong.pipeline.workshop import Workshop
from undersong.store import Store
from undersong.study import Study
from undersong.study.judges import split_judge
from undersong.types import UndersongError


@dataclass(frozen=True)
class Need:
    """What may lack a package, what raises where it does, and whose making waits for it."""

    name: str  # in messages, without an address, which may be a secret
    check: Callable[[], None]
    stage: str
    key: str  # the encoder, judge or model by which an artefact of the stage is made

    @property
    def lack(self) -> str:
        """What is not here; empty: nothing."""
        try:
            self.check()
        except UndersongError as error:
            return f"{self.name}: {error}"
        return ""

    def is_awaited(self, ledger: Ledger) -> bool:
        """Whether anything that is still to be made is made by it."""
        todo = (one for one in ledger.asked.values() if one.stage == self.stage and one.found is None)
        return any(self.key in _makers(one) for one in todo)


def uninstalled_lines(study: Study, ledger: Ledger) -> tuple[str, ...]:
    """One sentence for each: what it needs, and how it is installed."""
    return tuple(need.lack for need in _lacking(study) if need.is_awaited(ledger))


def refuse_uninstalled(study: Study, shop: Workshop) -> None:
    """Stops before the first stage what would stop in the middle of them."""
    if not isinstance(shop.store, Store) or not _lacking(study):
        return
    if lines := uninstalled_lines(study, look(study, shop.store.root, shop.loading)):
        raise UndersongError(lines[0])


def _lacking(study: Study) -> list[Need]:
    return [need for need in _needs(study) if need.lack]


def _needs(study: Study) -> Iterator[Need]:
    from undersong.encoders import check_installed
    from undersong.encoders.options import parse_encoder
    from undersong.evaluation.judging.named import check_judge_installed
    from undersong.evaluation.serving.engine import check_served

    for axis, spec in study.axes.items():
        yield Need(f"Axis {axis}", partial(check_installed, spec), "embeddings", parse_encoder(spec).canonical)
    of_sets = (one.judge for one in study.sets.values() if one.judge)
    for judge in dict.fromkeys((study.evaluation.judge, *study.evaluation.also, *of_sets)):
        yield Need(f"Judge {split_judge(judge)[0]}", partial(check_judge_installed, judge), "verdicts", judge)
    for ref in study.models:
        if ref.startswith(SERVED):
            yield Need("Models", partial(check_served, ref), "replies", speaker_hash(ref))


def _makers(one: Asked) -> tuple[str, ...]:
    """By what an artefact is made, as `Need.key` says it."""
    return {"embeddings": (one.encoder,), "verdicts": one.judges, "replies": (one.model,)}.get(one.stage, ())
