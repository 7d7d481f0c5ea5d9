"""What `run` would do, what of it is in the store, and the rough cost: an audit of a store that is only looked into.

The very same stages are asked, so the plan cannot drift from the run.  Loads no model and makes nothing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.audit import gather, one_model
from undersong.pipeline.refusals import refuse_models
from undersong.pipeline.speakers import trained
from undersong.pipeline.stages.selections import Measured, Rule, chosen_by, read_selection, selection_artefact
from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.store import Artefact, Draft, Store
from undersong.study import Study
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.proximity import Selection

# CPU seconds a unit of work (see `_work`): means of two runs of the demo study, so they hold for the packaged organism
# and its corpora only.  The first features artefact also pays for importing torch.  Their order is that of the rows.
ORGANISM_SECONDS = {
    "corpus": 0.4,
    "features": 1.4,
    "embeddings": 0.9,
    "proximity": 0.03,
    "selection": 0.01,
    "adapter": 0.008,
    "replies": 0.2,
    "verdicts": 0.003,
    "direction": 0.15,
    "projections": 0.8,
    "states": 0.2,
}
ORGANISM = "organism:"


@dataclass(frozen=True)
class PlanRow:
    """One stage: its artefacts in all, those in the store, and CPU seconds for the others (or "unknown")."""

    stage: str
    total: int
    done: int
    cost: str


@dataclass(frozen=True)
class Planned:
    """What `run` would do; `sentence` sums it up and says what is not known."""

    rows: tuple[PlanRow, ...]
    sentence: str


@dataclass(frozen=True)
class Asked:
    """One artefact of the study: how much work it is, what it is comparable to, and where it is, if it is there."""

    stage: str
    kind: tuple[str, ...]  # artefacts of one kind cost alike a unit of work
    work: int
    found: Artefact | None


class Ledger:
    """Answers stages like a `Store`, with the artefact that each would make, and writes down what is there."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.asked: dict[str, Asked] = {}  # by key: what two arms share is asked for once

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
        self.asked[place.hash] = Asked(stage, kind, _work(stage, config), found)
        return place


def plan_of(study: Study, store_root: str | Path, loading: Loading = PLAIN) -> Planned:
    """What `run` would do with this study and store.  Errors: those of the study's corpora, models and encoders."""
    ledger = Ledger(Store(store_root))
    shop = Workshop(ledger, loading)
    refuse_models(study, fetched=True)
    record = gather(study, shop)
    unscreened: list[str] = []
    for number, ref in enumerate(study.models):
        one_model(study, shop, record, ref, number, _silent, partial(_choose, shop, record.pool, unscreened))
    asked = list(ledger.asked.values())
    costs = _costs(asked, packaged=_is_packaged(study))
    rows = tuple(_row(stage, asked, costs) for stage in dict.fromkeys((*ORGANISM_SECONDS, *costs)) if stage in costs)
    return Planned(rows, _sentence(rows, costs, bool(unscreened), Path(store_root)))


def memory_lines(study: Study, loading: Loading) -> list[str]:
    """What the weights of each model that does not ship with the package need, and what there is; reads configs."""
    refs = [ref for ref in trained(study) if not ref.startswith(ORGANISM)]
    if not refs:
        return []
    from undersong.models.identify import identify
    from undersong.models.memory import memory_line

    lines = []
    for ref in refs:
        try:
            source, options, family = identify(ref)
            lines.append(memory_line(ref, source, options, family, loading))
        except UndersongError as error:  # a plan is told without a network too
            lines.append(f"{ref}: memory unknown. {error}")
    return lines


def _silent(_line: str) -> None: ...


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


def _is_packaged(study: Study) -> bool:
    """Whether models and corpora all ship with the package, so that the constants above hold."""
    return all(ref.startswith(ORGANISM) for ref in (*study.models, *study.corpora))


def _costs(asked: Sequence[Asked], packaged: bool) -> dict[str, float | None]:
    """Stage -> CPU seconds to go: by what like artefacts took, else by the constants above, else None."""
    kinds: dict[tuple[str, ...], list[Asked]] = defaultdict(list)
    for one in asked:
        kinds[one.kind].append(one)
    costs: dict[str, float | None] = {}
    for kind, members in kinds.items():
        seconds = _remaining(kind[0], members, packaged)
        so_far = costs.get(kind[0], 0.0)
        costs[kind[0]] = None if seconds is None or so_far is None else so_far + seconds
    return costs


def _remaining(stage: str, members: Sequence[Asked], packaged: bool) -> float | None:
    """CPU seconds that the missing artefacts of one kind will take."""
    todo = sum(one.work for one in members if one.found is None)
    done = sum(one.work for one in members if one.found is not None)
    if todo == 0:
        return 0.0
    if done:
        return todo / done * sum(one.found.provenance()["cpu_seconds"] for one in members if one.found is not None)
    return todo * ORGANISM_SECONDS[stage] if packaged and stage in ORGANISM_SECONDS else None


def _row(stage: str, asked: Sequence[Asked], costs: dict[str, float | None]) -> PlanRow:
    mine = [one for one in asked if one.stage == stage]
    seconds = costs[stage]
    cost = "unknown" if seconds is None else f"{seconds:.0f}" if seconds >= 1 or seconds == 0 else "below 1"
    return PlanRow(stage, len(mine), sum(one.found is not None for one in mine), cost)


def _sentence(rows: Sequence[PlanRow], costs: dict[str, float | None], unscreened: bool, root: Path) -> str:
    total, done = sum(row.total for row in rows), sum(row.done for row in rows)
    if done == total:
        return f"All {total} artefacts are in {root}: run would only write the results again."
    known = sum(seconds for seconds in costs.values() if seconds is not None)
    unknown = [stage for stage, seconds in costs.items() if seconds is None]
    parts = [f"{total - done} of {total} artefacts are to be made, some {known:.0f} CPU seconds"]
    if unknown:
        parts.append(f" without {', '.join(unknown)}, whose cost is unknown because {root} holds none like them")
    parts.append(".")
    if unscreened:
        parts.append(
            " The counts of training and of what follows are upper limits until the pool is screened: arms that turn "
            "out to hold the same samples are one."
        )
    return "".join(parts)
