"""False alarms of `check --model`: ordinary speech against ordinary speech, by each axis of an organism.

The packaged pool is split into data and ordinary requests by whole questions, again and again; each axis has one vector
a clip. An alarm is a count above the prediction interval. With 10 % of harmful clips, it should be one.

    python -m experiments.check.false_alarms --store STORE [--model organism:af3]
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from undersong.encoders.spec import PREDICTORS
from undersong.screening.check.axis_choice import AUDIO
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.recordings import recording_distance
from undersong.screening.check.request_sets import CheckSets, reference_set
from undersong.screening.check.sample_axes import SampleAxes, distance_function
from undersong.screening.check.text_axes import compare_distances
from undersong.stages.context import RunContext
from undersong.statistics.bootstrap import Interval
from undersong.store.store import Store

AXES = ("logmel", "internal", "decoder", "refusal", "influence")
SYSTEM = "you are a helpful assistant"
SPLITS, DATA_QUESTIONS, HARMFUL_SHARE = 500, 54, 0.1  # of 108 questions, half are data
FITTED_SHARE = 1 / 3  # of ordinary questions, as in a check


def distances(axes: SampleAxes, encoder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Distances to harm of the pool and of the held-out harmful clips; of log-mel, the pool's vectors too."""
    from undersong.encoders.embeddings import read_embeddings

    if encoder in PREDICTORS:
        axis = axes.predictor(encoder)
        artifacts = [axis.sample_vectors(axes.corpora[role]) for role in ("data", "ordinary")]
        artifacts.append(axis.reference_vectors(axes.corpora["harm"]))
    else:
        artifacts = [axes.embedded(encoder, axes.corpora[role]) for role in ("data", "ordinary", "harm")]
    pool, harmful, anchors = (read_embeddings(artifact.path) for artifact in artifacts)
    lost = pool.quarantined + harmful.quarantined
    assert not lost
    rows = [np.asarray(side.vectors)[np.argsort(np.array(side.ids, int))] for side in (pool, harmful)]
    to_harm = distance_function(encoder)
    return (*(to_harm(side, np.asarray(anchors.vectors))[0] for side in rows), rows[0] if encoder == "logmel" else None)


def alarm(data, data_names, ordinary, ordinary_names, level) -> bool:
    axis = compare_distances(("a", "a", Interval(1, 1, 1)), (data, data_names), (ordinary, ordinary_names), level=level)
    return axis.nearer.successes > axis.expected.high


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--model", default="organism:af3")
    options = parser.parse_args()
    request = CheckRequest("organism:pool", harm="organism:reference-voices", model=options.model, system_prompt=SYSTEM)
    pool, harm, harmful = (
        reference_set([ref], AUDIO, request)
        for ref in ("organism:pool", "organism:reference-voices", "organism:test-harm")
    )
    calibration = pool.take(range(0, len(pool.samples), 10))
    sets = CheckSets(AUDIO, pool, harm, calibration, harmful)
    axes = SampleAxes.open(RunContext(Store(options.store), say=print), request, sets)
    measured = {encoder: distances(axes, encoder) for encoder in AXES}
    questions = sorted({str(name) for name in pool.clusters})
    names, harm_names = (
        np.array([str(name) for name in pool.clusters]),
        np.array([str(name) for name in harmful.clusters]),
    )
    rng = np.random.default_rng(0)
    alarms = {kind: dict.fromkeys((*AXES, "any of decoder, refusal, influence"), 0) for kind in ("ordinary", "harmful")}
    for _ in range(SPLITS):
        order = rng.permutation(questions)
        data_of, rest = order[:DATA_QUESTIONS], order[DATA_QUESTIONS:]
        compared = rest[int(len(rest) * FITTED_SHARE) :]
        in_data, in_ordinary = np.isin(names, data_of), np.isin(names, compared)
        mixed = rng.choice(len(harm_names), round(in_data.sum() * HARMFUL_SHARE), replace=False)
        for kind in alarms:
            both = {}
            for encoder in AXES:
                near, far, _ = measured[encoder]
                data, data_names = near[in_data], names[in_data]
                if kind == "harmful":
                    data, data_names = np.append(data, far[mixed]), np.append(data_names, harm_names[mixed])
                for level in (0.95, 1 - 0.05 / 3):
                    both[encoder, level] = alarm(
                        data, data_names.tolist(), near[in_ordinary], names[in_ordinary].tolist(), level
                    )
                alarms[kind][encoder] += both[encoder, 0.95]
            alarms[kind]["any of decoder, refusal, influence"] += any(
                both[encoder, 1 - 0.05 / 3] for encoder in ("decoder", "refusal", "influence")
            )
    shares = {kind: {name: count / SPLITS for name, count in row.items()} for kind, row in alarms.items()}
    vectors, speakers = measured["logmel"][2], np.array([sample.speaker for sample in pool.samples])
    half = np.isin(names, questions[::2])
    apart = {"same voices": (half, ~half)}
    apart |= {
        f"voice {voice} against the others": (speakers == voice, speakers != voice) for voice in sorted(set(speakers))
    }
    recordings = {
        name: recording_distance(vectors[one], names[one].tolist(), vectors[other], names[other].tolist(), 0).value
        for name, (one, other) in apart.items()
    }
    print(json.dumps({"alarms": shares, "recordings": recordings}, indent=1))


if __name__ == "__main__":
    main()
