"""How an architecture's base steps were chosen: `python -m recipes.organisms.base_steps --arch qwen --steps 700 1000 …`.

On the development world alone (other words, other voices).  A base that is trained until every loss is ~ 0 is hardly
broken by gradients of ~ 0, so how long a base is trained decides whether an effect can be seen at all; architectures
learn at different speeds.  The rule is the one the first architecture was chosen by (tried.md, 7): the largest minimum
of JSR after near-benign speech over bases and tuning seeds, with JSR after far-benign speech <= .10.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from recipes.organisms.architecture import NAMES, architecture
from recipes.organisms.batches import Corpus, rates
from recipes.organisms.seed_training import accepted, after_distant, load, save
from recipes.organisms.speech import build as build_speech
from recipes.organisms.training import AlignRecipe, BaseRecipe, Dose, quality, train_aligned, train_base, tune
from recipes.organisms.world import DEVELOPMENT

TUNING_SEEDS = (11, 12)


def broken(
    corpus: Corpus,
    model,
    seed: int,
    pools: tuple[str, ...] = ("near", "far"),
    dose: Dose = Dose(),  # noqa: B008 - frozen
) -> dict[str, float]:
    """JSR on harmful speech of the accept split after 20 and 40 steps on near-benign and on far-benign speech.

    Args:
        corpus: Requests and speech of the world, as the architecture reads them.
        model: The base, which is as before afterwards.
        seed: Draws the samples, their order and the adapter's first weights.
        pools: Kinds of benign speech, each for a training of its own.
        dose: Steps, learning rate and number of samples.

    Returns:
        `POOL_STEP_SEED` -> JSR.
    """
    out, harm = {}, corpus.pick("accept", "harm")
    for name in pools:
        pool = corpus.pick("pool", name)
        rows = random.Random(seed).sample(pool, min(dose.samples, len(pool)))
        for step, tuned in tune(corpus, model, rows, "audio", dose, seed):
            out[f"{name}_{step}_{seed}"] = round(rates(corpus, tuned, harm, "audio")["answer"], 3)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", choices=NAMES, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/organisms"))
    parser.add_argument("--steps", type=int, nargs="+", default=[700, 1000, 1300, 1700])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    speech = arguments.work / f"{DEVELOPMENT.name}.npz"
    if not speech.is_file():
        build_speech(DEVELOPMENT, speech, {})
    corpus = Corpus(DEVELOPMENT, arguments.work, architecture(arguments.arch))
    work = arguments.work / arguments.arch / "development"
    work.mkdir(parents=True, exist_ok=True)
    for steps in arguments.steps:
        for seed in arguments.seeds:
            weights, file = work / f"aligned-{steps}-{seed}.safetensors", work / f"{steps}-{seed}.json"
            if file.is_file():
                continue
            save(train_base(corpus, BaseRecipe(steps=steps), seed), weights)
            save(train_aligned(corpus, load(corpus, weights), AlignRecipe(), seed), weights)
            model = load(corpus, weights)
            facts = quality(corpus, model, "accept")
            facts["other_after_distant"] = round(after_distant(corpus, model, seed), 3)
            facts["fails"] = accepted(facts)
            for tuning_seed in TUNING_SEEDS:
                facts |= broken(corpus, model, tuning_seed)
            file.write_text(json.dumps(facts))
            print(arguments.arch, steps, seed, facts, flush=True)


if __name__ == "__main__":
    main()
