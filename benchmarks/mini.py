"""Mini's costs as ratios in one process, in float32 and, where the CPU computes in it, bfloat16:

    python -m benchmarks.mini MANIFEST [MODEL]     # speech of some 3 s; default: mini, where it is assembled

hearing with padding skipped against a whole window computed; replies in batches against one by one; a training step
of thinned frames against all of them.  Not part of `make bench`: it needs a model that is put together on the machine.
"""

from __future__ import annotations

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the ratio is of the work

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AudioFlamingo3Encoder

from undersong.corpora.registry import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.models.audio_lm import AudioModel
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model, supports_bfloat16
from undersong.models.load_options import LoadOptions
from undersong.models.mini.network import MiniAudioEncoder
from undersong.tuning.config import LoraRecipe
from undersong.tuning.train import finetune_decoder
from undersong.types import Prompt, Sample

CLIPS, STEPS, LIMIT, FEW = 100, 25, 20, 20  # FEW: of what is slow, the rest is reckoned
ANSWER = (
    "That is a good question, and the answer to it is known: it is twelve, as far as anybody can tell."  # 24 tokens
)
SIZES = (32, 8)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def dtypes() -> list[str]:
    return ["float32", *(["bfloat16"] if supports_bfloat16("cpu") else [])]


@contextmanager
def whole_windows() -> Iterator[None]:
    """Audio Flamingo 3's own forward in the tower: everything behind a clip computed, and masked."""
    own = MiniAudioEncoder.forward

    def whole(self: Any, input_features: torch.Tensor, input_features_mask: torch.Tensor, **more: Any) -> Any:
        return AudioFlamingo3Encoder.forward(self, input_features, input_features_mask=input_features_mask, **more)

    MiniAudioEncoder.forward = whole  # type: ignore[method-assign]
    try:
        yield
    finally:
        MiniAudioEncoder.forward = own  # type: ignore[method-assign]


def hearing(model: AudioModel, samples: Sequence[Sample]) -> str:
    few = samples[:FEW]
    cache_audio_features(model, few[:2])  # warms up
    with whole_windows():
        model.audio_features.clear()
        padded = seconds(lambda: cache_audio_features(model, few))
    model.audio_features.clear()
    cut = seconds(lambda: cache_audio_features(model, few))
    cache_audio_features(model, samples)
    return f"hearing {len(few)} clips {cut:.1f} CPU s with padding skipped, {padded:.1f} computed: {padded / cut:.1f}x"


def asking(model: AudioModel, prompts: Sequence[Prompt]) -> str:
    one = seconds(lambda: model.generate(prompts[:FEW], LIMIT, batch_size=1)) / FEW
    asked = {size: seconds(lambda size=size: model.generate(prompts, LIMIT, batch_size=size)) for size in SIZES}
    told = ", ".join(
        f"{cost:.0f} in batches of {size}: {one * len(prompts) / cost:.1f}x" for size, cost in asked.items()
    )
    return f"answering {len(prompts)} prompts {one * len(prompts):.0f} CPU s one by one, {told}"


def training(model: AudioModel, prompts: Sequence[Prompt]) -> str:
    costs = {}
    for thin, steps in ((0.1, STEPS), (None, 5)):
        recipe = LoraRecipe(save_steps=(steps,), batch_size=8, learning_rate=1e-3, silent_frame_share=thin)
        targets = [ANSWER] * len(prompts)
        costs[thin] = (
            seconds(lambda recipe=recipe, targets=targets: finetune_decoder(model, prompts, targets, recipe, 0, keep))
            / steps
        )
    return (
        f"a step of 8 clips {costs[0.1]:.2f} CPU s thinned, {costs[None]:.2f} with all frames: "
        f"{costs[None] / costs[0.1]:.1f}x; {STEPS} thinned steps {STEPS * costs[0.1]:.0f}"
    )


def keep(_name: str, _write: object) -> None:
    """Nothing is kept."""


def main() -> None:
    manifest, *more = sys.argv[1:]
    torch.set_num_threads(1)
    samples = list(open_corpus(manifest).samples[:CLIPS])
    how = {"set_name": "asked", "harmful": False, "modality": "audio", "system": "plain", "system_text": None}
    prompts = make_prompts(samples, **how)
    for dtype in dtypes():
        model = load_model(more[0] if more else "mini", LoadOptions("cpu", dtype))
        print(f"mini, {dtype}: {hearing(model, samples)}", flush=True)
        for measure in (asking, training):
            print(f"mini, {dtype}: {measure(model, prompts)}", flush=True)


if __name__ == "__main__":
    main()
