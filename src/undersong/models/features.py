"""The feature cache: what the decoder hears of every clip, computed once and reused by all rooms above.

Encoder and projector are frozen, so the vectors hold for every arm of a base.  Some hundred clips a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from undersong.corpora import load_clips
from undersong.models.adapter import AudioModel
from undersong.models.ears import clip_key
from undersong.models.hearing import Heard, Unheard
from undersong.types import Pooled, Quarantined, Sample

AT_ONCE = 32  # clips that are decoded and held in memory together
SHARD = 512  # clips a file


def listen(
    model: AudioModel, samples: Sequence[Sample], tell: Callable[[int], None] | None = None
) -> tuple[dict[str, Heard], list[Quarantined], int]:
    """Clip key -> what was heard; the clips that cannot be read or heard whole, with reasons; passes of the encoder.

    Clips that the model has heard already, of these samples or of others, are not heard again: passes count distinct
    new clips.  Samples without audio are left out.  `tell` hears how many samples are done.
    """
    heard: dict[str, Heard] = {}
    quarantined: list[Quarantined] = []
    passes = 0
    spoken = [sample for sample in samples if sample.audio is not None]
    for start in range(0, len(spoken), AT_ONCE):
        keys = {sample.id: clip_key(sample) for sample in spoken[start : start + AT_ONCE]}
        heard |= {key: model.heard[key] for key in keys.values() if key in model.heard}
        new = [sample for sample in spoken[start : start + AT_ONCE] if clip_key(sample) not in heard]
        clips, failed = load_clips(new, model.sampling_rate)
        quarantined += failed
        for clip in clips:
            key = keys[clip.id]
            if key in heard:
                continue
            try:
                (heard[key],) = model.hear([clip])
            except Unheard as error:
                quarantined.append(Quarantined(clip.id, error.reason))
            else:
                passes += 1
        if tell is not None:
            tell(min(start + AT_ONCE, len(spoken)))
    model.heard.update(heard)
    return heard, quarantined, passes


def save_heard(heard: Mapping[str, Heard], path: Path, unheard: Sequence[Quarantined] = (), passes: int = 0) -> None:
    """Flat tensors with lengths, so that hundreds of clips are a few tensors, not hundreds of headers; beside them what
    could not be heard, and how often the encoder ran."""
    from safetensors.torch import save_file

    ids = sorted(heard)
    clips = [heard[i] for i in ids]
    tensors = {"lengths": torch.tensor([len(one) for one in clips], dtype=torch.long)}
    if clips:
        tensors["vectors"] = torch.cat([one.vectors for one in clips]).contiguous()
    if any(one.valid is not None for one in clips):
        tensors["valid"] = torch.cat([_all(one) if one.valid is None else one.valid for one in clips])
    views = sorted(clips[0].views) if clips else []
    for name in views:
        tensors[f"view:{name}"] = torch.from_numpy(np.stack([one.views[name].vector for one in clips]))
        tensors[f"rows:{name}"] = torch.tensor([one.views[name].frames for one in clips], dtype=torch.long)
    notes = {"ids": ids, "views": views, "unheard": [[item.id, item.reason] for item in unheard], "passes": passes}
    save_file(tensors, path, metadata={key: json.dumps(value) for key, value in notes.items()})


def read_notes(path: Path) -> dict[str, Any]:
    """`clips` and `passes` (counts), `unheard` (Quarantined items) of a file that `save_heard` wrote; no tensor."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        notes = {key: json.loads(value) for key, value in file.metadata().items()}
    unheard = [Quarantined(id, reason) for id, reason in notes["unheard"]]
    return {"clips": len(notes["ids"]), "passes": notes["passes"], "unheard": unheard}


def _all(heard: Heard) -> torch.Tensor:
    return torch.ones(len(heard), dtype=torch.bool)


def load_heard(path: Path) -> dict[str, Heard]:
    """What `save_heard` wrote; the vectors stay on disk, mapped into memory, until somebody reads them."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, framework="pt") as file:
        notes = file.metadata()
    ids, views = json.loads(notes["ids"]), json.loads(notes["views"])
    tensors = load_file(path)
    if not ids:
        return {}
    lengths = tensors["lengths"].tolist()
    vectors = tensors["vectors"].split(lengths)
    valid = tensors["valid"].split(lengths) if "valid" in tensors else [None] * len(ids)
    means = {name: (tensors[f"view:{name}"].numpy(), tensors[f"rows:{name}"].tolist()) for name in views}
    return {
        name: Heard(vectors[i], valid[i], {view: Pooled(mean[i], rows[i]) for view, (mean, rows) in means.items()})
        for i, name in enumerate(ids)
    }
