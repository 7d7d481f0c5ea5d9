"""Cosine distances to a reference harm set, selections by rule, agreement between axes and the screening score.

Works on vectors and ids only.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
