"""How long everything learns: the recipe's own sizes, or a handful of steps for a run that shows that it runs."""

from __future__ import annotations

import argparse

from front import FrontRecipe


def front_recipe(asked: argparse.Namespace) -> FrontRecipe:
    sizes = {"steps": 6, "batch": 4, "warmup": 2} if asked.smoke else {}
    if asked.front_steps is not None:
        sizes["steps"] = asked.front_steps
    return FrontRecipe(share=asked.share, seed=asked.seed, **sizes)
