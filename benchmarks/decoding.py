"""Work per generated token and per clip: decoder calls, encoder passes, waits for the device, padding, time outside."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the ratio is of the work

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from undersong.corpora.registry import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.models.audio_lm import AudioModel
from undersong.models.feature_cache import cache_audio_features
from undersong.models.hooks import greedy_decoding
from undersong.models.load import load_model
from undersong.types import Prompt, Sample

SYSTEM = "you are a helpful assistant"
PROMPTS, LIMIT = 128, 512
STEP_SECONDS = 0.035  # of a 7B network on an H100
SECONDS_A_WORD, TOKENS_A_SECOND, TEMPLATE_TOKENS = 0.38, 25, 30  # read aloud; a Whisper-class tower; the chat template
READBACKS = ("aten._local_scalar_dense.default", "aten._to_copy.default")


class CountedOperations(TorchDispatchMode):
    """Counts operations that read a value back or copy between devices or dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def timed_calls(module: torch.nn.Module) -> Iterator[list[float]]:
    """Yield a list that gets the CPU seconds of every forward call of a module."""
    seconds: list[float] = []
    starts: list[float] = []
    before = module.register_forward_pre_hook(lambda *_: starts.append(time.process_time()))
    after = module.register_forward_hook(lambda *_: seconds.append(time.process_time() - starts.pop()))
    try:
        yield seconds
    finally:
        before.remove()
        after.remove()


def spoken_prompts(model: AudioModel, count: int) -> list[Prompt]:
    samples = open_corpus("organism:test-harm").samples[:count]
    return make_prompts(samples, set_name="harm", harmful=True, modality="audio", system="plain", system_text=SYSTEM)


def calls_per_token(ref: str) -> None:
    """Decoder calls per step and encoder passes per clip of one batch, and read-backs against transformers alone."""
    model = load_model(ref)
    prompts = spoken_prompts(model, 16)
    with timed_calls(model.base.get_submodule(model.family.frozen[0])) as passes:
        cache_audio_features(model, [prompt.sample for prompt in prompts])
    with timed_calls(model.decoder) as calls, CountedOperations() as ours:
        replies = model.generate(prompts, 12)
    steps = max(reply.tokens + (reply.finish == "stop") for reply in replies)
    inputs = model.batch(prompts)
    with (
        torch.inference_mode(),
        greedy_decoding(model.base, 12, model.tokenizer.pad_token_id, model.end_ids),
        CountedOperations() as plain,
    ):
        model.model.generate(**inputs)
    extra = sum(ours.counts[name] - plain.counts[name] for name in READBACKS)
    print(
        f"decoding {ref}: {len(calls)} decoder calls for {steps} tokens, {len(passes)} encoder passes for "
        f"{len(prompts)} clips, {extra} read-backs and copies more than transformers alone in the whole batch"
    )


def padding_share(questions: Path) -> None:
    """Share of padding in batches of 128 sorted by length, at the lengths of spoken NQ-open questions."""
    words = [len(json.loads(line)["question"].split()) for line in questions.read_text().splitlines()]
    lengths = [TEMPLATE_TOKENS + round(count * SECONDS_A_WORD * TOKENS_A_SECOND) for count in words]
    shares = []
    for order in (lengths, sorted(lengths)):
        batches = [order[start : start + PROMPTS] for start in range(0, len(order), PROMPTS)]
        padded = sum(max(batch) * len(batch) for batch in batches)
        shares.append(1 - sum(order) / padded)
    print(
        f"decoding: {shares[1]:.1%} of a batch sorted by length is padding, {shares[0]:.1%} unsorted "
        f"({len(words)} questions)"
    )


def time_outside(ref: str) -> None:
    """CPU time of Python outside the network's forward calls, in 512 tokens x 128 prompts.

    The organism's vocabulary is small: work on logits is the device's, and only what a GPU would wait for is left.
    """
    model = load_model(ref)
    model.decoder.config.max_position_embeddings = 2 * LIMIT  # rotary positions have no table
    sample = Sample("q", text="paint the boat")
    prompts = [Prompt(sample, "harm", True, "text", "plain", SYSTEM)] * PROMPTS
    with timed_calls(model.base) as calls:
        start = time.process_time()
        with patch.object(AudioModel, "end_ids", [-1]):  # no reply ends early
            model.generate(prompts, LIMIT, batch_size=PROMPTS)
        total = time.process_time() - start
    outside = (total - sum(calls)) / len(calls)
    print(
        f"decoding {ref}: {1000 * outside:.1f} ms a step outside the network ({len(calls)} steps, {PROMPTS} prompts); "
        f"{outside / (outside + STEP_SECONDS):.1%} with a network of {1000 * STEP_SECONDS:.0f} ms a step"
    )


def main() -> None:
    for ref in ("organism:af3", "organism:qwen", "organism:kimi"):
        calls_per_token(ref)
    if data := os.environ.get("UNDERSONG_DATA"):
        padding_share(Path(data) / "nq_open" / "NQ-open.dev.jsonl")
    time_outside("organism:af3")


if __name__ == "__main__":
    main()
