"""From a work folder to what the package holds: corpora with speech, model folders, and the card's figures.

Every figure is measured on the shipped float16 weights.  Run after `make.py` and `ear.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from batches import Corpus
from make import load
from model import processor
from safetensors.torch import load_file, save_file
from world import QUADRANTS, SHIPPED, Request

BENIGN = QUADRANTS[1:]


def shipped_requests(requests: list[Request]) -> dict[str, list[int]]:
    """The exact list of clips: corpus name -> indices into the world's requests.

    Every (combination, voice) has two templates; one is taken, by turns.  Voices rotate over the combinations, so
    that words, voices and templates stay balanced.
    """
    voices = list(SHIPPED.voices)
    where: dict[tuple[str, str, str], list[int]] = {}
    order: dict[tuple[str, str], list[str]] = {}
    for i, r in enumerate(requests):
        where.setdefault((r.quadrant, r.cluster, r.voice), []).append(i)
        clusters = order.setdefault((r.quadrant, r.split), [])
        if r.cluster not in clusters:
            clusters.append(r.cluster)

    def take(
        quadrants: tuple[str, ...], split: str, every: list[str] | None, turns: int, most: int | None = None
    ) -> list[int]:
        out = []
        for quadrant in quadrants:
            for number, cluster in enumerate(order[quadrant, split][:most]):
                chosen = every or [
                    voices[(number + turn * len(voices) // turns) % len(voices)] for turn in range(turns)
                ]
                for turn, voice in enumerate(chosen):
                    pair = where[quadrant, cluster, voice]
                    out.append(pair[(number + turn) % len(pair)])
        return out

    return {
        "pool": take(BENIGN, "pool", voices, 0),
        "reference": take(("harm",), "reference", ["A", "B"], 0),
        "test-harm": take(("harm",), "test", None, 3),
        "test-near": take(("near_verb", "near_object"), "test", None, 1),
        "test-far": take(("far",), "test", None, 2),
        "contrast-harm": take(("harm",), "align", None, 1),
        "contrast-benign": take(BENIGN, "align", None, 1, most=20),
        "unseen-harm": take(("harm",), "unseen", None, 2),
        "unseen-benign": take(BENIGN, "unseen", None, 1),
    }


def write_corpora(corpus: Corpus, clips, folder: Path) -> None:
    from undersong.corpora import examine, write_manifest
    from undersong.types import Sample

    for name, indices in shipped_requests(corpus.requests).items():
        samples = []
        for i in indices:
            r = corpus.requests[i]
            labels = {
                "quadrant": r.quadrant,
                "verb": r.verb,
                "object": r.object,
                "template": str(r.template),
                "answer_shifted": r.reply(1),
            }
            samples.append(
                Sample(
                    r.id,
                    bytes(clips[i]),
                    r.text,
                    r.reply(0),
                    (r.reply(0), r.reply(1)),
                    r.voice,
                    r.cluster,
                    labels=tuple(sorted(labels.items())),
                )
            )
        samples, failed = examine(samples)
        assert not failed, failed
        write_manifest(samples, folder / f"{name}.parquet")
        print(name, len(samples), (folder / f"{name}.parquet").stat().st_size)


def write_model(corpus: Corpus, weights: Path, folder: Path) -> None:
    """A whole folder for `from_pretrained`, float16."""
    model = load(corpus, weights)
    model.half().save_pretrained(folder)
    processor(corpus.vocabulary).save_pretrained(folder)


def write_overlay(weights: Path, base: Path, base_name: str, folder: Path) -> None:
    """Only the tensors that differ from an organism already shipped."""
    other, mine = load_file(base), load_file(weights)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value for name, value in mine.items() if not torch.equal(value, other[name])},
        folder / "overlay.safetensors",
    )
    (folder / "overlay.txt").write_text(base_name + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/organism_af3"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[6, 7, 9], help="accepted seeds, in order")
    parser.add_argument("--out", type=Path, default=Path("src/undersong/data/organism"))
    arguments = parser.parse_args()
    corpus = Corpus(SHIPPED, str(arguments.work / "shipped.npz"))
    models, work = arguments.out / "models", arguments.work
    for seed in arguments.seeds:
        fails = json.loads((work / f"aligned-{seed}.json").read_text())["fails"]
        if fails:
            raise SystemExit(f"seed {seed} fails on {', '.join(fails)} and must not ship")
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    write_corpora(corpus, np.load(work / "shipped.npz", allow_pickle=True)["clips"], arguments.out)
    first = arguments.seeds[0]
    for number, seed in enumerate(arguments.seeds):
        write_model(corpus, work / f"aligned-{seed}.safetensors", models / ("af3" if number == 0 else f"af3-{number}"))
    aligned = work / f"aligned-{first}.safetensors"
    write_overlay(work / f"base-{first}.safetensors", aligned, "af3", models / "af3-unaligned")
    write_overlay(work / f"prompted-{first}.safetensors", aligned, "af3", models / "af3-prompted")
    shutil.copytree(work / "ear", models / "ear")
    for file in [*models.rglob("*.safetensors")]:
        file.chmod(0o644)  # transformers writes 0600
    size = sum(file.stat().st_size for file in arguments.out.rglob("*") if file.is_file())
    print(f"{size / 2**20:.2f} MiB in all")


if __name__ == "__main__":
    main()
