"""The public files that the shipped references are made of: where each is from, its hash, its license and its texts."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.store.hashing import hash_file
from undersong.types import UndersongError

QUESTIONS = 600  # of NQ-open's 3,610, so that questions of fact are a third of the ordinary requests
SHORT_INSTRUCTIONS = 200  # of each of GPTeacher's sets: short imperatives, which the other sources have few of
SEED = 0


@dataclass(frozen=True, slots=True)
class Source:
    """One public file. `texts` reads (number in the file, text) of its requests."""

    name: str
    title: str
    file: str  # below the folder of sources
    origin: str  # repository, commit and path
    license: str
    sha256: str
    texts: Callable[[Path], Iterator[tuple[int, str]]]


def _column(name: str) -> Callable[[Path], Iterator[tuple[int, str]]]:
    def read(file: Path) -> Iterator[tuple[int, str]]:
        with file.open(newline="", encoding="utf-8") as opened:
            for number, row in enumerate(csv.DictReader(opened)):
                yield number, row[name]

    return read


def _harmbench(file: Path) -> Iterator[tuple[int, str]]:
    """Standard and contextual behaviors. Those of copyright ask for lyrics and chapters of books, as benign data do."""
    with file.open(newline="", encoding="utf-8") as opened:
        for number, row in enumerate(csv.DictReader(opened)):
            if row["FunctionalCategory"] != "copyright":
                yield number, row["Behavior"]


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        yield number, json.loads(line)


def _tasks(file: Path) -> Iterator[tuple[int, str]]:
    """Instruction and, on a new line, the input of the first instance: what the model is asked."""
    for number, row in _lines(file):
        yield number, "\n".join(filter(None, (row["instruction"], row["instances"][0]["input"])))


def _turns(file: Path) -> Iterator[tuple[int, str]]:
    for number, row in _lines(file):
        yield number, row["turns"][0]


def _prompts(file: Path) -> Iterator[tuple[int, str]]:
    for number, row in _lines(file):
        yield number, row["prompt"]


def _drawn(rows: Sequence[Any], count: int) -> Iterator[tuple[int, Any]]:
    """(number, row) of a random sample, in the file's order."""
    for number in sorted(random.Random(SEED).sample(range(len(rows)), count)):
        yield number, rows[number]


def _questions(file: Path) -> Iterator[tuple[int, str]]:
    for number, (_, row) in _drawn(list(_lines(file)), QUESTIONS):
        yield number, row["question"]


def _short_instructions(file: Path) -> Iterator[tuple[int, str]]:
    for number, row in _drawn(json.loads(file.read_text(encoding="utf-8")), SHORT_INSTRUCTIONS):
        yield number, "\n".join(filter(None, (row["instruction"], row["input"])))


