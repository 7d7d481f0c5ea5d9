"""The encoder cache: what the tower's learned layers take of every clip, in half precision, computed once.

The layers below it stay as they are, so this holds for every training of the front end.  In shards: a killed run loses
the one it was at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from recipes.mini.speech import as_samples, load_clips
from recipes.mini.weights import WINDOW, Base
from recipes.mini.work_files import costed, read_figures, same_as_begun, write_figures
from undersong.corpora.decode import load_clips as decode
from undersong.models.audio_inputs import prepare_padded_windows
from undersong.models.mini.network import MiniAudioEncoder
from undersong.store.hashing import hash_file
from undersong.types import UndersongError

SHARD, BATCH = 512, 16


def run(work: Path, base: Base, device: str) -> None:
    """Shards of what the learned layers take, those that are not there yet.  UndersongError: they are of other clips or of
    another tower."""
    clips = load_clips(work)
    made_of = {"clips": hash_file(work / "clips.jsonl"), "whisper": base.hashes["whisper"]}
    same_as_begun(work / "cache", made_of, shard_file(work, 0).is_file())
    tower: MiniAudioEncoder = base.network(torch.zeros(1, dtype=torch.long)).model.audio_tower.to(device)
    figures = read_figures(work).get("cache", {})
    for start in range(0, len(clips), SHARD):
        file = shard_file(work, start)
        if file.is_file():
            continue
        with costed(figures), torch.inference_mode():
            _write(file, _states(tower, work, clips[start : start + SHARD]))
        figures |= {"clips": min(len(clips), start + SHARD)}
        write_figures(work, "cache", figures)
        print(f"cache: {figures['clips']} of {len(clips)} clips, {figures['cpu_seconds']} CPU s", flush=True)


def shard_file(work: Path, start: int) -> Path:
    """Where the clips from `start` on are kept."""
    return work / "cache" / f"{start // SHARD:05}.safetensors"


def _states(tower: MiniAudioEncoder, work: Path, clips: Sequence[dict[str, Any]]) -> list[torch.Tensor]:
    """One (positions, dim) float16 a clip, in order."""
    from transformers import WhisperFeatureExtractor

    prepare = prepare_padded_windows("mask")
    extractor = WhisperFeatureExtractor(
        feature_size=tower.num_mel_bins, chunk_length=WINDOW, return_attention_mask=True
    )
    device = tower.conv1.weight.device
    decoded, failed = decode(as_samples(work, clips), extractor.sampling_rate)
    if failed:
        raise UndersongError(
            f"Clip {failed[0].id} cannot be read ({failed[0].reason}); remove its file and clips.jsonl."
        )
    sounds = [prepare(extractor, clip.samples) for clip in decoded]
    order = sorted(range(len(sounds)), key=lambda i: sounds[i].frames)
    kept: dict[int, torch.Tensor] = {}
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        features = torch.cat([sounds[i].tensors["input_features"] for i in rows]).to(device)
        frames = torch.tensor([sounds[i].frames[0] for i in rows], device=device)
        states, positions = tower.forward_base_layers(features, frames)
        for i, state, count in zip(rows, states, positions.tolist()):
            kept[i] = state[:count].half().cpu()
    return [kept[i] for i in range(len(sounds))]


def _write(file: Path, states: Sequence[torch.Tensor]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    save_file({"states": torch.cat(list(states)), "positions": torch.tensor([len(state) for state in states])}, part)
    part.rename(file)


class States:
    """The cache as a sequence of (positions, dim) float16, read from disk when asked for."""

    def __init__(self, work: Path, count: int) -> None:
        shards = [load_file(shard_file(work, start)) for start in range(0, count, SHARD)]
        self.lengths = [length for shard in shards for length in shard["positions"].tolist()]
        if len(self.lengths) != count:
            raise UndersongError(f"The encoder cache in {work} is of other clips; remove its folder `cache`.")
        self._states = [state for shard in shards for state in shard["states"].split(shard["positions"].tolist())]

    def batch(self, rows: Sequence[int], device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, positions, dim) float32 with zeros behind, and the positions of each."""
        states = torch.nn.utils.rnn.pad_sequence([self._states[i] for i in rows], batch_first=True).float()
        return states.to(device), torch.tensor([self.lengths[i] for i in rows], device=device)
