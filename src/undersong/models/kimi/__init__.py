"""Kimi-Audio without remote code, on the Qwen2 and Whisper parts of transformers.

Import the submodule you need; all of them load torch.
"""

__all__ = ["audio_tokenizer", "load", "network", "processing"]
