"""The feature cache: what the decoder hears of every clip, computed once and reused by all rooms above.

Encoder and projector are frozen, so the vectors hold for every arm of a base.  One safetensors file a corpus.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from undersong.corpora import load_clips
from undersong.models.adapter import AudioModel, clip_key
from undersong.types import Clip, Quarantined, Sample


def listen(
    model: AudioModel, samples: Sequence[Sample], batch_size: int = 32
) -> tuple[dict[str, np.ndarray], list[Quarantined]]:
    """Clip key -> (placeholders, dim) float32, and the clips that cannot be read or heard whole, with reasons.

    Samples without audio are left out.
    """
    heard: dict[str, np.ndarray] = {}
    quarantined: list[Quarantined] = []
    spoken = [sample for sample in samples if sample.audio is not None]
    for start in range(0, len(spoken), batch_size):
        clips, failed = load_clips(spoken[start : start + batch_size], model.sampling_rate)
        quarantined += failed
        longest = model.family.max_seconds * model.sampling_rate
        quarantined += [_cut(clip, model) for clip in clips if len(clip.samples) > longest]
        whole = [clip for clip in clips if len(clip.samples) <= longest]
        keys = {sample.id: clip_key(sample) for sample in spoken[start : start + batch_size]}
        for clip, vectors in zip(whole, model.embed(whole)):
            if len(vectors):
                heard[keys[clip.id]] = vectors
            else:  # a prompt without a placeholder would ask the model nothing
                quarantined.append(Quarantined(clip.id, f"the audio is too short for {model.name} to hear anything"))
    return heard, quarantined


def _cut(clip: Clip, model: AudioModel) -> Quarantined:
    """Processors cut long audio off and say nothing."""
    seconds, most = len(clip.samples) / clip.rate, model.family.max_seconds
    return Quarantined(clip.id, f"the audio lasts {seconds:.0f} s, and {model.name} hears no more than {most:.0f} s")


def save_heard(heard: Mapping[str, np.ndarray], path: Path) -> None:
    """One flat array with offsets, so that thousands of clips are two tensors, not thousands of headers."""
    from safetensors.numpy import save_file

    ids = sorted(heard)
    lengths = np.array([len(heard[i]) for i in ids], np.int64)
    dim = next(iter(heard.values())).shape[1] if heard else 0
    flat = np.concatenate([heard[i] for i in ids]) if ids else np.empty((0, dim), np.float32)
    save_file({"vectors": np.ascontiguousarray(flat), "lengths": lengths}, path, metadata={"ids": json.dumps(ids)})


def load_heard(path: Path) -> dict[str, np.ndarray]:
    """What `save_heard` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        names = json.loads(file.metadata()["ids"])
        vectors, lengths = file.get_tensor("vectors"), file.get_tensor("lengths")
    ends = np.cumsum(lengths)
    return {name: vectors[end - n : end] for name, n, end in zip(names, lengths, ends)}
