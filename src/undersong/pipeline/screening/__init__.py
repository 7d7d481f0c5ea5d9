"""`undersong screen`: distances of a pool to harm sets on every axis, and the items that a rule keeps."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
