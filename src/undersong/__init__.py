"""The package's lazy front door: public names are imported on first use, so `import undersong` loads no torch."""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
