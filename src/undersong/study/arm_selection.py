"""Proximity of a corpus to a harm set, and the selections that each arm of a study trains on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import encodable_samples
from undersong.store.draft import Draft
from undersong.store.parquet import read_parquet, write_parquet
from undersong.store.store import Artifact, Inputs
from undersong.study.schema import Study
from undersong.types import UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity.rules import SelectionRule
    from undersong.proximity.selection import Selection


def measure_proximity(
    ctx: RunContext,
    axis: str,
    pool: Artifact,
    harm: Artifact,
    harm_set: str,
    settings: dict[str, Any],
    corpus: Corpus,
    features: Artifact | None,
) -> Artifact:
    """Artifact with distances of every pool sample to the reference harm set, raw and centered.

    Samples that the model cannot encode are left out on every axis. So all axes rank the same pool, and no arm gets a
    clip that it cannot be trained on.

    Args:
        ctx: The run context.
        axis: Name of the axis.
        pool: Embeddings of the pool.
        harm: Embeddings of the harm set.
        harm_set: Name of the harm set.
        settings: Keyword arguments of `proximity_table`.
        corpus: The pool.
        features: Audio features of the pool.
    """

    def make(draft: Draft) -> None:

        from undersong.encoders.embeddings import drop_embeddings, read_embeddings
        from undersong.proximity.table import proximity_table

        unencoded, scratch = encodable_samples(corpus, features)[1], draft.path.parent
        vectors = drop_embeddings(read_embeddings(pool.path, scratch), unencoded, scratch)
        table = proximity_table(axis, harm_set, vectors, read_embeddings(harm.path), **settings)
        write_parquet(table, draft.path / "proximity.parquet")

    config = {"axis": axis, "harm_set": harm_set, **settings}
    inputs: Inputs = {"pool": pool, "harm": harm} | ({} if features is None else {"features": features})
    return ctx.store.get_or_make("proximity", 2, config, inputs, make, packages=("numpy",))


ProximityArtifacts = Mapping[tuple[str, str], Artifact]  # (axis, harm set) -> proximity


@dataclass(frozen=True)
class ArmRule:
    """Selection rule of an arm; `name` is its kind in results: closest, distant, random or the study's own name."""

    name: str
    axis: str
    selection_rule: SelectionRule
    harm_set: str
    is_builtin: bool  # True for a kind at a fraction, False for a rule of the study
    matched_rule: ArmRule | None = None  # rule whose shares `matched` takes
    group_spread: float | None = None  # least share of the pool's groups that the arm is to reach

    @property
    def label(self) -> str:
        """Name of its arm without the training modality."""
        return (
            f"{self.axis}/{self.name}/{self.selection_rule.amount:g}" if self.is_builtin else f"{self.axis}/{self.name}"
        )


SelectionFunction = Callable[[ProximityArtifacts, ArmRule, int], "Selection"]  # proximity, rule, draw


def arm_rules(study: Study) -> list[ArmRule]:
    """Rules of every axis x kind x fraction, then the study's own rules.

    Raises:
        UndersongError: A rule is invalid.
    """
    from undersong.proximity.rules import SelectionRule, parse_rule

    first_set = next(iter(study.harm_sets))
    selection_config = study.selection
    rules = [
        ArmRule(kind, axis, SelectionRule(kind, fraction), first_set, True, group_spread=selection_config.group_spread)
        for axis in selection_config.axes
        for kind in selection_config.kinds
        for fraction in selection_config.fractions
    ]
    for name, rule in selection_config.rules.items():
        selection_rule = parse_rule(rule.keep)
        if selection_rule.within == rule.axis:
            raise UndersongError(f"Rule {name} selects by axis {rule.axis} within itself; name another axis in within.")
        matched_rule = (
            None
            if rule.match_selection is None
            else _find_matched_rule(
                name, rule.match_selection, (rule.axis, rule.harm_set or first_set, selection_rule.amount), rules
            )
        )
        if matched_rule is not None and not selection_rule.matched:
            raise UndersongError(
                f"Rule {name} is to be like {rule.match_selection} in nothing; add e.g. +matched(speaker)."
            )
        rules.append(ArmRule(name, rule.axis, selection_rule, rule.harm_set or first_set, False, matched_rule))
    return rules


def _find_matched_rule(name: str, matched_name: str, target: tuple[str, str, float], earlier: list[ArmRule]) -> ArmRule:
    """Rule of that name, or the kind of that name on the same axis, by the same harm set, at the same fraction."""
    for rule in earlier:
        if rule.name == matched_name and (
            not rule.is_builtin or (rule.axis, rule.harm_set, rule.selection_rule.amount) == target
        ):
            return rule
    axis, harm_set, amount = target
    raise UndersongError(
        f"Rule {name} is to be like {matched_name}, and no such arm keeps {amount:g} of axis {axis} by {harm_set}; "
        "add the axis and the fraction to the selection, or name a rule."
    )


