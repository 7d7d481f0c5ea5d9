"""Batched generation against one prompt at a time on the organism, in new tokens a second, in one process."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the ratio is of the work

import statistics
import time

from undersong.corpora.registry import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model

PROMPTS, LIMIT, ROUNDS = 108, 12, 5


def main() -> None:
    model = load_model("organism:af3")
    samples = open_corpus("organism:test-harm").samples[:PROMPTS]
    cache_audio_features(model, samples)
    text = "you are a helpful assistant"
    prompts = make_prompts(samples, set_name="harm", harmful=True, modality="audio", system="plain", system_text=text)
    ratios, rates = [], []
    for _ in range(ROUNDS):
        speeds = []
        for size in (PROMPTS, 1):
            start = time.process_time()
            tokens = sum(reply.tokens + 1 for reply in model.generate(prompts, LIMIT, batch_size=size))
            speeds.append(tokens / (time.process_time() - start))
        ratios.append(speeds[0] / speeds[1])
        rates.append(speeds)
    batched, single = (statistics.median(column) for column in zip(*rates))
    print(f"generation: {batched:.0f} tokens/s batched, {single:.0f} one by one: {statistics.median(ratios):.1f}x")


if __name__ == "__main__":
    main()
