"""Audio language models: families, loading, audio features, adapters.

Import the submodule you need: most load torch.
"""

__all__ = ["audio_features", "audio_lm", "families", "feature_cache", "load", "lora", "weights"]
