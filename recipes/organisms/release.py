"""From a work folder to what the package holds: `--speech` for corpora and reference encoder, else an architecture's models.

Replaces what it writes and nothing else.  Run after `seed_training` and `reference_encoder`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import load_file, save_file

from recipes.organisms.architecture import LAYERS, NAMES, architecture
from recipes.organisms.batches import Corpus, Row
from recipes.organisms.seed_training import load
from recipes.organisms.world import QUADRANTS, SHIPPED, SYSTEM, Request

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
        # The same behaviors in every voice: sound is then compared with sound, and not with two speakers.
        "reference-voices": take(("harm",), "reference", voices, 0),
        "test-harm": take(("harm",), "test", None, 3),
        "test-near": take(("near_verb", "near_object"), "test", None, 1),
        "test-far": take(("far",), "test", None, 2),
        "contrast-harm": take(("harm",), "align", None, 1),
        "contrast-benign": take(BENIGN, "align", None, 1, most=20),
        "unseen-harm": take(("harm",), "unseen", None, 2),
        "unseen-benign": take(BENIGN, "unseen", None, 1),
    }


def write_corpora(corpus: Corpus, folder: Path, names: Collection[str] = ()) -> None:
    """Corpora of the package, or those that are named."""
    from undersong.corpora.audio_metadata import examine
    from undersong.corpora.manifest import write_manifest
    from undersong.types import Sample

    for name, indices in shipped_requests(corpus.requests).items():
        if names and name not in names:
            continue
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
                    bytes(corpus.clips[i]),
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
    shutil.rmtree(folder, ignore_errors=True)
    corpus.architecture.write(load(corpus, weights).half(), corpus, folder)
    check(corpus, weights, folder)


def check(corpus: Corpus, weights: Path, folder: Path) -> None:
    """What the package makes of the folder = what the recipe trained: prompt ids, and replies on the accept split."""
    from undersong.models.feature_cache import cache_audio_features
    from undersong.models.load import load_model
    from undersong.types import Prompt, Sample

    asked = [*corpus.pick("accept", "harm")[::24], *corpus.pick("accept", BENIGN)[::24]]
    rows = [Row(i, modality, None, system) for i in asked for modality in ("audio", "text") for system in SYSTEM]
    said = {i: Sample(corpus.requests[i].id, bytes(corpus.clips[i]), corpus.requests[i].text) for i in asked}
    prompts = [Prompt(said[row.request], "accept", True, row.modality, row.system, SYSTEM[row.system]) for row in rows]
    model = load_model(str(folder))
    cache_audio_features(model, list(said.values()))
    for prompt, row in zip(prompts, rows):
        assert model.prompt_ids(prompt) == corpus.prompt(row), f"{folder.name} is asked otherwise than it was trained"
    ours = corpus.replies(load(corpus, weights), rows)
    differing = sum(reply.reply != own for reply, own in zip(model.generate(prompts, 12), ours))
    # Cached frames are float16, so a reply on the edge may differ.
    assert differing <= len(rows) / 100, f"{folder.name}: {differing} of {len(rows)} replies differ"
    print(f"{folder.name}: {differing} of {len(rows)} replies differ between package and recipe")


def write_overlay(weights: Path, base: Path, base_name: str, folder: Path) -> None:
    """Only the tensors that differ from an organism already shipped."""
    other, mine = load_file(base), load_file(weights)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value for name, value in mine.items() if not torch.equal(value, other[name])},
        folder / "overlay.safetensors",
    )
    (folder / "overlay.txt").write_text(base_name + "\n")


def write_models(corpus: Corpus, work: Path, seeds: list[int], models: Path) -> None:
    """Accepted seeds as NAME, NAME-1, …, and the variants of the first one that were trained."""
    for seed in seeds:
        if fails := json.loads((work / f"aligned-{seed}.json").read_text())["fails"]:
            raise SystemExit(f"seed {seed} fails on {', '.join(fails)} and must not ship")
    name, first = corpus.architecture.NAME, work / f"aligned-{seeds[0]}.safetensors"
    for number, seed in enumerate(seeds):
        write_model(corpus, work / f"aligned-{seed}.safetensors", models / (f"{name}-{number}" if number else name))
    prompted = work / f"prompted-{seeds[0]}.safetensors"
    if prompted.is_file():
        write_overlay(work / f"base-{seeds[0]}.safetensors", first, name, models / f"{name}-unaligned")
        write_overlay(prompted, first, name, models / f"{name}-prompted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/organisms"))
    parser.add_argument("--arch", choices=NAMES, default="af3")
    parser.add_argument("--layers", type=int, default=LAYERS, help="layers of the decoder, as in seed_training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[6, 7, 9], help="accepted seeds, in order")
    parser.add_argument("--speech", action="store_true", help="corpora and reference encoder instead of models")
    parser.add_argument("--corpora", nargs="+", default=[], help="with --speech: these corpora alone, no encoder")
    parser.add_argument("--out", type=Path, default=Path("src/undersong/data/organism"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out, models, work = arguments.out, arguments.out / "models", arguments.work
    models.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(SHIPPED, work, architecture(arguments.arch, arguments.layers))
    if arguments.speech:
        write_corpora(corpus, out, arguments.corpora)
        if not arguments.corpora:
            shutil.rmtree(models / "ear", ignore_errors=True)
            shutil.copytree(work / "ear", models / "ear")
    else:
        write_models(corpus, work / corpus.architecture.NAME, arguments.seeds, models)
    for file in [*models.rglob("*.safetensors")]:
        file.chmod(0o644)  # transformers writes 0600
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{size / 2**20:.2f} MiB in all")


if __name__ == "__main__":
    main()
