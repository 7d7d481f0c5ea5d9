"""Replies, judges and verdicts.  Import the submodule you need."""

__all__ = ["compare", "judging", "many", "prompts", "replies", "said", "serving", "usefulness", "verdicts"]
