"""Trains many accepted bases of each architecture: `python -m recipes.organisms.bases [--arch af3 ...] [--layers 8]`.

The recipe, the speech and the acceptance rule are those of the packaged organisms. Seeds are taken in order from
`--first` until enough of an architecture are accepted. Accepted bases are written as model folders
`WORK/bases/WORLD/ARCH-SEED`, and `WORK/bases/WORLD/ARCH.json` lists every seed with its figures, rejected ones
included. With another `--first` than the default the list is `ARCH-from-SEED.json`. A step whose file exists is not run
again, so the command can be stopped and continued.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from recipes.organisms.architecture import LAYERS, NAMES, architecture
from recipes.organisms.batches import Corpus
from recipes.organisms.release import write_model
from recipes.organisms.seed_training import one_seed
from recipes.organisms.speech import build as build_speech
from recipes.organisms.speech import shipped_clips
from recipes.organisms.training import AlignRecipe, BaseRecipe
from recipes.organisms.world import WORLDS

FIRST_SEED = 100  # lower seeds belong to the packaged organisms and to earlier recipes


def train_bases(corpus: Corpus, work: Path, folder: Path, seeds: range, wanted: int) -> list[dict]:
    """Train bases in the order of the seeds until `wanted` are accepted.

    Args:
        corpus: Requests and speech of the world, as the architecture reads them.
        work: Folder of the architecture's weights.
        folder: Folder that receives one model folder for each accepted base.
        seeds: Seeds to take, at most.
        wanted: Number of accepted bases at which training stops.

    Returns:
        One entry per trained seed: architecture, seed, acceptance figures, and the model folder of an accepted base.
    """
    arch = corpus.architecture
    entries: list[dict] = []
    for seed in seeds:
        start = time.process_time()
        one_seed(corpus, work, seed, BaseRecipe(**arch.BASE), {"aligned": AlignRecipe()})
        figures = json.loads((work / f"aligned-{seed}.json").read_text())
        entry = {"architecture": arch.NAME, "seed": seed, "accepted": not figures["fails"], "figures": figures}
        if entry["accepted"]:
            target = folder / f"{arch.NAME}-{seed}"
            if not (target / "config.json").is_file():
                part = target.with_name(target.name + ".part")
                write_model(corpus, work / f"aligned-{seed}.safetensors", part)
                part.rename(target)
            entry["folder"] = target.name
        entries.append(entry)
        print(f"{arch.NAME} {seed}: {'accepted' if entry['accepted'] else figures['fails']}, "
              f"{time.process_time() - start:.0f} CPU seconds", flush=True)  # fmt: skip
        if sum(entry["accepted"] for entry in entries) == wanted:
            break
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.organisms.bases",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--layers", type=int, default=LAYERS, help="layers of the decoder, such as 8")
    parser.add_argument("--world", choices=WORLDS, default="shipped")
    parser.add_argument("--wanted", type=int, default=12, help="accepted bases of each architecture")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="first seed")
    parser.add_argument("--most", type=int, default=40, help="seeds to try at most, of each architecture")
    parser.add_argument("--work", type=Path, default=Path("out/organisms"))
    parser.add_argument(
        "--data", type=Path, default=Path("src/undersong/data/organism"), help="clips that ship are kept"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = WORLDS[arguments.world]
    folder = arguments.work / "bases" / world.name
    folder.mkdir(parents=True, exist_ok=True)
    speech = arguments.work / f"{world.name}.npz"
    if not speech.is_file():
        build_speech(world, speech, shipped_clips(arguments.data) if world.name == "shipped" else {})
    for arch in (architecture(name, arguments.layers) for name in arguments.arch):
        name = arch.NAME
        work = arguments.work / name / ("" if world.name == "shipped" else world.name)
        work.mkdir(parents=True, exist_ok=True)
        seeds = range(arguments.first, arguments.first + arguments.most)
        corpus = Corpus(world, arguments.work, arch)
        entries = train_bases(corpus, work, folder, seeds, arguments.wanted)
        listed = name if arguments.first == FIRST_SEED else f"{name}-from-{arguments.first}"
        (folder / f"{listed}.json").write_text(json.dumps(entries, indent=1) + "\n")
        accepted = sum(entry["accepted"] for entry in entries)
        if accepted < arguments.wanted:
            raise SystemExit(
                f"{accepted} of {len(entries)} {name} bases were accepted and {arguments.wanted} are wanted; "
                "raise --most."
            )


if __name__ == "__main__":
    main()
