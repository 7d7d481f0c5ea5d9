"""Recipes are scripts beside the package: their folders go on the path as they put them there themselves."""

from __future__ import annotations

import sys
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"
FOLDERS = [RECIPES / "paper", RECIPES / "mini", RECIPES / "organisms" / "architecture", RECIPES / "organisms"]
sys.path[:0] = [*(str(folder) for folder in FOLDERS), str(Path(__file__).parent)]
