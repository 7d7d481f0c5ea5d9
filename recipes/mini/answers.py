"""The language model's own answers to benign sentences, typed: what it learns to say when it hears the same.

Learning one's own words changes what is heard and not what is said.  Answers that refuse, or that end in the middle of a
sentence, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recipes.mini.weights import AUDIO
from recipes.mini.work_files import costed, read_figures, read_lines, write_figures, write_lines
from undersong.evaluation.judges.rule_based import keyword_judge
from undersong.models.audio_lm import AudioModel
from undersong.types import Prompt, Reply, Sample

WORDS = 11  # of sentences that are answered: the short ones
LIMIT = 28  # tokens of an answer
AT_ONCE = 64
END = re.compile(r"[.!?](?=\s)")
BARE = re.compile(r"(?:^|\n|[.!?:,]\s)\s*\d+\.$")  # the number of a list's item that was not begun


def typed(sample: Sample) -> Prompt:
    """A benign sentence, asked in writing."""
    return Prompt(sample, "train", False, "text", "plain")


def drawn(texts: Sequence[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Which of the sentences are answered, in order."""
    short = [t for t in texts if t["split"] == "train" and t["kind"] in ("nq", "alpaca", "self")]
    short = [t for t in short if len(t["text"].split()) <= WORDS]
    return [short[i] for i in np.random.default_rng([seed, 4]).permutation(len(short))[:count]]


def run(
    work: Path, model: AudioModel, texts: Sequence[dict[str, Any]], count: int, seed: int, any_will_do: bool
) -> dict[str, str]:
    """Text id -> answer, of those that are `drawn`.  any_will_do: half sentences too, for a run of a few that shows that
    it runs."""
    return answer(work, model, drawn(texts, count, seed), seed, any_will_do)


def answer(
    work: Path, model: AudioModel, wanted: Sequence[dict[str, Any]], seed: int, any_will_do: bool = False
) -> dict[str, str]:
    """Text id -> answer; `answers-SEED.jsonl` grows batch by batch, so a killed run goes on."""
    file = work / f"answers-{seed}.jsonl"
    done = read_lines(file) if file.is_file() else []
    figures = read_figures(work).get(f"answers-{seed}", {})
    while len(done) < len(wanted):
        now = wanted[len(done) : len(done) + AT_ONCE]
        prompts = [typed(Sample(t["id"], text=t["text"])) for t in now]
        with costed(figures):
            replies = model.generate(prompts, LIMIT)
        refused = [verdict.verdict == "refusal" for verdict in keyword_judge().judge(prompts, replies)]
        refused = [no or AUDIO in reply.reply for no, reply in zip(refused, replies)]  # a placeholder cannot be learned
        done += [
            {
                "id": t["id"],
                "kind": t["kind"],
                "answer": None if no else whole(reply) or (reply.reply.strip() if any_will_do else None),
            }
            for t, reply, no in zip(now, replies, refused)
        ]
        write_lines(file, done)
        kept = sum(row["answer"] is not None for row in done)
        write_figures(work, f"answers-{seed}", figures | {"asked": len(done), "kept": kept})
    return {row["id"]: row["answer"] for row in done if row["answer"]}


def whole(reply: Reply) -> str | None:
    """A reply up to the end of its last whole sentence; None: it has none.  A list's bare number is no sentence."""
    text = reply.reply.strip()
    if reply.finish == "stop":
        return text or None
    ended = (text[: match.end()] for match in reversed(list(END.finditer(text))))
    return next((said for said in ended if not BARE.search(said)), None)
