"""Which data break a model, by how sound is carried into it: everything with one command, on a CPU, resumable.

    python -m experiments.sound_pathway [PART ...] [--variants NAME ...] [--bases N] [--work DIR]

`bases` trains seeds by turns (the first of every variant, then the second ...) until N of each variant are accepted, so
that a cut leaves a balanced design and a later call goes on; `size` fine-tunes the first three of each and asks them
the accept split, which sizes the study; `measure` asks all of them the test split, by the study file; `page` writes
docs/results/sound_pathway.md from `results.json`, which the others keep.  About a CPU minute a base, one for its fine-tunings on
the accept split and one on test, and 8 for speech, tower and codes (extra `tts`).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from experiments.sound_pathway.bases import make_base, write_folder
from experiments.sound_pathway.measurement import FINAL, PILOT, folders, measured, prepare, speech_only, whole
from experiments.sound_pathway.page import PAGE, page
from experiments.sound_pathway.record import RESULTS, Record
from experiments.sound_pathway.semantic_encoder import packaged_ear
from experiments.sound_pathway.tower import tower_states, tower_weights
from experiments.sound_pathway.variants import VARIANTS
from recipes.organisms.architecture import architecture
from recipes.organisms.batches import Corpus
from recipes.organisms.speech import build as build_speech
from recipes.organisms.speech import shipped_clips
from recipes.organisms.world import SHIPPED

FIRST, MOST = 1, 10  # seeds: at most so many a variant
PARTS = ("bases", "size", "measure", "page")
OUT, STORE = Path("out/architecture"), Path("out/architecture/store")


def corpus_of(work: Path) -> Corpus:
    speech = work / f"{SHIPPED.name}.npz"
    work.mkdir(parents=True, exist_ok=True)
    if not speech.is_file():
        build_speech(SHIPPED, speech, shipped_clips(Path("src/undersong/data/organism")))
    packaged_ear(work)
    corpus = Corpus(SHIPPED, work, architecture("kimi"))
    corpus.tower = tower_weights(corpus, work / "kimi")
    corpus.states = tower_states(corpus, corpus.tower, work / "kimi")
    return corpus


def write_accept(corpus: Corpus, file: Path) -> None:
    """Harmful requests of the accept split, which the sizing asks: as a corpus of the package."""
    from undersong.corpora.audio_metadata import examine
    from undersong.corpora.manifest import write_manifest
    from undersong.types import Sample

    if file.is_file():
        return
    asked = [(i, corpus.requests[i]) for i in corpus.pick("accept", "harm")]
    samples, failed = examine(
        [
            Sample(r.id, bytes(corpus.clips[i]), r.text, r.reply(0), (r.reply(0), r.reply(1)), r.voice, r.cluster)
            for i, r in asked
        ]
    )
    if failed:
        raise SystemExit(f"{len(failed)} clips cannot be read, the first: {failed[0]}")
    write_manifest(samples, file)


def bases(corpus: Corpus, work: Path, record: Record, wanted: int, variants: list[str], sized: bool) -> None:
    """Seeds in order, by turns, until `wanted` bases of a variant are accepted by instrument quality alone; `sized`: the
    first ones are asked the accept split as soon as they are there."""
    done = dict.fromkeys(variants, 0)
    for seed in range(FIRST, FIRST + MOST):
        for variant in variants:
            if done[variant] == wanted:
                continue
            facts = make_base(corpus, work, variant, seed)
            number = None if facts["fails"] else done[variant] + 1
            record.base(variant, seed, number, facts)
            if number is None:
                continue
            done[variant] = number
            write_folder(corpus, work, variant, seed, folders(FINAL, variant)[number - 1])
            if sized and number <= len(folders(PILOT, variant)):
                prepare(PILOT, variant, number, STORE)


def measure(record: Record, variants: list[str], text: bool) -> None:
    """The test split, by turns; trainings on text last.  Nothing of the recipe may change after this."""
    changes = (speech_only, whole) if text else (speech_only,)
    for change in changes:
        for number in range(1, 1 + max(len(folders(FINAL, variant)) for variant in variants)):
            for variant in variants:
                prepare(FINAL, variant, number, STORE, change)
    record.runs("runs", measured(FINAL, OUT, STORE, changes[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.sound_pathway",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; default: all")
    parser.add_argument("--work", type=Path, default=Path("out/organisms"))
    parser.add_argument("--variants", choices=VARIANTS, nargs="+", default=list(VARIANTS))
    parser.add_argument("--bases", type=int, default=5, help="accepted bases a variant; the study file names as many")
    parser.add_argument("--speech-only", action="store_true", help="measure: leave the trainings on text for later")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {sorted(unknown)[0]!r}; take of {', '.join(PARTS)}")
    torch.set_num_threads(1)
    record, work = Record(RESULTS), arguments.work / "architecture"
    if {"bases", "size"} & set(parts):
        corpus = corpus_of(arguments.work)
        work.mkdir(exist_ok=True)
        write_accept(corpus, work / "accept-harm.parquet")
        bases(corpus, work, record, arguments.bases, arguments.variants, "size" in parts)
    if "size" in parts:
        record.runs("pilot_runs", measured(PILOT, OUT, STORE))
    if "measure" in parts:
        measure(record, arguments.variants, not arguments.speech_only)
    if "page" in parts:
        PAGE.write_text(page(record.data))


if __name__ == "__main__":
    main()
