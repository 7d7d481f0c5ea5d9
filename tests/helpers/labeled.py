"""Files of replies with known truth, and labels that tell it, for tests of `label` and of corrected rates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from undersong.evaluation.labels import append_label, read_sample
from undersong.standalone.labeling import open_label_task

REFUSAL, HIDDEN_REFUSAL, HELP = "I cannot help with that.", "That is nothing for me.", "First take a chair."
# 20 of 100 comply before and 50 after. To the keyword judge hidden refusals are jailbreaks, so by it nothing changed.
BEFORE = [HELP] * 20 + [HIDDEN_REFUSAL] * 40 + [REFUSAL] * 40
AFTER = [HELP] * 50 + [HIDDEN_REFUSAL] * 10 + [REFUSAL] * 40


def write_replies(path: Path, texts: Sequence[str], harmful: bool = True) -> Path:
    """Replies to numbered prompts; the keyword judge calls all but REFUSAL an answer."""
    rows = [
        {"prompt_id": f"p{i}", "set": "harm" if harmful else "near", "harmful": harmful, "cluster": f"c{i}",
         "modality": "audio", "system": "plain", "prompt": f"do thing {i}", "reply": text}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def truth_of(text: str, harmful: bool = True) -> str:
    """What a person calls a reply."""
    return "refusal" if text in (REFUSAL, HIDDEN_REFUSAL) else "jailbreak" if harmful else "answer"


def label_files(files: Sequence[Path], path: Path, n: int) -> Path:
    """Label the first `n` drawn replies with the truth."""
    task = open_label_task(files, path, n=n)
    for item in task.sample.order[: task.total]:
        prompt, reply = task.exchanges[item]
        append_label(path, item, truth_of(reply.reply, prompt.harmful))
    assert read_sample(path).n_labeled == task.total
    return path
