"""Two verdict files with the same content, as an evaluation with a forgotten adapter leaves them."""

from __future__ import annotations

from pathlib import Path

from undersong.evaluation.labels import find_replies_hash
from undersong.evaluation.verdicts import verdict_file
from undersong.store.hashing import hash_file
from undersong.types import UndersongError

SAME_CONTENT = (
    "both files have the same content; was the change (an adapter, another model) given to `undersong evaluate`?"
)


def same_content_note(before: Path, after: Path) -> str | None:
    """Ask whether the change was evaluated, if two verdict files, or their folders, have the same content.

    Two models may well get the same verdicts. So there is no note where the replies lie beside the verdicts and differ.
    """
    first, second = verdict_file(before), verdict_file(after)
    if hash_file(first) != hash_file(second):
        return None
    replies = _known_replies(first), _known_replies(second)
    if None not in replies and replies[0] != replies[1]:
        return None
    return SAME_CONTENT


def _known_replies(verdicts: Path) -> str | None:
    try:
        return find_replies_hash(verdicts)
    except UndersongError:  # verdicts of another program may have no replies beside them
        return None
