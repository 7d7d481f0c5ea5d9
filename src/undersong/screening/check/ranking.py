"""The ranking of the samples on one axis, each with its nearest harmful request."""

from __future__ import annotations

import numpy as np

from undersong.corpora.training_file import TrainingFile
from undersong.screening.check.result import RankedSample
from undersong.screening.check.text_axes import AxisMeasurement


def rank_samples(data: TrainingFile, measurement: AxisMeasurement) -> tuple[RankedSample, ...]:
    """All measured samples, each by its nearest request, nearest first; ties are in the order of the file.

    Args:
        data: The training file.
        measurement: Measured requests of the data with their distances.
    """
    order = np.lexsort((np.asarray(measurement.owners), measurement.distances))
    ranked, seen = list[RankedSample](), set[int]()
    for position in order.tolist():
        owner = measurement.owners[position]
        if owner in seen:
            continue
        seen.add(owner)
        sample, place = data.samples[owner], int(measurement.nearest[position])
        nearest = measurement.harm[place] if place >= 0 else None
        distance = float(measurement.distances[position])
        ranked.append(
            RankedSample(
                rank=len(ranked) + 1,
                id=sample.id,
                row=sample.row,
                distance=distance,
                nearer=distance <= measurement.axis.threshold,
                text=measurement.requests[position].text,
                nearest_id=None if nearest is None else nearest.id,
                nearest_text=None if nearest is None else nearest.text,
                nearest_source=None if nearest is None else nearest.source,
            )
        )
    return tuple(ranked)
