"""Mini: Audio Flamingo 3 with a small Whisper encoder and a small Llama, whose projector says what it heard.

Assembled on the user's machine from base weights and the parts that the repository holds (`assemble`); then a model
folder like any other.  Import the submodule you need: `network` and `assemble` load torch.
"""

__all__ = ["assemble", "bases", "network", "place"]
