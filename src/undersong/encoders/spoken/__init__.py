"""Encoders of clips: log-mel, transformers' speech models, Whisper, CLAP."""
