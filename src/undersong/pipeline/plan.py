"""What `run` would do, what of it is in the store, and the rough cost, told from a ledger.  Loads no model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.ledger import Asked, Ledger, look
from undersong.pipeline.otherwise import made_otherwise
from undersong.pipeline.price import UNKNOWN, Speed, absent_lines, price_lines
from undersong.pipeline.speakers import trained
from undersong.pipeline.uninstalled import uninstalled_lines
from undersong.study import Study
from undersong.types import UndersongError

# CPU seconds a unit of work (see `ledger`): means of two runs of the demo study, so they hold for the packaged organism
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
    "comprehension": 0.05,
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
    beside: tuple[str, ...] = ()  # corpora that are not here; of models that do not ship, disk and GPU hours
    otherwise: tuple[str, ...] = ()  # other loadings that the store holds some of the study under
    uninstalled: tuple[str, ...] = ()  # axes whose package is not here, and how to install it


def plan_of(
    study: Study,
    store_root: str | Path,
    loading: Loading = PLAIN,
    unread: bool = False,
    speed: Speed = UNKNOWN,
) -> Planned:
    """What `run` would do with this study and store.  Errors: those of the study's corpora, models and encoders.

    `unread`: corpora that are not here are no error.  `speed`: of a GPU, as the user assumes it.
    """
    ledger = look(study, store_root, loading, unread)
    absent = absent_lines(study) if unread else []
    priced = [] if _is_packaged(study) else price_lines(study, ledger, speed)
    return replace(
        told(study, ledger),
        beside=(*absent, *priced),
        otherwise=made_otherwise(study, ledger, loading, unread),
        uninstalled=uninstalled_lines(study, ledger),
    )


def told(study: Study, ledger: Ledger) -> Planned:
    """A ledger by stages, with what is to be made priced."""
    asked = list(ledger.asked.values())
    costs = _costs(asked, packaged=_is_packaged(study))
    rows = tuple(_row(stage, asked, costs) for stage in dict.fromkeys((*ORGANISM_SECONDS, *costs)) if stage in costs)
    return Planned(rows, _sentence(rows, costs, bool(ledger.unscreened), ledger.store.root))


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
