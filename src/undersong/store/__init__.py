"""The artifact store: results of each stage, filed by a hash of everything that they were made from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
