"""`tune` and `evaluate` on a manifest, without a study or a store.  The output folder appears whole or not at all."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
