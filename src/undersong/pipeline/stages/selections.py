"""Which samples an arm trains on: a study's kinds and rules, and the selection each makes.

Knows the selection stage; does not know training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from undersong.pipeline.workshop import Corpus, Workshop
from undersong.store import Artefact, Draft
from undersong.study import Study
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity import Selection
    from undersong.proximity.choosing.keep import Keep

Measured = Mapping[tuple[str, str], Artefact]  # (axis, harm set) -> proximity


@dataclass(frozen=True)
class Rule:
    """What an arm keeps: `name` is its kind in results, closest | distant | random or the study's own word."""

    name: str
    axis: str
    keep: Keep
    to: str  # harm set
    plain: bool  # a kind at a fraction; else a rule of the study
    like: Rule | None = None  # whose shares `matched` takes

    @property
    def label(self) -> str:
        """Its arm's name without the training modality."""
        return f"{self.axis}/{self.name}/{self.keep.amount:g}" if self.plain else f"{self.axis}/{self.name}"


Choose = Callable[[Measured, Rule, int], "Selection"]  # proximity, rule, draw


def rules_of(study: Study) -> list[Rule]:
    """Every axis x kind x fraction, then the study's rules.  Raises UndersongError for a rule that is none."""
    from undersong.proximity.choosing.keep import Keep, read_keep

    first = next(iter(study.harm_sets))
    chosen = study.selection
    rules = [
        Rule(kind, axis, Keep(kind, fraction), first, True)
        for axis in chosen.axes
        for kind in chosen.kinds
        for fraction in chosen.fractions
    ]
    for name, rule in chosen.rules.items():
        keep = read_keep(rule.keep)
        if keep.within == rule.axis:
            raise UndersongError(f"Rule {name} selects by axis {rule.axis} within itself; name another axis in within.")
        like = None if rule.like is None else _alike(name, rule.like, (rule.axis, rule.to or first, keep.amount), rules)
        if like is not None and not keep.matched:
            raise UndersongError(f"Rule {name} is to be like {rule.like} in nothing; add e.g. +matched(speaker).")
        rules.append(Rule(name, rule.axis, keep, rule.to or first, False, like))
    return rules


def _alike(name: str, like: str, of: tuple[str, str, float], earlier: list[Rule]) -> Rule:
    """The rule of that name, or the kind of that name on the same axis, by the same harm set, at the same fraction."""
    for one in earlier:
        if one.name == like and (not one.plain or (one.axis, one.to, one.keep.amount) == of):
            return one
    axis, to, amount = of
    raise UndersongError(
        f"Rule {name} is to be like {like}, and no such arm keeps {amount:g} of axis {axis} by {to}; add the axis and "
        "the fraction to the selection, or name a rule."
    )


def selection(shop: Workshop, pool: Corpus, measured: Measured, rule: Rule, draw: int) -> Selection:
    """The ids kept from the pool; only `random` depends on the draw."""
    return read_selection(selection_artefact(shop, pool, measured, rule, draw))


def selection_artefact(shop: Workshop, pool: Corpus, measured: Measured, rule: Rule, draw: int) -> Artefact:
    """Where the selection is kept."""
    seed = seed_of(rule, draw)

    def make(draft: Draft) -> None:
        from undersong.proximity import to_json

        chosen = chosen_by(pool, measured, rule, draw)
        with draft.file("selection.json") as path:
            path.write_text(to_json(chosen), encoding="utf-8")

    config: dict[str, Any] = {"axis": rule.axis, "seed": seed}
    inputs: dict[str, Artefact | str] = {"proximity": measured[rule.axis, rule.to]}
    if rule.plain:
        config |= {"kind": rule.name, "fraction": rule.keep.amount}
    else:
        config |= {"keep": str(rule.keep)}
        inputs |= {"pool": pool.artefact}
        inputs |= {f"other:{axis}": found for axis, found in _others(measured, rule).items()}
        if rule.like is not None:
            inputs |= {"like": selection_artefact(shop, pool, measured, rule.like, draw)}
    return shop.store.get_or_make("selection", 1, config, inputs, make, seed=seed)


def chosen_by(pool: Corpus, measured: Measured, rule: Rule, draw: int) -> Selection:
    """The selection, from proximity tables that are there."""
    from undersong.proximity import choose, facts_of, select

    table, seed = _read(measured[rule.axis, rule.to]), seed_of(rule, draw)
    if rule.plain:
        return select(table, rule.name, rule.keep.amount, seed)
    others = {axis: _read(found) for axis, found in _others(measured, rule).items()}
    like = None if rule.like is None else chosen_by(pool, measured, rule.like, draw).ids
    return choose(table, rule.keep, seed, facts=facts_of(pool.samples), others=others, like=like)


def seed_of(rule: Rule, draw: int) -> int:
    """Of the random draw; 0 where nothing is drawn."""
    return draw if rule.keep.kind == "random" else 0


def read_selection(artefact: Artefact) -> Selection:
    """What a selection artefact holds."""
    from undersong.proximity import from_json

    return from_json((artefact.checked().path / "selection.json").read_text(encoding="utf-8"))


def _others(measured: Measured, rule: Rule) -> dict[str, Artefact]:
    """The axis that `within` names, to the rule's harm set."""
    return {axis: found for (axis, to), found in measured.items() if (axis, to) == (rule.keep.within, rule.to)}


def _read(artefact: Artefact) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(artefact.checked().path / "proximity.parquet")
