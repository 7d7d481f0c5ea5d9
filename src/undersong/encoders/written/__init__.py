"""Encoders of texts, and transcripts of what has none."""
