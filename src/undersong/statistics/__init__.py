"""Interval estimates, paired tests, inference over runs, multiple testing, agreement and balance.

Works on arrays only; reads no files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