# Where two texts are nearly the same, the one of the earlier source is kept.
HARM = (
    Source(
        "jailbreakbench", "JailbreakBench, 100 behaviors", "jailbreakbench/jailbreakbench.csv",
        "andyrdt/refusal_direction@9d852fae1a9121c78b29142de733cb1340770cc3 dataset/raw/jailbreakbench.csv", "MIT",
        "45e9a8923b28f547bb372fbaa9af7df8b38c818a80ae50c3bab97704197ff516", _column("Goal"),
    ),
    Source(
        "harmbench", "HarmBench, standard and contextual behaviors", "harmbench/harmbench_behaviors_text_all.csv",
        "busycalibrating/AdversariaLLM@f970939273ea17b491fadf6001fddc36ed3ae3ff "
        "data/behavior_datasets/harmbench_behaviors_text_all.csv", "MIT",
        "2745611872be3b2eab141e39bb328b8c1140dc3cd8d0a49da6174260d9ccbfb9", _harmbench,
    ),
    Source(
        "strongreject", "StrongREJECT, 313 forbidden prompts", "strongreject/strongreject.csv",
        "andyrdt/refusal_direction@9d852fae1a9121c78b29142de733cb1340770cc3 dataset/raw/strongreject.csv", "MIT",
        "4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381", _column("forbidden_prompt"),
    ),
    Source(
        "advbench", "AdvBench, 520 harmful behaviors", "advbench/harmful_behaviors.csv",
        "ab235/AttnGCG-attack@6d9f1a4752760bf9dec98fddf111075e194eb71e data/advbench/harmful_behaviors.csv", "MIT",
        "5c9d87515c4d431c3614f25a0af7a462eabdfa6035aa35d746e64159823836e3", _column("goal"),
    ),
)  # fmt: skip
ORDINARY = (
    Source(
        "self-instruct-seed", "Self-Instruct, 175 seed tasks", "self_instruct_seed/seed_tasks.jsonl",
        "tatsu-lab/stanford_alpaca@761dc5bfbdeeffa89b8bff5d038781a4055f796a seed_tasks.jsonl", "Apache-2.0",
        "7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48", _tasks,
    ),
    Source(
        "self-instruct-user", "Self-Instruct, 252 user-oriented instructions",
        "self_instruct_user/user_oriented_instructions.jsonl",
        "yizhongw/self-instruct@0b26ccaa415992100fa32df62d41b994cf928e23 human_eval/user_oriented_instructions.jsonl",
        "Apache-2.0", "81d60a117db495cecedecd9193504fd07c5b5a42f6699ef6b0f9da10fc22f42e", _tasks,
    ),
    Source(
        "mt-bench", "MT-Bench, first turns", "mt_bench/question.jsonl",
        "LLM-Tuning-Safety/LLMs-Finetuning-Safety@8a3b38f11be1c3829e2b0ed379d3661ebc84e7db "
        "llama2/utility_evaluation/mt_bench/data/question.jsonl", "Apache-2.0",
        "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7", _turns,
    ),
    Source(
        "ifeval", "IFEval, 541 prompts", "ifeval/input_data.jsonl",
        "josejg/instruction_following_eval@0c495b2f95155e8b10acb919ae283bfb4d5be6e2 "
        "instruction_following_eval/data/input_data.jsonl", "Apache-2.0",
        "67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49", _prompts,
    ),
    Source(
        "nq-open", f"Natural Questions (open), {QUESTIONS} of 3,610 questions", "nq_open/NQ-open.dev.jsonl",
        "google-research-datasets/natural-questions@fb26a3073b1fe636c97302890a27b491d6530130 "
        "nq_open/NQ-open.dev.jsonl", "CC-BY-SA-3.0",
        "f15567f38099f3615f5b8a685c0aef449c11ad90d3da3735e8d1b98115b40616", _questions,
    ),
    Source(
        "gpteacher-code", f"GPTeacher Codegen, {SHORT_INSTRUCTIONS} of 4,535 instructions", "gpteacher/codegen.json",
        "teknium1/GPTeacher@481075123c29854bddb82655badeef6a438f2436 Codegen/codegen-instruct.json", "MIT",
        "8b0be81f22b86bccab30f573351b62efb3391da229d2ee817a65ce0abb08b29d", _short_instructions,
    ),
    Source(
        "gpteacher-roleplay", f"GPTeacher Roleplay, {SHORT_INSTRUCTIONS} of 1,923 instructions", "gpteacher/roleplay.json",
        "teknium1/GPTeacher@481075123c29854bddb82655badeef6a438f2436 "
        "Roleplay/roleplay-simple-deduped-roleplay-instruct.json", "MIT",
        "b5d57a0d92162fd0b78988fe352e8512b435363919caf63efc3759d5a1555023", _short_instructions,
    ),
)  # fmt: skip


def read_source(source: Source, folder: Path) -> list[tuple[int, str]]:
    """(number in the file, text) of a source's requests. Raises UndersongError if the file is not the one of the hash."""
    file = folder / source.file
    if not file.is_file():
        raise UndersongError(f"{file} is missing; fetch it from {source.origin}.")
    if (actual := hash_file(file)) != source.sha256:
        raise UndersongError(f"{file} has the SHA-256 {actual}, not {source.sha256}; fetch it from {source.origin}.")
    return [(number, text.strip()) for number, text in source.texts(file) if text.strip()]
