"""The stages of an audit: every function looks up an artifact in the store, or makes it.

Looking up loads no model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
