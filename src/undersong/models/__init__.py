"""Audio language models behind one adapter.  Import the submodule you need: they load torch."""

__all__ = ["adapter", "adapters", "families", "features", "frozen", "load"]
