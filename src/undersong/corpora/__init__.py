"""Corpora: manifests of samples, their formats, decoded audio and duplicate checks.  Does not import models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