def load_selection(
    ctx: RunContext, pool: Corpus, proximities: ProximityArtifacts, rule: ArmRule, draw: int
) -> Selection:
    """Selection of a rule from the pool; only `random` depends on the draw.

    Args:
        ctx: The run context.
        pool: The pool.
        proximities: Proximity of each axis and harm set.
        rule: The rule.
        draw: The draw.
    """
    return read_selection(selection_artifact(ctx, pool, proximities, rule, draw))


def selection_artifact(
    ctx: RunContext, pool: Corpus, proximities: ProximityArtifacts, rule: ArmRule, draw: int
) -> Artifact:
    """Artifact with the selection of a rule.

    Args:
        ctx: The run context.
        pool: The pool.
        proximities: Proximity of each axis and harm set.
        rule: The rule.
        draw: The draw.
    """
    seed = selection_seed(rule, draw)

    def make(draft: Draft) -> None:
        from undersong.proximity.selection import selection_to_json

        computed = compute_selection(pool, proximities, rule, draw)
        with draft.file("selection.json") as path:
            path.write_text(selection_to_json(computed), encoding="utf-8")

    config: dict[str, Any] = {"axis": rule.axis, "seed": seed}
    inputs: dict[str, Artifact | str] = {"proximity": proximities[rule.axis, rule.harm_set]}
    if rule.is_builtin:
        config |= {"kind": rule.name, "fraction": rule.selection_rule.amount}
        if rule.group_spread is not None:
            config |= {"group_spread": rule.group_spread}
            inputs |= {"pool": pool.artifact}
    else:
        config |= {"keep": str(rule.selection_rule)}
        inputs |= {"pool": pool.artifact}
        inputs |= {f"other:{axis}": table for axis, table in _within_tables(proximities, rule).items()}
        if rule.matched_rule is not None:
            inputs |= {"like": selection_artifact(ctx, pool, proximities, rule.matched_rule, draw)}
    return ctx.store.get_or_make("selection", 1, config, inputs, make, seed=seed)


def compute_selection(pool: Corpus, proximities: ProximityArtifacts, rule: ArmRule, draw: int) -> Selection:
    """Selection of a rule, from existing proximity tables.

    Args:
        pool: The pool.
        proximities: Proximity of each axis and harm set.
        rule: The rule.
        draw: The draw.
    """
    from undersong.proximity.group_spread import shuffle_ties, spread_over_groups
    from undersong.proximity.selection import select_by_kind, select_by_rule
    from undersong.proximity.strata import sample_metadata_table

    table, seed = _read_proximity(proximities[rule.axis, rule.harm_set]), selection_seed(rule, draw)
    if rule.is_builtin and rule.group_spread is None:
        return select_by_kind(table, rule.name, rule.selection_rule.amount, seed)
    if rule.is_builtin and rule.group_spread is not None:
        metadata, ids = sample_metadata_table(pool.samples), table.column("id").to_pylist()
        capped_rule = spread_over_groups(rule.selection_rule, metadata, ids, rule.group_spread)
        return select_by_rule(shuffle_ties(table), capped_rule, seed, metadata=metadata)
    others = {axis: _read_proximity(other_table) for axis, other_table in _within_tables(proximities, rule).items()}
    matched_ids = (
        None if rule.matched_rule is None else compute_selection(pool, proximities, rule.matched_rule, draw).ids
    )
    return select_by_rule(
        table,
        rule.selection_rule,
        seed,
        metadata=sample_metadata_table(pool.samples),
        other_tables=others,
        match_ids=matched_ids,
    )


def selection_seed(rule: ArmRule, draw: int) -> int:
    """Seed of the random draw; 0 for rules that draw nothing."""
    return draw if rule.selection_rule.kind == "random" else 0


def read_selection(artifact: Artifact) -> Selection:
    """Selection that an artifact holds."""
    from undersong.proximity.selection import selection_from_json

    return selection_from_json((artifact.path / "selection.json").read_text(encoding="utf-8"))


def _within_tables(proximities: ProximityArtifacts, rule: ArmRule) -> dict[str, Artifact]:
    """Proximity on the axis that `within` names, to the rule's harm set."""
    return {
        axis: artifact
        for (axis, harm_set), artifact in proximities.items()
        if (axis, harm_set) == (rule.selection_rule.within, rule.harm_set)
    }


def _read_proximity(artifact: Artifact) -> pa.Table:

    return read_parquet(artifact.path / "proximity.parquet")
