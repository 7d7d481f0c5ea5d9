"""Benign fine-tuning of the language model only.  Import the submodule you need: they load torch."""

__all__ = ["canary", "constrained", "gradients", "lora", "mixing", "projection", "seeds"]
