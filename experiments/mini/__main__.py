"""`python -m experiments.mini`: runs Mini's study and writes its page (`runner`)."""

from __future__ import annotations

import sys

from experiments.mini.runner import main

if __name__ == "__main__":
    sys.exit(main())
