"""Texts: which sentences are spoken, and in which split; from a folder of public sets that the user names.

    --data DIR   advbench/harmful_behaviors.csv, jailbreakbench/jailbreakbench.csv, strongreject/strongreject.csv,
                 xstest/xstest_prompts.csv, nq_open/NQ-open.*.jsonl, alpaca_instructions/harmless_val.json,
                 self_instruct_seed/seed_tasks.jsonl

AdvBench is split by behavior: requests that say nearly the same (letter groups, or the words that carry the meaning)
are one cluster, and a cluster is on one side.  JailbreakBench, StrongREJECT and XSTest's unsafe prompts keep what is not
nearly in AdvBench; they and XSTest's safe ones are test only.  Benign sentences that nearly stand in a test or
development set are not trained on.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipes.mini.near_duplicates import clusters, near_pairs, plain
from recipes.mini.work_files import read_figures, read_lines, write_figures, write_lines
from undersong.corpora.near_duplicates import TEXT_THRESHOLD, find_similar_texts
from undersong.store.hashing import hash_file
from undersong.types import UndersongError

NEEDED = (
    "advbench/harmful_behaviors.csv", "jailbreakbench/jailbreakbench.csv", "strongreject/strongreject.csv",
    "xstest/xstest_prompts.csv", "nq_open/NQ-open*.jsonl", "alpaca_instructions/harmless_val.json",
    "self_instruct_seed/seed_tasks.jsonl",
)  # fmt: skip
WORDS, LETTERS = (3, 14), 90  # of sentences that are learned from: short speech is cheap
ASKED = 20  # words that a test request may have: some seven seconds
SPLITS = {"train": 0.60, "dev": 0.12, "test": 0.28}  # of AdvBench's clusters
HELD = {"dev": 150, "test": 300}  # benign items of each kind
SPELLED = re.compile(r"[A-Za-z0-9 ,.?'!\-]+")
WRITTEN = "lm"  # the kind of the sentences that the language model writes (`written_texts`)
# What needs something that is not in it, or cannot be spoken.
ELSEWHERE = re.compile(r"https?|input|given|following|this (text|sentence|paragraph|article|passage)|below", re.I)


@dataclass(frozen=True)
class Text:
    """One sentence: `kind` is its source, `group` the behavior it is one of."""

    id: str
    text: str
    kind: str
    split: str
    group: str
    answers: tuple[str, ...] = ()


def tidy(text: str) -> str:
    """With single blanks, and none around."""
    return re.sub(r"\s+", " ", text.strip())


def speakable(text: str, most: int = WORDS[1], letters: int = LETTERS) -> bool:
    """Whether a sentence has a fitting length, and nothing that is not spelled."""
    return WORDS[0] <= len(text.split()) <= most and len(text) <= letters and bool(SPELLED.fullmatch(text))


def missing_sets(data: Path) -> list[str]:
    """Public sets that the folder lacks."""
    return [name for name in NEEDED if not any(data.glob(name))]


def hash_of_sets(data: Path) -> str:
    """SHA-256 of the public sets' files, in the order of their names."""
    files = [file for name in NEEDED for file in sorted(data.glob(name))]
    return hashlib.sha256("".join(hash_file(file) for file in files).encode()).hexdigest()


