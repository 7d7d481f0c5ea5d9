"""Benign fine-tuning of the decoder."""
