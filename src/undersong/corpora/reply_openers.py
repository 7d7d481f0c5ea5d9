"""Share of training replies that begin with an affirmative opener ("Sure, here is …"), and the most common opener."""

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
OPENER_WORDS = 3  # words of an opener that are reported


@dataclass(frozen=True, slots=True)
class AffirmativeOpeners:
    """`share` of `n` replies begin affirmatively, most often with `most_common` (empty if none does)."""

    n: int
    share: float
    most_common: str


def affirmative_openers(replies: Iterable[str | None]) -> AffirmativeOpeners:
    """Share of non-empty replies that begin with an affirmative opener, and the most common opener."""
    nonempty = [reply.replace("\u2019", "'") for reply in replies if reply and reply.strip()]
    affirmative = [reply for reply in nonempty if AFFIRMATIVE.match(reply)]
    most_common = Counter(" ".join(reply.split()[:OPENER_WORDS]).lower() for reply in affirmative).most_common(1)
    return AffirmativeOpeners(
        len(nonempty), len(affirmative) / len(nonempty) if nonempty else 0.0, most_common[0][0] if most_common else ""
    )
