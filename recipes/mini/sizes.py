"""How long everything learns, and from what: the recipe's own sizes, or a handful for a run that shows that it runs."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from recipes.mini.front_end import FrontRecipe
from undersong.tuning.config import LoraRecipe


@dataclass(frozen=True)
class Mixture:
    """Shares of what a decoder learns from; they sum to one."""

    repeat: float = 0.0
    spoken_questions: float = 0.0
    spoken_imperatives: float = 0.0
    typed: float = 0.0
    spoken_harm: float = 0.0
    typed_harm: float = 0.0


@dataclass(frozen=True)
class Size:
    """A training of the decoder; `answers`: sentences that the language model answers for it."""

    recipe: LoraRecipe
    mixture: Mixture
    answers: int = 2000


LISTENING = Size(
    LoraRecipe(
        save_steps=(400,),
        batch_size=9,
        learning_rate=1e-3,
        learning_rate_schedule="cosine",
        warmup_steps=10,
        silent_frame_share=0.1,
    ),
    Mixture(repeat=0.60, spoken_questions=0.16, spoken_imperatives=0.16, typed=0.08),
)
ALIGNMENT = Size(
    LoraRecipe(
        save_steps=(600,),
        batch_size=8,
        learning_rate=5e-4,
        learning_rate_schedule="cosine",
        warmup_steps=10,
        silent_frame_share=0.1,
    ),
    Mixture(repeat=0.08, spoken_questions=0.12, spoken_imperatives=0.38, typed=0.14, spoken_harm=0.18, typed_harm=0.10),
)


def front_recipe(asked: argparse.Namespace) -> FrontRecipe:
    """Of the command's options."""
    sizes = {"steps": 6, "batch": 4, "warmup": 2} if asked.smoke else {}
    if asked.front_steps is not None:
        sizes["steps"] = asked.front_steps
    seed = asked.seed if asked.front_seed is None else asked.front_seed
    return FrontRecipe(share=asked.share, seed=seed, written=not asked.public, **sizes)


def listening_size(asked: argparse.Namespace) -> Size:
    """LISTENING, as long as the command says."""
    return _sized(LISTENING, asked.listening_steps, asked.smoke)


def alignment_size(asked: argparse.Namespace) -> Size:
    """ALIGNMENT, as long as the command says."""
    return _sized(ALIGNMENT, asked.alignment_steps, asked.smoke)


def _sized(size: Size, steps: int | None, smoke: bool) -> Size:
    if smoke:
        size = replace(size, recipe=replace(size.recipe, save_steps=(3,), batch_size=4, warmup_steps=1), answers=36)
    return size if steps is None else replace(size, recipe=replace(size.recipe, save_steps=(steps,)))
