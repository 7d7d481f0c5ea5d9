"""How replies that are learned begin: an affirmative opener is a format of its own, and may wear refusals down alone.

The published benign sets had one before every reply ("Sure, here is …"), which is part of what an attack asks for.
Knows words; does not know models.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

AFFIRMATIVE = re.compile(
    r"\W*(sure|certainly|of course|absolutely|definitely|gladly|yes|okay|ok|no problem|here('s| is| are)"
    r"|i('d| would) be (happy|glad))\b",
    re.IGNORECASE,
)
WORDS = 3  # of an opener that are told


@dataclass(frozen=True, slots=True)
class Openers:
    """`share` of `n` replies begins affirmatively, most often with `most` (empty: none does)."""

    n: int
    share: float
    most: str


def openers(replies: Iterable[str | None]) -> Openers:
    """Of the replies that there are."""
    there = [reply.replace("\u2019", "'") for reply in replies if reply and reply.strip()]
    agreeing = [reply for reply in there if AFFIRMATIVE.match(reply)]
    first = Counter(" ".join(reply.split()[:WORDS]).lower() for reply in agreeing).most_common(1)
    return Openers(len(there), len(agreeing) / len(there) if there else 0.0, first[0][0] if first else "")
