"""Are harmful and harmless prompts alike but for harm?  What else tells them apart, a direction and a probe also read.

Knows samples; the paper's contrast sets are matched in length, voice and form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from undersong.statistics import standardised
from undersong.types import Sample

MOST = 0.5  # standard deviations between the means of two lengths
MOVED = 0.25  # share of one side whose voices would have to be exchanged


def mismatches(harmful: Sequence[Sample], harmless: Sequence[Sample], name: str) -> Iterator[str]:
    """A sentence for each way in which the two sides of the set `name` differ; where neither can be compared, none."""
    sides = harmful, harmless
    words = [[len(sample.text.split()) for sample in side if sample.text is not None] for side in sides]
    seconds = [[sample.seconds for sample in side if sample.seconds is not None] for side in sides]
    for unit, lengths in (("words", words), ("seconds", seconds)):
        if all(lengths) and abs(apart := standardised(np.array(lengths[0]), np.array(lengths[1]))) > MOST:
            means = [float(np.mean(side)) for side in lengths]
            yield (
                f"Harmful and harmless prompts of {name} differ in length ({means[0]:.1f} and {means[1]:.1f} {unit}, "
                f"{abs(apart):.1f} standard deviations): what tells them apart may be that; match them."
            )
    voices = [[sample.speaker for sample in side] for side in sides]
    if None not in (*voices[0], *voices[1]):
        shares = [Counter(side) for side in voices]
        moved = sum(abs(shares[0][v] / len(voices[0]) - shares[1][v] / len(voices[1])) for v in shares[0] | shares[1])
        if moved / 2 > MOVED:
            yield (
                f"Harmful and harmless prompts of {name} have other voices ({moved / 2:.0%} would have to be "
                "exchanged): what tells them apart may be that; match them."
            )
