"""Mini: Audio Flamingo 3 with a small Whisper encoder, a small Llama and a CTC projector, assembled from base weights
and learned parts.

Import the submodule you need: all but `paths` load torch.
"""

__all__ = ["assemble", "base_weights", "network", "paths"]
