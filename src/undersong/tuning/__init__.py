"""Benign fine-tuning of the decoder. Import the submodule you need: most load torch."""

__all__ = ["canary", "config", "constrained", "gradient_features", "reproducibility", "safety_mixing", "train"]
