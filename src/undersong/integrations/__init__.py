"""Integrations with other tools: the continuous-integration gate, the transformers Trainer, and inspect_ai."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
