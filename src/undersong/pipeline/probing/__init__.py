"""`undersong probe`: where a tuned model lost its refusal, whether the refusal direction is the cause, and what
restores it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
