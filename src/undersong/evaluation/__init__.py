"""Evaluation: prompts, reply and verdict tables, judges, utility scorers, comprehension, and comparisons of models."""

__all__ = ["compare", "judging", "many", "prompts", "replies", "said", "serving", "usefulness", "verdicts"]
