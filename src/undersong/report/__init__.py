"""Reports on results.json: one self-contained HTML page, Markdown for pull requests, and a page that compares several
studies. Imports results and store; computes no result itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
