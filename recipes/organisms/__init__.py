"""Organisms: tiny audio language models of three architectures, their speech and their card (`src/undersong/data/organism`).

`python -m recipes.organisms` makes all of it.
"""
