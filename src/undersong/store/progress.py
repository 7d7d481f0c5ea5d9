"""How far an artefact is, read from its lock and its folders while others may be making it.  Changes nothing."""

from __future__ import annotations

import fcntl

from undersong.store.artefacts import Artefact

DONE, MAKING, LEFT, MISSING = "done", "being made", "left half-made", "missing"


def progress(place: Artefact) -> str:
    """DONE; MAKING: a living process of this or another machine holds its lock; LEFT: by one that died, and the next
    goes on with it; MISSING.  `place`: as `Store.place` gives it."""
    try:
        with place.journal.open("rb") as file:  # looked at first: what is published meanwhile is then found done
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass  # nobody ever began it, or only its folder was brought here
    except BlockingIOError:
        return MAKING
    if place.path.exists():
        return DONE
    return LEFT if place.partial.exists() else MISSING
