"""Does Audio Flamingo 3's own projector hear?  An experiment beside the recipe: every way under one LoRA budget.

    python -m experiments.mini.projectors --work WORK --front WORK/front-1-3600-0/front.safetensors --whisper … --smollm …

WORK is a folder of the recipe whose front stage is done.  Each way is a front end and a fresh LoRA that learns to repeat
what was said, all from the same pairs in the same order; where a way says so, its projector (and the tower's top layers)
learns from the same loss, the language model's.  Then the held-out development sentences are repeated.  Resumable way by
way; a table goes to WORK/figures, all else to WORK/plain-FRONT-STEPS-SEED.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch

from experiments.mini.distillation import DistilRecipe, distil, plain_front
from experiments.mini.joint_training import REFERENCE, Bench, JointRecipe, Way, try_way
from recipes.mini.decoder_training import SHORT
from recipes.mini.parts import DTYPES
from recipes.mini.weights import Base, load_front
from recipes.mini.work_files import read_figures, write_figures
from undersong.statistics.bootstrap import cluster_bootstrap_weights, percentile_interval
from undersong.store.atomic import write_atomic
from undersong.types import UndersongError

WAYS = (
    REFERENCE, Way("distilled", False), Way("distilled", True), Way("spelling", True), Way("read", True),
)  # fmt: skip


def rate(bench: Bench, what: str, found: dict[str, Any], less: dict[str, Any] | None = None) -> dict[str, Any]:
    """`errors` or `right` a word, or what a way has more of them than another on the same sentences; 95 % over
    sentences."""
    words = np.array(found["words"])
    counted = np.array(found[what]) - (0 if less is None else np.array(less[what]))
    sentences = [sample.cluster for sample in bench.held]
    drawn = np.array([(w @ counted) / (w @ words) for w in cluster_bootstrap_weights(sentences, 1000, 0)])
    made = percentile_interval(counted.sum() / words.sum(), drawn, len(set(sentences)))
    return {name: None if value is None else round(float(value), 4) for name, value in asdict(made).items()}


def run(work: Path, base: Base, front: Path, asked: Any, recipe: JointRecipe, distilling: DistilRecipe, most: int) -> dict[str, Any]:  # fmt: skip
    """The table of all ways asked for, in WORK/figures."""
    name = f"plain-{front.parent.name}-{recipe.steps}-{recipe.seed}"
    bench = Bench(work, work / name, base, front, asked, recipe, most)
    figures = read_figures(work).get(name, {}) | {"recipe": asdict(recipe), "sentences": len(bench.held)}
    distilled = work / name / "distilled.safetensors"
    if not distilled.is_file():
        rows = [i for i, c in enumerate(bench.clips) if c["split"] == "train" and c["seconds"] <= SHORT]
        rows = [rows[i] for i in np.random.default_rng([recipe.seed, 8]).permutation(len(rows))]
        figures["distilled"] = distil(base, front, rows, bench.rows(bench.asked), bench.states, distilling, distilled)
        write_figures(work, name, figures)
    begins = {
        "read": lambda: load_front(base, front),
        "distilled": lambda: load_front(base, distilled),
        "spelling": lambda: plain_front(base, front),
    }
    found: dict[str, Any] = {}
    for way in [way for way in WAYS if way.name in asked.ways]:
        kept = work / name / f"{way.name}.json"
        if not kept.is_file():
            write_atomic(kept, json.dumps(try_way(bench, way, begins[way.begins]())).encode())
        found[way.name] = json.loads(kept.read_text(encoding="utf-8"))
    read = found.get(REFERENCE.name)
    figures["ways"] = {
        key: {
            "repeat_wer": rate(bench, "errors", row),
            "words_right": rate(bench, "right", row),
            "wer_more_than_read": rate(bench, "errors", row, read) if read else None,
            "right_more_than_read": rate(bench, "right", row, read) if read else None,
            "loss_last": round(float(np.mean(row["losses"][-20:])), 3),
            "cpu_seconds": row["cpu_seconds"],
        }
        for key, row in found.items()
    }
    write_figures(work, name, figures)
    return figures


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--work", type=Path, default=Path("out/mini"))
    made.add_argument("--front", type=Path, required=True, help="front.safetensors of a trained front end")
    made.add_argument("--whisper", default="openai/whisper-tiny.en", help="hub id or folder")
    made.add_argument("--smollm", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="hub id or folder")
    made.add_argument("--steps", type=int, default=JointRecipe.steps)
    made.add_argument("--distil-steps", type=int, default=DistilRecipe.steps)
    made.add_argument("--sentences", type=int, default=50, help="held-out questions, and as many instructions")
    made.add_argument("--ways", nargs="+", choices=[w.name for w in WAYS], default=[w.name for w in WAYS])
    made.add_argument("--dtype", choices=DTYPES, default="auto", help="of the decoder; the front end is in float32")
    made.add_argument("--seed", type=int, default=0)
    made.set_defaults(device="cpu")
    return made


def main() -> None:
    asked = parser().parse_args()
    torch.set_num_threads(1)
    recipe = JointRecipe(steps=asked.steps, seed=asked.seed)
    distilling = DistilRecipe(steps=asked.distil_steps, seed=asked.seed)
    base = Base(asked.whisper, asked.smollm)
    figures = run(asked.work.resolve(), base, asked.front.resolve(), asked, recipe, distilling, asked.sentences)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    try:
        main()
    except UndersongError as error:
        sys.exit(f"experiments/mini/projectors.py: {error}")
