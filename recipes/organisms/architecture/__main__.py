"""Which data break a model, by how sound is carried into it: everything with one command, on a CPU, resumable.

    python recipes/organisms/architecture [pilot] [final] [page] [--work DIR] [--bases N]

`pilot` trains three bases a variant and sizes the study on them; `final` trains bases by seed until N of each variant are
accepted and measures them; `page` writes docs/architecture.md from `results.json`, which the other two keep.  Bases are
made by turns (the first of every variant, then the second …), so that a cut leaves a balanced design, and a later call
goes on.  About 3 CPU minutes a base, its fine-tunings included, and 5 for the speech (extra `tts`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch
from arch import architecture
from bases import make_base, write_folder
from batches import Corpus
from measure import FINAL, PILOT, folders, measured, prepare
from page import PAGE, page
from record import Record
from semantic_ear import packaged_ear
from speech import build as build_speech
from speech import shipped_clips
from variants import VARIANTS
from world import SHIPPED

PILOTS, FIRST_PILOT, FIRST_FINAL, MOST = 3, 101, 1, 10  # at most so many seeds a variant
OUT, STORE = Path("out/architecture"), Path("out/architecture/store")


def corpus_of(work: Path) -> Corpus:
    speech = work / f"{SHIPPED.name}.npz"
    work.mkdir(parents=True, exist_ok=True)
    if not speech.is_file():
        build_speech(SHIPPED, speech, shipped_clips(Path("src/undersong/data/organism")))
    packaged_ear(work)
    return Corpus(SHIPPED, work, architecture("kimi"))


def write_accept(corpus: Corpus, file: Path) -> None:
    """Harmful requests of the accept split, which pilots are asked: as a corpus of the package."""
    from undersong.corpora import examine, write_manifest
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


def pilot(corpus: Corpus, work: Path, record: Record) -> None:
    """Three bases a variant, accepted or not, measured on the accept split."""
    write_accept(corpus, work / "accept-harm.parquet")
    for number in range(PILOTS):
        for variant in VARIANTS:
            seed, folder = FIRST_PILOT + number, folders(PILOT, variant)[number]
            record.base("pilots", variant, seed, number + 1, make_base(corpus, work, variant, seed))
            write_folder(corpus, work, variant, seed, folder)
            prepare(PILOT, variant, folder, STORE)
    record.runs("pilot_runs", measured(PILOT, OUT, STORE))


def final(corpus: Corpus, work: Path, record: Record, wanted: int) -> None:
    """Seeds in order, by turns, until `wanted` bases of a variant are accepted by instrument quality alone."""
    done = dict.fromkeys(VARIANTS, 0)
    for seed in range(FIRST_FINAL, FIRST_FINAL + MOST):
        for variant in VARIANTS:
            if done[variant] == wanted:
                continue
            facts = make_base(corpus, work, variant, seed)
            number = None if facts["fails"] else done[variant] + 1
            record.base("bases", variant, seed, number, facts)
            if number is not None:
                done[variant] = number
                write_folder(corpus, work, variant, seed, folders(FINAL, variant)[number - 1])


def measure_final(record: Record) -> None:
    """The test split, by turns; nothing of the recipe may change after this."""
    for number in range(max(len(folders(FINAL, variant)) for variant in VARIANTS)):
        for variant in VARIANTS:
            folder = folders(FINAL, variant)[number]
            if (folder / "config.json").is_file():
                prepare(FINAL, variant, folder, STORE)
    record.runs("runs", measured(FINAL, OUT, STORE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["pilot", "final", "measure", "page"])
    parser.add_argument("--work", type=Path, default=Path("out/organisms"))
    parser.add_argument("--bases", type=int, default=5, help="accepted bases a variant; the study file names as many")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    record, work = Record(Path(__file__).parent / "results.json"), arguments.work / "architecture"
    start = time.process_time()
    if set(arguments.parts) & {"pilot", "final"}:
        corpus = corpus_of(arguments.work)
        work.mkdir(exist_ok=True)
        if "pilot" in arguments.parts:
            pilot(corpus, work, record)
        if "final" in arguments.parts:
            final(corpus, work, record, arguments.bases)
    if "measure" in arguments.parts:
        measure_final(record)
    if "page" in arguments.parts:
        PAGE.write_text(page(record.data))
    print(json.dumps({"cpu_seconds": round(time.process_time() - start)}))


if __name__ == "__main__":
    main()
