"""Are harmful and harmless prompts alike but for harm?  What else tells them apart, a direction and a probe also read.

Knows samples; the paper's contrast sets are matched in length, voice and form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from undersong.statistics import standardized_difference
from undersong.types import Sample

MAX_LENGTH_DIFFERENCE = 0.5  # standard deviations between the means of two lengths
MAX_VOICE_EXCHANGE = 0.25  # share of one side whose voices would have to be exchanged


def contrast_mismatches(harmful: Sequence[Sample], benign: Sequence[Sample], set_name: str) -> Iterator[str]:
    """A sentence for each way in which the two sides of the set `name` differ; where neither can be compared, none."""
    sample_sets = harmful, benign
    words = [[len(sample.text.split()) for sample in samples if sample.text is not None] for samples in sample_sets]
    seconds = [[sample.seconds for sample in samples if sample.seconds is not None] for samples in sample_sets]
    for unit, lengths in (("words", words), ("seconds", seconds)):
        if (
            all(lengths)
            and abs(difference := standardized_difference(np.array(lengths[0]), np.array(lengths[1])))
            > MAX_LENGTH_DIFFERENCE
        ):
            means = [float(np.mean(values)) for values in lengths]
            yield (
                f"Harmful and harmless prompts of {set_name} differ in length ({means[0]:.1f} and {means[1]:.1f} {unit}, "
                f"{abs(difference):.1f} standard deviations): what tells them apart may be that; match them."
            )
    voices = [[sample.speaker for sample in samples] for samples in sample_sets]
    if None not in (*voices[0], *voices[1]):
        shares = [Counter(speakers) for speakers in voices]
        exchanged = sum(
            abs(shares[0][v] / len(voices[0]) - shares[1][v] / len(voices[1])) for v in shares[0] | shares[1]
        )
        if exchanged / 2 > MAX_VOICE_EXCHANGE:
            yield (
                f"Harmful and harmless prompts of {set_name} have other voices ({exchanged / 2:.0%} would have to be "
                "exchanged): what tells them apart may be that; match them."
            )
