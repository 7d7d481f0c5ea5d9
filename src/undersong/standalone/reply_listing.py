"""Replies with their prompts and verdicts, read from what `evaluate`, `run` or another program wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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

    Of a folder of `audit-adapter` or `watch`, the place of a reply begins with the name of its model.

    Raises:
        UndersongError: There are no replies, or they cannot be read.
    """
    if not source.is_dir():
        return list(_replies_of_table(source))
    if (source / REPLIES_FILE).is_file():
        return list(_replies_of_table(source / REPLIES_FILE))
    if (source / RESULTS_FILE).is_file():
        return list(_replies_of_study(source / RESULTS_FILE))
    if files := sorted((source / "replies").glob("*.parquet")):
        return [
            replace(item, place=", ".join(filter(None, (file.stem, item.place))))
            for file in files
            for item in _replies_of_table(file)
        ]
    raise UndersongError(
        f"{source} holds no {REPLIES_FILE} and no {RESULTS_FILE}; give the folder that `undersong evaluate`, `run`, "
        "`audit-adapter` or `watch` wrote."
    )


def _replies_of_table(file: Path) -> Iterator[ListedReply]:
    from undersong.evaluation.replies import read_reply_table
    from undersong.evaluation.verdicts import read_verdicts

    judged = _verdicts_beside(file)
    verdicts = {verdict.key: verdict.verdict for verdict in read_verdicts(judged)} if judged.is_file() else {}
    for prompt, reply in read_reply_table(file):
        place = ", ".join(filter(None, (prompt.set, prompt.modality, prompt.system)))
        text = f"[{reply.error}]" if reply.finish == "error" else reply.reply
        is_cut = reply.finish == "length"
        verdict = verdicts.get(reply.key, "")
        yield ListedReply(prompt.sample.id, place, prompt.sample.text, text, prompt.harmful, verdict, is_cut)


def _verdicts_beside(file: Path) -> Path:
    """Where the verdicts of a reply table lie, if it has some."""
    from undersong.evaluation.verdicts import VERDICT_FILE

    judged = file.with_name(VERDICT_FILE)
    if file.parent.name == "replies" and not judged.is_file():  # of `audit-adapter` and `watch`
        return file.parent.with_name("verdicts") / file.name
    return judged


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
