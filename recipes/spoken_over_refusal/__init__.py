"""A spoken over-refusal set: XSTest's safe prompts and OR-Bench's hard ones, spoken.

`python -m recipes.spoken_over_refusal` makes it.
"""
