"""Places where a test may have the process die as by SIGKILL."""

from __future__ import annotations

import os
import re
from collections import Counter

from undersong.types import UndersongError

FAILPOINTS = (
    *("lock:taken", "draft:swept", "draft:made", "journal:before", "journal:written"),
    *("write:begun", "write:filled", "write:synced", "write:renamed"),
    *("publish:before", "publish:ready", "publish:renamed"),
)
_hits: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Die as by SIGKILL if UNDERSONG_FAILPOINT is `name` or `name:n` and this is its n-th (default: first) passing."""
    if not (requested := os.environ.get("UNDERSONG_FAILPOINT")):
        return
    point, n = re.sub(r":\d+$", "", requested), re.search(r":(\d+)$", requested)
    if point not in FAILPOINTS:
        raise UndersongError(
            f"UNDERSONG_FAILPOINT={requested} names no failpoint; choose from {', '.join(FAILPOINTS)}."
        )
    _hits[name] += 1
    if name == point and _hits[name] == (int(n[1]) if n else 1):
        os._exit(137)
