"""Which sentences the model was taught an answer to, and what the language model itself answers to the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipes.mini import answers as mini_answers
from recipes.mini.parts import RAW, write_parts
from recipes.mini.sizes import LISTENING
from recipes.mini.weights import Base
from recipes.mini.work_files import read_figures, read_lines, write_lines
from undersong.models.audio_lm import AudioModel
from undersong.models.load import load_model
from undersong.models.load_options import LoadOptions
from undersong.models.mini.assemble import CARD_FILE, FRONT_END_FILE, assemble_mini
from undersong.types import UndersongError

POOL = ("nq", "alpaca", "self")  # what the language model wrote for the front end's training is no part of it


def untaught(work: Path, parts: Path) -> list[dict[str, Any]]:
    """Sentences that may be in the pool: of the training split, and answered in no training of the model, neither of one
    in this folder nor of that of the audited parts.

    Written down, because a later training would change what was drawn.  UndersongError where it is not known what the
    parts were taught, or they were taught what was drawn before.
    """
    file, own = work / "study" / "sentences.jsonl", taught_to(parts, work)
    if not file.is_file():
        taught = own.union(*(_answered(answers) for answers in work.glob("answers-*.jsonl")))
        texts = [text for text in read_lines(work / "texts.jsonl") if text["kind"] in POOL and text["split"] == "train"]
        write_lines(file, [text for text in texts if text["id"] not in taught])
    kept = read_lines(file)
    if known := sum(text["id"] in own for text in kept):
        raise UndersongError(f"{parts} were taught {known} sentences of {file}; remove {file.parent} to draw others.")
    return kept


def taught_to(parts: Path, work: Path) -> set[str]:
    """Sentences to which a training of the parts taught an answer: those that were answered in WORK and, where the parts
    were not learned there, all that the recipe draws for their seed.  UndersongError where the parts are of other sentences."""
    if not (parts / CARD_FILE).is_file():
        return set()
    card = json.loads((parts / CARD_FILE).read_text(encoding="utf-8"))
    seed, known = card["seed"], read_figures(work).get("texts", {})
    # Not by the files of the public sets: the same sentences may lie in files that are written otherwise.
    told = {name: value for name, value in card["stages"]["texts"].items() if name != "sets"}
    if parts.parent != work and any(known.get(name) != value for name, value in told.items()):
        raise UndersongError(
            f"{parts} were learned from other sentences than {work} holds, so it is not known which of them they were "
            "taught; give --parts that were learned there, or make the texts of the same sets and seed."
        )
    answers = work / f"answers-{seed}.jsonl"
    here = _answered(answers) if answers.is_file() else set()
    if here and parts.parent == work:
        return here
    asked = card["stages"].get(f"answers-{seed}", {}).get("asked", LISTENING.answers)
    return here | {text["id"] for text in mini_answers.drawn(read_lines(work / "texts.jsonl"), asked, seed)}


def _answered(answers: Path) -> set[str]:
    return {row["id"] for row in read_lines(answers) if row["answer"]}


def raw_model(work: Path, parts: Path, whisper: str, smollm: str, loading: LoadOptions) -> AudioModel:
    """The language model behind the front end of `parts`, taught nothing but to hear; kept in `WORK/study/raw`."""
    folder = work / "study" / "raw"
    if not folder.is_dir():
        front = parts / FRONT_END_FILE
        raw = write_parts(work / "study" / "parts-raw", Base(whisper, smollm), front, {}, [RAW])
        assemble_mini(RAW, whisper, smollm, raw, folder)
    return load_model(str(folder), loading)
