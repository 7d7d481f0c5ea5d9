"""Benign fine-tuning of the language model only.  Import the submodule you need: they load torch."""

__all__ = ["gradients", "lora", "projection", "seeds"]
