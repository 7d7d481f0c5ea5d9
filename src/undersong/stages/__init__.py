"""Stages of an audit. Every function finds an artifact in the store, or makes it; finding loads no model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
