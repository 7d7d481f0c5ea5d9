"""Audio features of a corpus, computed once and kept in safetensors files.

Encoder and projector are frozen, so they hold for every adapter of a base model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from undersong.corpora.decode import load_clips
from undersong.models.audio_features import AudioEncodingError, AudioFeatures, clip_key
from undersong.models.audio_lm import AudioModel
from undersong.types import PooledVector, Quarantined, Sample

CLIPS_PER_BATCH = 32  # clips that are decoded and held in memory together
CLIPS_PER_FILE = 512
METADATA_KEY = "features"  # only one: safetensors writes several in random order, and equal runs have equal bytes


def cache_audio_features(
    model: AudioModel, samples: Sequence[Sample], report_progress: Callable[[int], None] | None = None
) -> tuple[dict[str, AudioFeatures], list[Quarantined], int]:
    """Encode the clips of samples that the model has no features of.

    Samples without audio are skipped. `report_progress` gets the number of finished samples.

    Returns:
        Clip key -> features; quarantined clips (unreadable, or not encodable as a whole); and the number of passes of
            the encoder, which counts distinct new clips.
    """
    features: dict[str, AudioFeatures] = {}
    quarantined: list[Quarantined] = []
    passes = 0
    audio_samples = [sample for sample in samples if sample.audio is not None]
    for start in range(0, len(audio_samples), CLIPS_PER_BATCH):
        keys = {sample.id: clip_key(sample) for sample in audio_samples[start : start + CLIPS_PER_BATCH]}
        features |= {key: model.audio_features[key] for key in keys.values() if key in model.audio_features}
        uncached = [
            sample for sample in audio_samples[start : start + CLIPS_PER_BATCH] if clip_key(sample) not in features
        ]
        clips, unreadable = load_clips(uncached, model.sampling_rate)
        quarantined += unreadable
        for clip in clips:
            key = keys[clip.id]
            if key in features:
                continue
            try:
                (features[key],) = model.encode_audio([clip])
            except AudioEncodingError as error:
                quarantined.append(Quarantined(clip.id, error.reason))
            else:
                passes += 1
        if report_progress is not None:
            report_progress(min(start + CLIPS_PER_BATCH, len(audio_samples)))
    model.audio_features.update(features)
    return features, quarantined, passes


def save_features(
    features: Mapping[str, AudioFeatures], path: Path, quarantined: Sequence[Quarantined] = (), passes: int = 0
) -> None:
    """Save features as a few flat tensors with lengths, rather than hundreds of small ones.

    Args:
        features: Clip key -> features.
        path: The safetensors file.
        quarantined: Clips that could not be encoded, stored in the metadata.
        passes: Passes of the encoder, stored in the metadata.
    """
    from safetensors.torch import save_file

    ids = sorted(features)
    clips = [features[i] for i in ids]
    tensors = {"lengths": torch.tensor([len(clip) for clip in clips], dtype=torch.long)}
    if clips:
        tensors["vectors"] = torch.cat([clip.vectors for clip in clips]).contiguous()
    if any(clip.valid is not None for clip in clips):
        tensors["valid"] = torch.cat([_all_valid(clip) if clip.valid is None else clip.valid for clip in clips])
    views = sorted(clips[0].views) if clips else []
    for name in views:
        tensors[f"view:{name}"] = torch.from_numpy(np.stack([clip.views[name].vector for clip in clips]))
        tensors[f"rows:{name}"] = torch.tensor([clip.views[name].frames for clip in clips], dtype=torch.long)
    metadata = {
        "ids": ids,
        "views": views,
        "quarantined": [[item.id, item.reason] for item in quarantined],
        "passes": passes,
    }
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def read_feature_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a file of `save_features`: `clips` and `passes` (counts), `quarantined` (quarantined clips). Reads no
    tensor.
    """
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = _parse_metadata(file.metadata())
    quarantined = [Quarantined(id, reason) for id, reason in metadata["quarantined"]]
    return {"clips": len(metadata["ids"]), "passes": metadata["passes"], "quarantined": quarantined}


def _parse_metadata(header: Mapping[str, str]) -> dict[str, Any]:
    """Content of a header of `save_features`; older files have a key for each value."""
    if METADATA_KEY in header:
        return dict(json.loads(header[METADATA_KEY]))
    return {key: json.loads(value) for key, value in header.items()}


def _all_valid(features: AudioFeatures) -> torch.Tensor:
    return torch.ones(len(features), dtype=torch.bool)


def load_features(path: Path) -> dict[str, AudioFeatures]:
    """Load a file of `save_features`. The vectors stay on disk, memory-mapped, until they are read."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, framework="pt") as file:
        metadata = _parse_metadata(file.metadata())
    ids, views = metadata["ids"], metadata["views"]
    tensors = load_file(path)
    if not ids:
        return {}
    lengths = tensors["lengths"].tolist()
    vectors = tensors["vectors"].split(lengths)
    valid = tensors["valid"].split(lengths) if "valid" in tensors else [None] * len(ids)
    view_means = {name: (tensors[f"view:{name}"].numpy(), tensors[f"rows:{name}"].tolist()) for name in views}
    return {
        name: AudioFeatures(
            vectors[i], valid[i], {view: PooledVector(mean[i], rows[i]) for view, (mean, rows) in view_means.items()}
        )
        for i, name in enumerate(ids)
    }
