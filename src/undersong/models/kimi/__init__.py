"""Kimi-Audio without remote code, on the Qwen2 and Whisper parts of transformers.

Import the submodule you need: `network`, `audio_tokenizer`, `processing` and `load` load torch.
"""

__all__ = ["codes", "config", "load", "network", "sound", "tokenizer"]
