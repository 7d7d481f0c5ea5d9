"""Audio language models: families, loading, audio features, adapters.

Import the submodule you need: most load torch.
"""

__all__ = ["adapter", "adapters", "families", "features", "frozen", "load"]
