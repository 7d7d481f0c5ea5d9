"""Refusal judges: two linear judges and their card (`src/undersong/data/refusal`).

`python -m recipes.refusal_judge` makes them.
"""
