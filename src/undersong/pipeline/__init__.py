"""Whole studies: the audit, its plan, screening, probing and the commands that work without a study."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
