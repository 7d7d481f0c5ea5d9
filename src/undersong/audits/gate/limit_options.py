"""The check of the limit options of `gate`, `watch` and `audit-adapter`.

Imports no heavy library, so `--help` stays fast.
"""

from __future__ import annotations

from math import isnan

from undersong.types import UndersongError


def check_share(option: str, limit: float | None, *, allow_fall: bool = True) -> None:
    """Check that a limit is a share, and no number of points or per cent.

    Args:
        option: The option, as it is written.
        limit: Its value; None if it was not given.
        allow_fall: True if a limit below 0 is allowed, which asks for a fall.

    Raises:
        UndersongError: It is no number, above 1, a fall of 100 points or more, or a fall where none is allowed.
    """
    if limit is None:
        return
    if isnan(limit):
        raise UndersongError(f"{option} {limit:g} is no number; give a share, such as 0.02 for 2 points.")
    if limit < 0 and not allow_fall:
        raise UndersongError(
            f"{option} {limit:g} asks for a fall, and here a rise is limited; give a share, such as 0.02 for 2 points."
        )
    if limit == -1:
        raise UndersongError(f"{option} -1 asks for a fall by 100 points; give a share, such as 0.02 for 2 points.")
    if not -1 < limit <= 1:
        raise UndersongError(
            f"{option} {limit:g} is no share between 0 and 1; if it is in points or per cent, write {limit / 100:g}."
        )
