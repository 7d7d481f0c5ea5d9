"""Replies with their prompts and verdicts, read from what `evaluate`, `run` or another program wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from undersong.types import UndersongError

REPLIES_FILE, RESULTS_FILE = "replies.parquet", "results.json"


@dataclass(frozen=True)
class ListedReply:
    """One reply for a reader. `place` says of what run and set it is; without a text, the prompt was spoken."""

    prompt_id: str
    place: str
    prompt: str | None
    reply: str | None  # None: it is not in the file
    harmful: bool
    verdict: str = ""  # empty: not judged
    cut: bool = False


def list_replies(source: Path) -> list[ListedReply]:
    """List the replies of a folder or file; prompts that the file does not call benign are taken as harmful.

    Raises:
        UndersongError: There are no replies, or they cannot be read.
    """
    if not source.is_dir():
        return list(_replies_of_table(source))
    if (source / REPLIES_FILE).is_file():
        return list(_replies_of_table(source / REPLIES_FILE))
    if (source / RESULTS_FILE).is_file():
        return list(_replies_of_study(source / RESULTS_FILE))
    raise UndersongError(
        f"{source} holds no {REPLIES_FILE} and no {RESULTS_FILE}; give the folder that `undersong evaluate` or `run` "
        "wrote."
    )


def _replies_of_table(file: Path) -> Iterator[ListedReply]:
    from undersong.evaluation.replies import read_reply_table
    from undersong.evaluation.verdicts import VERDICT_FILE, read_verdicts

    judged = file.with_name(VERDICT_FILE)
    verdicts = {verdict.key: verdict.verdict for verdict in read_verdicts(judged)} if judged.is_file() else {}
    for prompt, reply in read_reply_table(file):
        place = ", ".join(filter(None, (prompt.set, prompt.modality, prompt.system)))
        text = f"[{reply.error}]" if reply.finish == "error" else reply.reply
        is_cut = reply.finish == "length"
        verdict = verdicts.get(reply.key, "")
        yield ListedReply(prompt.sample.id, place, prompt.sample.text, text, prompt.harmful, verdict, is_cut)


def _replies_of_study(file: Path) -> Iterator[ListedReply]:
    """The examples of a study; its other replies stay in its store."""
    from undersong.results.files import read_results_file
    from undersong.results.schema import benign_prompt_sets, parse_results

    results = parse_results(read_results_file(file), str(file))
    benign = benign_prompt_sets(results)
    for example in results.examples:
        seed = "" if example.seed is None else f"seed {example.seed}"
        facts = (example.arm, seed, f"step {example.step}", example.prompt_set, example.modality, example.system)
        yield ListedReply(
            example.prompt_id,
            ", ".join(filter(None, facts)),
            example.prompt_text,
            example.reply,
            example.prompt_set not in benign,
            example.verdict,
        )
