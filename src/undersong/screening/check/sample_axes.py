"""Axes that listen to clips or run a model: their vectors, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from undersong.encoders.spec import INFLUENCE, PREDICTORS, REFUSAL, parse_encoder
from undersong.predictors.registry import PredictorSettings, axis_measure
from undersong.proximity.distances import nearest_distances
from undersong.proximity.product_distances import product_distances
from undersong.proximity.separation import separation_auc
from undersong.screening.check.axis_choice import AUDIO, LOGMEL
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.recordings import RecordingCheck, recording_distance
from undersong.screening.check.request_sets import CheckSets, RequestSet, store_set
from undersong.screening.check.text_axes import AxisMeasurement, compare_distances
from undersong.stages.context import Corpus, RunContext
from undersong.stages.predictors import PredictorAxis, known_refusal_texts
from undersong.store.store import Artifact
from undersong.types import Embeddings, UndersongError

DistancesToHarm: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
OWN_SCALE = (REFUSAL, INFLUENCE)  # of each sample by itself, and not by its likeness to harmful clips


@dataclass(frozen=True)
class AxisVectors:
    """Vectors of one axis: of the requests of each set, and those that distances to harm are measured to.

    Attributes:
        data, harm, ordinary: Vectors of the requests.
        anchors: Vectors of the harm set as a target; the same as `harm` unless the axis runs the model.
    """

    data: Embeddings
    harm: Embeddings
    ordinary: Embeddings
    anchors: Embeddings


@dataclass(frozen=True)
class SampleAxes:
    """Axes of the data and the references, as artifacts of a store.

    Attributes:
        ctx: The run context.
        request: The request.
        sets: The data and the references.
        corpora: The corpus of each set, by its role.
    """

    ctx: RunContext
    request: CheckRequest
    sets: CheckSets
    corpora: Mapping[str, Corpus]

    @classmethod
    def open(cls, ctx: RunContext, request: CheckRequest, sets: CheckSets) -> SampleAxes:
        """Store the corpora of the sets; clips are decoded here."""
        names = {"data": str(request.data), "harm": "the harm set", "fitted": "ordinary requests to fit on"}
        corpora = {
            role: store_set(ctx, names.get(role, "ordinary requests"), part, sets.modality == AUDIO)
            for role, part in sets.parts.items()
        }
        return cls(ctx, request, sets, corpora)

    def store_more(self, name: str, requests: RequestSet) -> Corpus:
        """Store the corpus of another set."""
        return store_set(self.ctx, name, requests, self.sets.modality == AUDIO)

    def vectors(self, encoder: str) -> AxisVectors:
        """Vectors of an axis, from the store or measured."""
        from undersong.encoders.embeddings import read_embeddings

        if parse_encoder(encoder).kind in PREDICTORS:
            axis = self.predictor(encoder)
            sides = [axis.sample_vectors(self.corpora[role]) for role in ("data", "harm", "ordinary")]
            sides.append(axis.reference_vectors(self.corpora["harm"]))
        else:
            sides = [self.embedded(encoder, self.corpora[role]) for role in ("data", "harm", "ordinary")]
            sides.append(sides[1])
        return AxisVectors(*(read_embeddings(artifact.path) for artifact in sides))

    def settings(self) -> PredictorSettings:
        """How the model is prompted."""
        assert self.request.model is not None, "checked before"
        return PredictorSettings(
            modality=self.sets.modality,
            system_text=self.request.system_prompt,
            refusal_texts=known_refusal_texts(self.request.model),
        )

    def predictor(self, encoder: str) -> PredictorAxis:
        """An axis that runs the model. It is fitted on ordinary requests that are not measured."""
        assert self.request.model is not None, "checked before"
        calibration = self.corpora["fitted"], self.corpora["harm"]
        return PredictorAxis(self.ctx, encoder, self.request.model, self.settings(), *calibration)

    def embedded(self, encoder: str, corpus: Corpus) -> Artifact:
        """Artifact with the vectors of a corpus by an encoder of clips."""
        from undersong.stages.embeddings import EmbeddingRequest, embed_corpus

        return embed_corpus(self.ctx, EmbeddingRequest(encoder, corpus, (), self.request.model))

    def recordings(self) -> RecordingCheck:
        """How far the clips of the data and of the harm set are apart from ordinary ones in sound."""
        vectors = self.vectors(LOGMEL)
        (ordinary, names), *others = (
            (side.vectors, cluster_names(part, side))
            for part, side in (
                (self.sets.ordinary, vectors.ordinary),
                (self.sets.data, vectors.data),
                (self.sets.harm, vectors.harm),
            )
        )
        return RecordingCheck(
            *(
                recording_distance(np.asarray(rows), own, np.asarray(ordinary), names, self.request.seed)
                for rows, own in others
            )
        )

    def measure_all(self, encoders: Mapping[str, str], level: float) -> tuple[list[AxisMeasurement], list[str]]:
        """Measure axes; also notes on what was compared with what.

        Args:
            encoders: Encoder of each axis.
            level: Level of the intervals of each.
        """
        if not encoders:
            return [], []
        sets = self.sets
        kind = "clips" if sets.modality == AUDIO else "requests"
        ordinary = len(sets.fitted.samples) + len(sets.ordinary.samples)
        self.ctx.announce(
            f"{', '.join(encoders)}: {len(sets.data.samples):,} {kind} of {self.request.data}, "
            f"{len(sets.harm.samples):,} harmful and {ordinary:,} ordinary."
        )
        recordings = self.recordings() if sets.modality == AUDIO else None
        measured, notes = list[AxisMeasurement](), list[str]()
        for name, encoder in encoders.items():
            try:
                measured.append(self.measure(name, encoder, level, recordings))
            except UndersongError as error:
                # A model that refuses nothing has no such axis; whoever names the axis gets the error.
                if encoder != REFUSAL or name in (self.request.axes or {}):
                    raise
                notes.append(f"The axis {name} was not measured: {error}")
        notes.append(
            f"By {', '.join(encoders)}, your {kind} are compared with {len(sets.harm.samples):,} harmful and "
            f"{len(sets.ordinary.samples):,} ordinary ones{_spoken_clause(sets)}."
        )
        notes += [f"{sets.data.lost:,} spoken samples have no clip here, so they were not compared."] * bool(
            sets.data.lost
        )
        return measured, notes + _unread_notes(sets, measured)

    def measure(self, name: str, encoder: str, level: float, recordings: RecordingCheck | None) -> AxisMeasurement:
        """Measure one axis.

        Args:
            name: Name of the axis.
            encoder: Its encoder.
            level: Level of its intervals.
            recordings: How far clips are apart in sound; None for written requests.
        """
        vectors = self.vectors(encoder)
        distances_to = distance_function(encoder)
        anchors, rows = np.asarray(vectors.anchors.vectors), {id: row for row, id in enumerate(vectors.anchors.ids)}
        harm_rows, harm_ids = np.asarray(vectors.harm.vectors), vectors.harm.ids
        ordinary = np.asarray(vectors.ordinary.vectors)

        def to_half(target: np.ndarray, heldout: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            half = anchors[[rows[harm_ids[i]] for i in target if harm_ids[i] in rows]]
            return distances_to(harm_rows[heldout], half)[0], distances_to(ordinary, half)[0]

        seed, clusters = self.request.seed, cluster_names(self.sets.ordinary, vectors.ordinary)
        harm_clusters = cluster_names(self.sets.harm, vectors.harm)
        auc = separation_auc(to_half, harm_clusters, clusters, seed=seed, level=level)
        measured = [int(id) for id in vectors.data.ids]
        distances, nearest = distances_to(np.asarray(vectors.data.vectors), anchors)
        places = np.array([*(int(id) for id in vectors.anchors.ids), -1])  # the last for no nearest request
        requests = [self.sets.data.requests[i] for i in measured]
        axis = compare_distances(
            (name, encoder, auc),
            (distances, [item.cluster for item in requests]),
            (distances_to(ordinary, anchors)[0], clusters),
            level=level,
            obstacle=obstacle_of(encoder, recordings),
        )
        owners = [self.sets.data.owners[i] for i in measured]
        return AxisMeasurement(axis, requests, owners, self.sets.harm.requests, distances, places[nearest])


def obstacle_of(encoder: str, recordings: RecordingCheck | None) -> str | None:
    """Why clips cannot be compared on an axis; None if they can, or nothing is spoken."""
    if recordings is None:
        return None
    own_scale = parse_encoder(encoder).kind in OWN_SCALE
    return recordings.data_obstacle or (None if own_scale else recordings.harm_obstacle)


def _unread_notes(sets: CheckSets, measured: Sequence[AxisMeasurement]) -> list[str]:
    """Count the samples that no axis measured: of spoken ones, because the clip is missing, empty or no audio."""
    data, reason = sets.data, ", because their clips cannot be used" if sets.modality == AUDIO else ""
    seen = {owner for measurement in measured for owner in measurement.owners}
    unread = [owner + 1 for owner in dict.fromkeys(data.owners) if owner not in seen]
    if not unread:
        return []
    return [
        f"{len(unread):,} of {len(set(data.owners)):,} samples were not compared{reason}, "
        f"the first: sample {unread[0]:,} of the data; check its file."
    ]


def _spoken_clause(sets: CheckSets) -> str:
    return f"; the {' and '.join(sets.spoken)} ones are spoken by text-to-speech" if sets.spoken else ""


def distance_function(encoder: str) -> DistancesToHarm:
    """Function of vectors (n, d) and harmful ones: distances (n,), and indices (n,) of the nearest, -1 for none."""
    measure = axis_measure(encoder)
    function = product_distances if measure.get("metric") == "product" else nearest_distances
    is_centroid = measure.get("score") == "centroid"

    def distances_to(vectors: np.ndarray, harm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = function(vectors, harm, k=1)
        return (found.centroid_distance if is_centroid else found.distance), found.index

    return distances_to


def cluster_names(requests: RequestSet, vectors: Embeddings) -> list[Hashable]:
    """Cluster of each vector."""
    return [requests.requests[int(id)].cluster for id in vectors.ids]
