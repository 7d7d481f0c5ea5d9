"""What a run would ask of a store that is only looked into: what is there, and what is not.

The very same stages are asked, so what is told of a run cannot drift from it.  Loads no model and makes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.models.loading import Loading
from undersong.pipeline.audit import gather, one_model
from undersong.pipeline.refusals import refuse_models
from undersong.pipeline.stages.selections import Measured, Rule, chosen_by, read_selection, selection_artefact
from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.store import Artefact, Draft, Store
from undersong.study import Study

if TYPE_CHECKING:
    from undersong.proximity import Selection


@dataclass(frozen=True)
class Asked:
    """One artefact of the study: how much work it is, what it is comparable to, and where it is, if it is there."""

    stage: str
    kind: tuple[str, ...]  # artefacts of one kind cost alike a unit of work
    work: int
    found: Artefact | None
    place: Artefact  # as it is or would be
    about: str  # what the run says before it makes it
    questions: tuple[tuple[str, int], ...] = ()  # of replies: (set, most new tokens of each)
    judges: tuple[str, ...] = ()  # of verdicts

    @property
    def model(self) -> str:
        """The hash of the model it is made with; empty: none."""
        return self.kind[1]

    @property
    def encoder(self) -> str:
        """Of embeddings: the one spelling of what makes them."""
        return self.kind[2]


class Ledger:
    """Answers stages like a `Store`, with the artefact that each would make, and writes down what is there."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: dict[str, Asked] = {}  # by key: what two arms share is asked for once
        self.unscreened: list[str] = []  # axes whose selections cannot be told yet
        self._about = ""

    def say(self, line: str) -> None:
        """What the run would say: what it is about to do."""
        self._about = line

    def get_or_make(
        self,
        stage: str,
        version: int | str,
        config: Any,
        inputs: Inputs,
        make: Callable[[Draft], None],
        *,
        seed: int | None = None,
        packages: Sequence[str] = (),
    ) -> Artefact:
        """The artefact as it is or would be; its folder may not be there."""
        place = self.store.place(stage, version, config, inputs)
        found = self.store.find(stage, version, config, inputs)
        kind = (stage, str(inputs.get("model", "")), str(config.get("encoder", "")), str(config.get("modality", "")))
        if place.hash not in self.asked:  # who asks first would make it
            self.asked[place.hash] = Asked(
                stage, kind, _work(stage, config), found, place, self._about,
                _questions(stage, config), _judges(stage, config),
            )  # fmt: skip
        return place


def look(study: Study, store_root: str | Path, loading: Loading, unread: bool = False) -> Ledger:
    """Everything that `run` would ask of this store.  Errors: those of the study's corpora, models and encoders.

    `unread`: corpora that are not here stand for themselves by name, and nothing that is made of them is found.
    """
    ledger = Ledger(Store(store_root))
    shop = Workshop(ledger, loading, unread=unread)
    refuse_models(study, fetched=True)
    record = gather(study, shop)
    for number, ref in enumerate(study.models):
        ledger.say(ref)
        one_model(study, shop, record, ref, number, ledger.say, partial(_choose, shop, record.pool, ledger.unscreened))
    return ledger


def _choose(
    shop: Workshop, pool: Corpus, unscreened: list[str], measured: Measured, rule: Rule, draw: int
) -> Selection:
    """The selection as far as the store can tell: kept, drawn here from kept distances, or a stand-in without ids."""
    from undersong.proximity import Selection

    artefact = selection_artefact(shop, pool, measured, rule, draw)
    if artefact.path.exists():
        return read_selection(artefact)
    if all(made.path.exists() for made in measured.values()):
        return chosen_by(pool, measured, rule, draw)
    unscreened.append(rule.axis)
    stand_in = hashlib.sha256(f"not selected yet: {artefact.hash}".encode()).hexdigest()
    return Selection(rule.axis, "", rule.keep.kind, 0.0, 0, None, (), stand_in)


def _work(stage: str, config: Any) -> int:
    """Units that the cost of an artefact grows with: training pairs of an adapter, prompt sets of replies, else one."""
    if stage == "adapter":
        return int(config["recipe"]["batch"]) * int(max(config["recipe"]["steps"]))
    return len(config["sets"]) if stage in ("replies", "verdicts") else 1


def _questions(stage: str, config: Any) -> tuple[tuple[str, int], ...]:
    """What replies are to; as `stages.Asked.key` says it."""
    return tuple((key[0], int(key[-1][1])) for key in config["sets"]) if stage == "replies" else ()


def _judges(stage: str, config: Any) -> tuple[str, ...]:
    """Whose verdicts these are: of every set the judge that it has of its own, or the study's."""
    if stage != "verdicts":
        return ()
    return tuple(dict.fromkeys(own or config["judge"] for *_, own in config["sets"]))
