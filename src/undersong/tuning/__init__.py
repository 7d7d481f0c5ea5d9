"""Benign fine-tuning of the decoder. Import the submodule you need: most load torch."""

__all__ = ["canary", "constrained", "gradients", "lora", "mixing", "projection", "seeds"]