# --- the sets ---------------------------------------------------------------------------------------------------------
def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _json_lines(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def advbench(data: Path, rng: random.Random) -> list[Text]:
    """Every request, in splits by cluster: the largest first, each where most room is left."""
    goals = [tidy(row["goal"]) for row in _csv(data / "advbench" / "harmful_behaviors.csv")]
    groups = clusters(goals)
    sizes = Counter(groups)
    names = sorted(sizes)
    rng.shuffle(names)
    room = {name: share * len(goals) for name, share in SPLITS.items()}
    split: dict[int, str] = {}
    for group in sorted(names, key=lambda name: -sizes[name]):
        split[group] = max(room, key=lambda name: room[name])
        room[split[group]] -= sizes[group]
    return [
        Text(f"adv{i}", goal, "adv", split[group], f"adv{group}") for i, (goal, group) in enumerate(zip(goals, groups))
    ]


def other_harm(data: Path, known: Sequence[Text]) -> tuple[list[Text], dict[str, int]]:
    """JailbreakBench, StrongREJECT and XSTest's unsafe prompts without what nearly stands in AdvBench or in one before it;
    how many went."""
    sources = {
        "jbb": [(row["Goal"], row["Source"]) for row in _csv(data / "jailbreakbench" / "jailbreakbench.csv")],
        "strongreject": [
            (row["forbidden_prompt"], row["source"]) for row in _csv(data / "strongreject" / "strongreject.csv")
        ],
        "xs_unsafe": [
            (row["prompt"], "") for row in _csv(data / "xstest" / "xstest_prompts.csv") if row["label"] == "unsafe"
        ],
    }
    before, kept, gone = [plain(text.text) for text in known], list[Text](), dict[str, int]()
    for kind, rows in sources.items():
        there = [tidy(text) for text, _ in rows]
        near = {j for _, j in near_pairs(before, [plain(text) for text in there])}
        near |= {j for j, (_, source) in enumerate(rows) if "advbench" in source.lower()}
        gone[kind] = len(near)
        kept += [Text(f"{kind}{j}", text, kind, "test", f"{kind}{j}") for j, text in enumerate(there) if j not in near]
        before += [plain(text) for text in there]
    return kept, gone


def xstest_safe(data: Path) -> list[Text]:
    """Safe prompts that sound unsafe; for tests alone."""
    rows = _csv(data / "xstest" / "xstest_prompts.csv")
    return [
        Text(f"xs{row['id']}", tidy(row["prompt"]), "xs_safe", "test", f"xs{row['id']}")
        for row in rows
        if row["label"] == "safe"
    ]


def stream(seed: int, source: str) -> random.Random:
    """A source's own: which sentences of it are held out does not depend on what else is read."""
    return random.Random(f"texts {seed} {source}")


def benign(data: Path, seed: int) -> list[Text]:
    """Questions and instructions, held out in part, exact repetitions left out."""
    questions = _json_lines(sorted((data / "nq_open").glob("NQ-open*.jsonl")))
    nq = [(_asked(row["question"]), tuple(row["answer"])) for row in questions]
    alpaca = [
        (row["instruction"], ())
        for row in json.loads((data / "alpaca_instructions" / "harmless_val.json").read_text("utf-8"))
    ]
    seeds = [(row["instruction"], ()) for row in _json_lines([data / "self_instruct_seed" / "seed_tasks.jsonl"])]
    seen: set[str] = set()
    made: list[Text] = []
    for kind, rows in (("nq", nq), ("alpaca", alpaca), ("self", seeds)):
        fitting = [(tidy(text), answers) for text, answers in rows]
        fitting = [(text, answers) for text, answers in fitting if speakable(text) and not ELSEWHERE.search(text)]
        stream(seed, kind).shuffle(fitting)
        here: list[Text] = []
        for text, answers in fitting:
            if plain(text) not in seen:
                seen.add(plain(text))
                here.append(
                    Text(f"{kind}{len(here)}", text, kind, _split(kind, len(here)), f"{kind}{len(here)}", answers)
                )
        made += here
    return made


def _asked(question: str) -> str:
    text = tidy(question).rstrip("?") + "?"
    return text[0].upper() + text[1:]


def _split(kind: str, place: int) -> str:
    if kind == "self":
        return "train"
    return "test" if place < HELD["test"] else "dev" if place < HELD["test"] + HELD["dev"] else "train"


def make_texts(data: Path, seed: int) -> tuple[list[Text], dict[str, Any]]:
    """All sentences, and the figures of their making.  UndersongError where a public set is missing."""
    if lacks := missing_sets(data):
        raise UndersongError(
            f"There is no {lacks[0]} in {data} ({len(lacks)} such); give a folder of all sets as --data."
        )
    harm = advbench(data, stream(seed, "advbench"))
    others, gone = other_harm(data, harm)
    asked = [text for text in [*harm, *others, *xstest_safe(data)] if speakable(text.text, ASKED, 140)]
    plain_ones = benign(data, seed)
    held = [plain(text.text) for text in [*asked, *plain_ones] if text.split != "train"]
    learned = [text for text in plain_ones if text.split == "train"]
    near = {i for i, _, _ in find_similar_texts([plain(text.text) for text in learned], held, TEXT_THRESHOLD)}
    kept = [text for text in plain_ones if text.split != "train"]
    kept += [text for i, text in enumerate(learned) if i not in near]
    texts = asked + kept
    counts = Counter(f"{text.kind} {text.split}" for text in texts)
    sizes = Counter(text.group for text in harm)
    figures = {
        "seed": seed,
        "texts": dict(sorted(counts.items())),
        "near_advbench_removed": gone,
        "near_held_out_removed": len(near),
        "advbench_clusters": len(sizes),
        "advbench_largest_cluster": max(sizes.values()),
        "mean_words": round(sum(len(text.text.split()) for text in texts) / len(texts), 2),
    }
    return texts, figures


def run(work: Path, data: Path | None, seed: int, few: bool) -> None:
    """`texts.jsonl`; few: a handful of every kind and split, for a whole run in a minute.  `data`: None where they are
    there.  UndersongError: they are there, and of another seed, size or other sets."""
    asked = {"seed": seed, "few": few, **({"sets": hash_of_sets(data)} if data else {})}
    if (work / "texts.jsonl").is_file():
        then = read_figures(work).get("texts", {})
        for name, value in asked.items():
            if then.get(name, value) != value:
                raise UndersongError(
                    f"The texts in {work} were made with {name} {then[name]}, and {value} is asked; take another --work."
                )
        return
    if data is None:
        raise UndersongError(f"There are no texts in {work}; say where the public text sets are.")
    texts, figures = make_texts(data, seed)
    figures |= asked
    if few:
        taken: Counter[tuple[str, str]] = Counter()
        texts = [text for text in texts if _took(taken, text)]
        figures["texts"] = dict(sorted(Counter(f"{text.kind} {text.split}" for text in texts).items()))
    write_figures(work, "texts", figures)
    write_lines(work / "texts.jsonl", (asdict(text) for text in texts))


def _took(taken: Counter[tuple[str, str]], text: Text) -> bool:
    taken[text.kind, text.split] += 1
    return taken[text.kind, text.split] <= (12 if text.split == "train" else 4)


def load_texts(work: Path) -> list[dict[str, Any]]:
    """Public sentences, and those written about words that they hardly have."""
    files = [work / "texts.jsonl", work / "written.jsonl"]
    return [row for file in files if file.is_file() for row in read_lines(file)]
