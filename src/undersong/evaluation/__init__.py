"""Replies, judges and verdicts.  Import the submodule you need."""

__all__ = ["compare", "judges", "prompts", "replies", "verdicts"]
