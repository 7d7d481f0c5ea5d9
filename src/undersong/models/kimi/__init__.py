"""Kimi-Audio without remote code: its own parameter names, on transformers' Qwen2 and Whisper parts.

Every position of Kimi's two streams holds exactly one id that is not `text_blank`, so a prompt is one sequence of ids.
Import the submodule you need: they load torch.  `config`, `network`, `codes`, `sound`, `tokenizer` and `load`.
"""

__all__ = ["codes", "config", "load", "network", "sound", "tokenizer"]
