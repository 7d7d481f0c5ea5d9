"""`undersong check`: how many samples of a training file lie nearer to harm than ordinary data do."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
