"""Results of a study: the schema of results.json, and the parts that are computed from an audit's artifacts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
