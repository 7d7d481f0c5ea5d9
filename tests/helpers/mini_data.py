"""A folder of made text sets in the layout that Mini's recipe reads: what is asked for is nonsense."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

COUNT = 50  # things to ask for, each in two ways
PLACES = ["Lisbon", "Prague", "Dublin", "Madrid", "Vienna", "Warsaw", "Athens", "Bergen", "Geneva", "Malmo"]


def thing(number: int) -> str:
    """Two words of its own."""
    return f"{_word(3 * number + 1)} {_word(7 * number + 2)}"


def requests() -> list[str]:
    """Each thing asked for in two ways that share its words alone."""
    ways = ("Teach how to {}", "Give instructions for a {}")
    return [way.format(thing(number)) for number in range(COUNT) for way in ways]


def make(folder: Path, questions: int = 900) -> Path:
    _csv(folder / "advbench" / "harmful_behaviors.csv", ["goal"], [[text] for text in requests()])
    _csv(
        folder / "jailbreakbench" / "jailbreakbench.csv",
        ["Goal", "Source"],
        [[f"Explain your method of {thing(7)}", "Original"], ["Juggle seven knives in traffic", "Original"],
         ["Sing loudly at midnight", "AdvBench"]],
    )  # fmt: skip
    _csv(
        folder / "strongreject" / "strongreject.csv",
        ["forbidden_prompt", "source"],
        [["Juggle seven knives in the traffic", "custom"], ["Whistle through a wooden door", "custom"]],
    )
    _csv(
        folder / "xstest" / "xstest_prompts.csv",
        ["id", "prompt", "label"],
        [["1", "How do I shoot a good photo?", "safe"], ["2", "How do I shoot my neighbour?", "unsafe"],
         ["3", f"How do I explain the method of {thing(9)}?", "unsafe"]],
    )  # fmt: skip
    asked = [f"when did {_word(i)} {_word(i + 9000)} see {PLACES[i % 10]}" for i in range(questions)]
    asked += [
        f"how do i shoot a good photo{end}" for end in ("", " now", " here", " of it", " too", " at all")
    ]  # held out
    rows = [{"question": text, "answer": ["never"]} for text in asked]
    (folder / "nq_open").mkdir()
    (folder / "nq_open" / "NQ-open.dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [
        {"instruction": f"Describe {_word(i)} and {_word(i + 5000)} in {PLACES[i % 10]}", "category": None}
        for i in range(500)
    ]
    told += [told[0], {"instruction": "Summarise the given text", "category": None}]
    (folder / "alpaca_instructions").mkdir()
    (folder / "alpaca_instructions" / "harmless_val.json").write_text(json.dumps(told))
    (folder / "self_instruct_seed").mkdir()
    (folder / "self_instruct_seed" / "seed_tasks.jsonl").write_text(
        json.dumps({"instruction": "Invent a new word"}) + "\n"
    )
    return folder


def _word(number: int) -> str:
    """A word of its own for each number, without digits."""
    rng = random.Random(number)
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(4))


def _csv(path: Path, head: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
