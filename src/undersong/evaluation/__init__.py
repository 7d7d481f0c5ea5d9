"""Evaluation: prompts, reply and verdict tables, judges, utility scorers, comprehension, and comparisons of models."""

__all__ = [
    "comparison",
    "comprehension",
    "judges",
    "multi_model_comparison",
    "prompts",
    "rates",
    "replies",
    "serving",
    "utility",
    "verdicts",
]
