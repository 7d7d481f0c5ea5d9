"""The data and both references as corpora, for axes that listen to clips or run a model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from undersong.corpora.training_audio import training_clips
from undersong.corpora.training_file import TrainingFile, TrainingSample, open_training_file
from undersong.screening.check.axis_choice import AUDIO, TEXT
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.requests import RequestText, has_words, sample_clusters
from undersong.screening.check.text_axes import split_ordinary
from undersong.stages.context import Corpus, RunContext
from undersong.store.draft import Draft
from undersong.types import Sample

REQUESTS_FILE = "requests.parquet"
ORDINARY_PER_HARM = 3  # ordinary requests for each harmful one: a third is fitted on, as for words


@dataclass(frozen=True)
class RequestSet:
    """Requests that are spoken, or written, as samples; the id of a sample is its index among the requests.

    Attributes:
        requests: What is shown of each request, with its cluster; n of them.
        owners: Position in the file of the sample that each belongs to.
        samples: The requests as samples, with the replies to train on.
        lost: Number of spoken samples whose clip is not here.
    """

    requests: tuple[RequestText, ...]
    owners: tuple[int, ...]
    samples: tuple[Sample, ...]
    lost: int = 0

    @property
    def clusters(self) -> list[Hashable]:
        """Cluster of each request."""
        return [request.cluster for request in self.requests]

    @property
    def has_replies(self) -> bool:
        """True if every sample has a reply to train on."""
        return all(sample.answer for sample in self.samples)

    def take(self, indices: Sequence[int]) -> RequestSet:
        """The requests at these indices, with new ids."""
        return RequestSet(
            tuple(self.requests[i] for i in indices),
            tuple(self.owners[i] for i in indices),
            tuple(replace(self.samples[i], id=str(number)) for number, i in enumerate(indices)),
        )


@dataclass(frozen=True)
class CheckSets:
    """The data, the harmful requests, and two parts of the ordinary ones: to fit on, and to measure.

    `spoken` names what voices had to speak: the harmful requests, the ordinary ones, or both.
    """

    modality: str
    data: RequestSet
    harm: RequestSet
    fitted: RequestSet
    ordinary: RequestSet
    spoken: tuple[str, ...] = ()

    @property
    def has_replies(self) -> bool:
        """True if the data and both references have replies to train on."""
        return all(part.has_replies for part in self.parts.values())

    @property
    def parts(self) -> dict[str, RequestSet]:
        """The sets by their role."""
        return {"data": self.data, "harm": self.harm, "fitted": self.fitted, "ordinary": self.ordinary}


def request_set(file: TrainingFile, modality: str, clusters: Sequence[Hashable], request: CheckRequest) -> RequestSet:
    """The requests of a file in one modality: clips of spoken samples, or all texts of written ones.

    Args:
        file: The file.
        modality: `audio` or `text`.
        clusters: Cluster of each sample.
        request: The request, whose columns the data have.
    """
    columns = request.columns if file.ref == str(request.data) else None
    clips = training_clips(file, [sample.row for sample in file.samples], columns) if modality == AUDIO else {}
    requests, owners, samples = list[RequestText](), list[int](), list[Sample]()
    lost = 0
    for position, sample in enumerate(file.samples):
        if modality == AUDIO:
            texts = [next(iter(sample.requests), "")] if sample.row in clips else []
            lost += sample.spoken and not texts
        else:
            texts = [text for text in sample.requests if has_words(text)]
        for text in texts:
            cluster = clusters[position]
            samples.append(_sample(len(samples), sample, text, cluster, clips.get(sample.row)))
            requests.append(RequestText(sample.id, text, cluster, sample.source))
            owners.append(position)
    return RequestSet(tuple(requests), tuple(owners), tuple(samples), lost)


def _sample(number: int, sample: TrainingSample, text: str, cluster: Hashable, audio: str | bytes | None) -> Sample:
    return Sample(
        str(number),
        audio,
        text or None,
        sample.answer or None,
        sample.answers,
        speaker=sample.speaker,
        group=str(cluster),
    )


def data_modality(data: TrainingFile) -> str:
    """`audio` if anything in the data is spoken, else `text`."""
    return AUDIO if any(sample.spoken for sample in data.samples) else TEXT


def data_set(data: TrainingFile, request: CheckRequest) -> tuple[str, RequestSet]:
    """Modality of the data, and their requests in it: what is spoken if anything is, else what is written."""
    modality = data_modality(data)
    return modality, request_set(data, modality, sample_clusters(data.samples), request)


def reference_set(refs: Sequence[str], modality: str, request: CheckRequest) -> RequestSet:
    """All requests of reference corpora in one modality; a cluster is a group."""
    sets = []
    for ref in refs:
        file = open_training_file(ref)
        clusters = [sample.group or sample.id for sample in file.samples]
        sets.append(request_set(file, modality, clusters, request))
    merged = RequestSet(
        tuple(item for part in sets for item in part.requests),
        tuple(owner for part in sets for owner in part.owners),
        tuple(sample for part in sets for sample in part.samples),
        sum(part.lost for part in sets),
    )
    return merged.take(range(len(merged.requests)))


def are_spoken(refs: Sequence[str]) -> bool:
    """True if every one of these corpora has clips."""
    return all(any(sample.spoken for sample in open_training_file(ref).samples) for ref in refs)


def drawn_set(requests: RequestSet, size: int, seed: int) -> RequestSet:
    """At most `size` requests, always the same, and of no cluster a second before every cluster has one."""
    if len(requests.requests) <= size:
        return requests
    rounds, taken = list[tuple[int, int]](), dict[Hashable, int]()
    for index in np.random.default_rng(seed).permutation(len(requests.requests)).tolist():
        cluster = requests.requests[index].cluster
        rounds.append((taken.get(cluster, 0), index))
        taken[cluster] = taken.get(cluster, 0) + 1
    order = sorted(range(len(rounds)), key=lambda place: rounds[place][0])[:size]  # stable
    return requests.take(sorted(rounds[place][1] for place in order))


def split_set(requests: RequestSet, seed: int) -> tuple[RequestSet, RequestSet]:
    """The ordinary requests to fit on, and those to measure, by whole clusters.

    Raises:
        UndersongError: There are too few.
    """
    fitted = {item.cluster for item in split_ordinary(requests.requests, seed)[0]}
    first, second = (
        [i for i, cluster in enumerate(requests.clusters) if (cluster in fitted) is side] for side in (True, False)
    )
    return requests.take(first), requests.take(second)


def store_set(ctx: RunContext, name: str, requests: RequestSet, decode: bool) -> Corpus:
    """Artifact of the corpus of a set, whose clips are decoded once.

    Args:
        ctx: The run context.
        name: What progress and messages call it.
        requests: The set.
        decode: Decode the clips.

    Raises:
        UndersongError: None of it can be used.
    """
    from undersong.corpora.manifest import write_manifest
    from undersong.stages.corpus import load_corpus

    def make(draft: Draft) -> None:
        with draft.file(REQUESTS_FILE, mode=0o600) as path:
            write_manifest(requests.samples, path)

    artifact = ctx.store.get_or_make("check_requests", 1, {}, {"content": set_hash(requests)}, make)
    corpus = load_corpus(ctx, str(artifact.path / REQUESTS_FILE), decode=decode)
    return Corpus(name, corpus.artifact)


def set_hash(requests: RequestSet) -> str:
    """Hash of the requests of a set, their clips and replies."""
    from undersong.corpora.manifest import Manifest
    from undersong.corpora.registry import manifest_hash

    return manifest_hash(Manifest(requests.samples, (), Path()))
