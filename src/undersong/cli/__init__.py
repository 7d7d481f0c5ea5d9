"""The command line: thin verbs over the rooms.  `--help` loads none of torch, transformers, scipy, matplotlib."""

from __future__ import annotations

import errno
import os
import sys
import warnings

# One torch thread a process unless told otherwise: two oversubscribed OpenMP threads were measured 12-40x slower than
# one on tiny models, because they spin against every other process.  Must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Our own lines say what is going on; a bar for every model load would bury them.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def main() -> None:
    """The console script: what a user can mend is one sentence on stderr and exit code 2."""
    from undersong.cli.app import app
    from undersong.types import UndersongError

    # peft asks transformers for a name it deprecated: nothing a user can mend
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\b")
    try:
        app()
    except UndersongError as error:
        print(f"undersong: {shown(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        _stop_at_the_disk(error)


def shown(text: str) -> str:
    """Text for a terminal: what is no printable character is written out.  Ids and paths of other people's manifests
    stand in errors, and a terminal obeys them."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.EISDIR)


def _stop_at_the_disk(error: OSError) -> None:
    """A disk that is full or closed to us is the user's to mend; every other OSError is ours."""
    from undersong.store import CLOSED, FULL

    if error.errno not in (*FULL, *CLOSED, *NO_PLACE) or error.filename is None:
        raise error
    place = shown(os.fsdecode(error.filename))
    print(
        f"undersong: cannot use {place}: {error.strerror}; make room, give access, or choose another path.",
        file=sys.stderr,
    )
    raise SystemExit(2) from None
