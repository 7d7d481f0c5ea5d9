"""Refusal margins against the generation of the same replies: CPU seconds, as a ratio within one run."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the ratio is of the work

import time

import torch

from undersong.corpora.registry import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.evaluation.refusal_margin import MarginSettings, refusal_margins
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.settings.defaults import ORGANISM_REFUSALS

SYSTEM = "you are a helpful assistant"
LIMIT, ROUNDS = 12, 3


def main() -> None:
    """Print the cost of the margin, of known replies, in units of generating them."""
    torch.set_num_threads(1)
    for name in ("af3", "qwen", "kimi"):
        model = load_model(f"organism:{name}")
        samples = list(open_corpus("organism:test-harm").samples)
        cache_audio_features(model, samples)
        prompts = make_prompts(
            samples, set_name="harm", harmful=True, modality="audio", system="plain", system_text=SYSTEM
        )
        generate, margin = 0.0, 0.0
        for _ in range(ROUNDS):
            start = time.process_time()
            model.generate(prompts, LIMIT)
            middle = time.process_time()
            refusal_margins(model, prompts, MarginSettings(ORGANISM_REFUSALS))
            generate, margin = generate + middle - start, margin + time.process_time() - middle
        print(
            f"refusal margin, {name}, {len(prompts)} prompts: {margin / generate:.2f} of generating {LIMIT} tokens each"
        )


if __name__ == "__main__":
    main()
