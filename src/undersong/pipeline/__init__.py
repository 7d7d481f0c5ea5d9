"""The order of an audit.  Import the submodule you need."""

__all__ = ["audit", "results", "run", "screen", "stages"]
