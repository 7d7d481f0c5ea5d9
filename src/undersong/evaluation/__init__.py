"""Evaluation: prompts, reply and verdict tables, judges, utility scorers, comprehension, and comparisons of models."""
