"""Defenses against the loss of refusals, what each costs, and which one to use. Their settings are in
`study.defenses`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
