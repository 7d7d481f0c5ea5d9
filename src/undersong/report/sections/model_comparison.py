"""Comparison of several models: mean effect of each axis and of the training modality within each base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import difference_strip, symmetric_limit
from undersong.results.schema import Results
from undersong.results.schema_comparisons import MarginalEffect


@dataclass(frozen=True, slots=True)
class MarginalCell:
    """Difference of one model; empty if the study has no such contrast for it."""

    difference: str
    interval: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class MarginalRow:
    """One contrast of every base; cells in the order of `Abreast.models`; `detail`: how many arms a side, or empty."""

    contrast: str
    detail: str
    cells: tuple[MarginalCell, ...]


@dataclass(frozen=True, slots=True)
class MarginalBlock:
    """The contrasts of one prompt set and modality."""

    title: str
    lines: tuple[MarginalRow, ...]


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """Contrasts within each base, one column per base; a model with several base seeds has several columns."""

    models: tuple[str, ...]
    blocks: tuple[MarginalBlock, ...]
    reach: str  # how far the pictures' axis goes to both sides, in points
    runs: int  # pairs of runs behind a cell, at most


def build_model_comparison(results: Results) -> ModelComparison | None:
    """Build the comparison of base models; None if the results have fewer than two."""
    bases = list(dict.fromkeys((effect.model, effect.base_seed) for effect in results.marginal_effects))
    if len(bases) < 2:
        return None
    limit = symmetric_limit(
        end for effect in results.marginal_effects for end in (effect.difference, effect.low, effect.high)
    )
    set_modalities = dict.fromkeys((effect.prompt_set, effect.modality) for effect in results.marginal_effects)
    blocks = []
    for name, modality in set_modalities:
        effects = [
            effect for effect in results.marginal_effects if (effect.prompt_set, effect.modality) == (name, modality)
        ]
        effects_by_id: dict[str, list[MarginalEffect]] = {}
        for effect in effects:
            effects_by_id.setdefault(effect.id, []).append(effect)
        rows = tuple(_marginal_row(same_effects, bases, limit) for same_effects in effects_by_id.values())
        blocks.append(MarginalBlock(f"{formatting.modality_label(modality)} prompts, set {name}", rows))
    max_pairs = max((effect.n for effect in results.marginal_effects), default=0)
    return ModelComparison(tuple(str(model) for model, _ in bases), tuple(blocks), f"{100 * limit:g}", max_pairs)


def _marginal_row(effects: Sequence[MarginalEffect], bases: Sequence[tuple[str, int]], limit: float) -> MarginalRow:
    effect_by_base = {(effect.model, effect.base_seed): effect for effect in effects}
    arms = max(effect.n_arms for effect in effects)
    detail = f"mean of {formatting.count(arms, 'arm')} a side" if arms > 1 else ""
    return MarginalRow(
        effects[0].question, detail, tuple(_marginal_cell(effect_by_base.get(base), limit) for base in bases)
    )


def _marginal_cell(marginal: MarginalEffect | None, limit: float) -> MarginalCell:
    if marginal is None:
        return MarginalCell(formatting.MISSING, "", Markup(""))
    picture = difference_strip(marginal.difference, marginal.low, marginal.high, limit)
    missing_reason = "one pair of runs" if marginal.n == 1 else "all pairs agree"  # why there is no interval
    return MarginalCell(
        formatting.points(marginal.difference),
        formatting.bracket(marginal.low, marginal.high) or missing_reason,
        picture,
    )
