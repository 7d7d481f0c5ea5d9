"""Limits of new tokens of the replies before and after, as far as the folders of the verdicts say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from undersong.phrases import count
from undersong.regular_files import is_regular_file
from undersong.store import PROVENANCE
from undersong.types import UndersongError, Verdict


def token_limit_note(files: tuple[Path, Path], verdicts: tuple[Sequence[Verdict], Sequence[Verdict]]) -> str | None:
    """Compare the limits of new tokens of two verdict files; None if they are equal, or one is not known.

    A different limit is not a change of the model. It does not matter if no reply was cut at the smaller limit,
    because then the larger one would have given the same replies; the note says so.

    Args:
        files: Verdict files before and after.
        verdicts: Those of their verdicts whose rates are limited.

    Raises:
        UndersongError: The limits differ, and a reply was cut at the smaller one, or nothing says how it ended.
    """
    limits = [_known_limit(file) for file in files]
    before, after = limits
    if before is None or after is None or before == after:
        return None
    shorter = 0 if before < after else 1
    unclear = sum(verdict.is_cut or verdict.finish is None for verdict in verdicts[shorter])
    if unclear:
        raise UndersongError(
            f"{files[0]} has replies of at most {count(before, 'new token')} and {files[1]} of at most {after:,}, and "
            f"{count(unclear, 'reply', 'replies')} of {files[shorter]} may have been cut, so their rates cannot be "
            "compared; generate both with the same --max-new-tokens."
        )
    return (
        f"Note: replies have at most {count(before, 'new token')} before and {after:,} after; of the limited rates "
        "none was cut at the smaller limit, so they can be compared."
    )


def _known_limit(verdicts: Path) -> int | None:
    """Limit of new tokens in the provenance that `evaluate` wrote beside its verdicts."""
    file = verdicts.with_name(PROVENANCE)
    if not is_regular_file(file):
        return None
    try:
        provenance = json.loads(file.read_bytes())
        limit = provenance["config"]["max_new_tokens"]
    except (OSError, ValueError, LookupError, TypeError):  # verdicts of another program have none
        return None
    return limit if isinstance(limit, int) else None
