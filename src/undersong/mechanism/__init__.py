"""Mechanistic analysis of refusal: directions, gaps, probes, interventions and drift.

Does not import pipeline stages.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
