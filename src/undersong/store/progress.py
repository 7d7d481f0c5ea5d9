"""How far an artefact is, read from its lock and its folders while others may be making it.  Changes nothing."""

from __future__ import annotations

import fcntl

from undersong.store.store import Artifact

DONE, IN_PROGRESS, INTERRUPTED, MISSING = "done", "being made", "left half-made", "missing"


def artifact_state(artifact: Artifact) -> str:
    """DONE; MAKING: a living process of this or another machine holds its lock; LEFT: by one that died, and the next
    goes on with it; MISSING.  `place`: as `Store.place` gives it."""
    try:
        with artifact.journal.open("rb") as file:  # looked at first: what is published meanwhile is then found done
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass  # nobody ever began it, or only its folder was brought here
    except BlockingIOError:
        return IN_PROGRESS
    if artifact.path.exists():
        return DONE
    return INTERRUPTED if artifact.partial.exists() else MISSING
