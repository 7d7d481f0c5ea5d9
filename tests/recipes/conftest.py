"""Recipes are scripts beside the package: their folder goes on the path as they put it there themselves."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "recipes" / "paper"), str(Path(__file__).parent)]
