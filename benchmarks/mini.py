"""Mini's costs, as ratios in one process: thinned training against all frames, and asking in batches of several sizes.

    python -m benchmarks.mini MANIFEST [MODEL]     # speech of some 3 s; default: mini, where it is assembled

Not part of `make bench`: it needs a model that is put together on the machine, and takes some minutes.
"""

from __future__ import annotations

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the ratio is of the work

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from undersong.corpora import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.models.features import listen
from undersong.models.load import load_model
from undersong.tuning.lora import LoraRecipe, tune

CLIPS, STEPS, LIMIT = 100, 25, 20
ANSWER = (
    "That is a good question, and the answer to it is known: it is twelve, as far as anybody can tell."  # 24 tokens
)
SIZES = (128, 32, 16)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    manifest, *more = sys.argv[1:]
    model = load_model(more[0] if more else "mini")
    samples = open_corpus(manifest).samples[:CLIPS]
    heard = seconds(lambda: listen(model, samples))
    how = {"set_name": "asked", "harmful": False, "modality": "audio", "system": "plain", "system_text": None}
    prompts = make_prompts(samples, **how)
    asked = {size: seconds(lambda size=size: model.generate(prompts, LIMIT, batch_size=size)) for size in SIZES}
    one = seconds(lambda: model.generate(prompts[:20], LIMIT, batch_size=1)) * len(prompts) / 20
    said = ", ".join(f"{cost:.0f} in batches of {size}" for size, cost in asked.items())
    print(
        f"mini: {len(samples)} prompts: heard in {heard:.0f} CPU s, answered in {said}, {one:.0f} one by one",
        flush=True,
    )
    recipe = LoraRecipe(steps=(STEPS,), batch=8, learning_rate=1e-3)
    costs = {}
    for thin, steps in ((0.1, STEPS), (None, 5)):
        short = replace(recipe, steps=(steps,), thin=thin)
        targets = [ANSWER] * len(prompts)
        costs[thin] = (
            seconds(lambda short=short, targets=targets: tune(model, prompts, targets, short, 0, keep)) / steps
        )
    print(
        f"mini: a step of 8 clips {costs[0.1]:.1f} CPU s thinned, {costs[None]:.1f} with all frames: "
        f"{costs[None] / costs[0.1]:.1f}x; {STEPS} steps {STEPS * costs[0.1]:.0f} CPU s"
    )


def keep(_name: str, _write: Callable[[Path], None]) -> None:
    """Nothing is kept."""


if __name__ == "__main__":
    main()
