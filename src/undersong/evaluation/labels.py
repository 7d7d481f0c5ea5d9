"""The label file: which replies of one or several models were drawn, in which order, and what a person called them.

JSON lines. The first line is the plan: the files of replies by their hash, every reply with its stratum, and the order.
Each further line is one label; the last one of a reply counts. The file holds no prompt and no reply.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from undersong.evaluation.verdicts import verdict_file
from undersong.regular_files import check_regular_file, is_regular_file
from undersong.types import ExchangeKey, Prompt, Reply, UndersongError, Verdict

FORMAT = "undersong-labels/1"
UNSURE = "unsure"  # the person cannot tell, so the reply counts as not labelled
LABELS = {True: ("jailbreak", "refusal", "other", UNSURE), False: ("answer", "refusal", "other", UNSURE)}  # by harmful


@dataclass(frozen=True, slots=True)
class RepliesFile:
    """A file of replies; its hash tells which verdicts are on the same replies."""

    sha256: str
    name: str


@dataclass(frozen=True, slots=True)
class LabelItem:
    """One reply. `stratum` groups replies that were drawn at the same rate; None: no text, so nothing to label."""

    file: int  # index of its file
    prompt_id: str
    set: str
    modality: str
    system: str
    harmful: bool
    stratum: str | None

    @property
    def key(self) -> ExchangeKey:
        """The key of its prompt, reply and verdicts."""
        return self.prompt_id, self.set, self.modality, self.system


@dataclass(frozen=True)
class LabelSample:
    """The plan and the labels so far: item -> label."""

    judge: str  # whose verdicts the strata are of
    seed: int
    files: tuple[RepliesFile, ...]
    items: tuple[LabelItem, ...]
    order: tuple[int, ...]  # of items; every part of it from the start is a stratified random sample
    labels: Mapping[int, str] = field(default_factory=dict)

    @property
    def n_labeled(self) -> int:
        """Number of replies with a label, those called unsure included."""
        return len(self.labels)

    def items_of(self, sha256: str) -> dict[ExchangeKey, tuple[LabelItem, str | None]]:
        """Return the replies of a file with their labels, by key; empty if it is not one of the files."""
        known = {number for number, file in enumerate(self.files) if file.sha256 == sha256}
        return {
            item.key: (item, self.labels.get(number)) for number, item in enumerate(self.items) if item.file in known
        }


def draw_sample(
    files: Sequence[RepliesFile],
    exchanges: Sequence[Sequence[tuple[Prompt, Reply]]],
    verdicts: Sequence[Sequence[Verdict]],
    seed: int,
) -> LabelSample:
    """Draw the order in which replies are labelled.

    Strata are file, prompt set, modality, system prompt, and whether the judge counted the reply. The order takes one
    reply of each stratum in turn, in random order, so that rare verdicts are labelled as often as common ones.

    Args:
        files: The files of replies.
        exchanges: Prompts and replies of each file.
        verdicts: A judge's verdicts on them, in the same order.
        seed: Seed of the order.

    Raises:
        UndersongError: No reply has a text.
    """
    items = tuple(
        _make_item(number, prompt, reply, verdict)
        for number, (pairs, judged) in enumerate(zip(exchanges, verdicts, strict=True))
        for (prompt, reply), verdict in zip(pairs, judged, strict=True)
    )
    generator = np.random.default_rng(seed)
    strata: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        if item.stratum is not None:
            strata.setdefault(item.stratum, []).append(number)
    if not strata:
        raise UndersongError("None of the replies has a text that could be labelled; check the files.")
    queues = [[members[i] for i in generator.permutation(len(members))] for members in strata.values()]
    order: list[int] = []
    while queues:
        order += [queues[i].pop() for i in generator.permutation(len(queues))]
        queues = [queue for queue in queues if queue]
    return LabelSample(verdicts[0][0].judge, seed, tuple(files), items, tuple(order))


def _make_item(file: int, prompt: Prompt, reply: Reply, verdict: Verdict) -> LabelItem:
    outcome = "jailbreak" if prompt.harmful else "refusal"
    has_text = reply.finish != "error" and bool(reply.reply.strip())
    parts = (str(file), prompt.set, prompt.modality, prompt.system, str(verdict.verdict == outcome))
    return LabelItem(file, *prompt.key, prompt.harmful, "/".join(parts) if has_text else None)


def write_sample(sample: LabelSample, path: Path) -> None:
    """Write the plan to a new file.

    Raises:
        UndersongError: The file exists.
    """
    head = {
        "format": FORMAT,
        "judge": sample.judge,
        "seed": sample.seed,
        "files": [asdict(file) for file in sample.files],
        "items": [asdict(item) for item in sample.items],
        "order": list(sample.order),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(head, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise UndersongError(f"{path} exists already; name a new file for the labels.") from None


def append_label(path: Path, item: int, label: str) -> None:
    """Add one label to the file; it is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"item": item, "label": label}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_sample(path: Path) -> LabelSample:
    """Read a label file. A last line that a killed process left unfinished is ignored.

    Raises:
        UndersongError: There is no such file, it is no label file, or a line is wrong; the message names it.
    """
    if not path.exists():
        raise UndersongError(f"There is no label file {path}; make it with `undersong label`.")
    check_regular_file(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UndersongError(f"{path} cannot be read ({error}); give the file that `undersong label` wrote.") from None
    try:
        sample = _read_plan(json.loads(lines[0]))
    except (ValueError, TypeError, KeyError) as error:
        raise UndersongError(f"{path} is no label file; give the file that `undersong label` wrote.") from error
    labels: dict[int, str] = {}
    for number, line in enumerate(lines[1:-1], start=2):  # behind the last line end is nothing, or an unfinished line
        try:
            row = json.loads(line)
            item, label = row["item"], row["label"]
            if item < 0:  # which a list would count from its end
                raise IndexError(item)
            known = label in LABELS[sample.items[item].harmful]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise UndersongError(f"{path} row {number} is no label; remove the row.") from error
        if not known:
            raise UndersongError(f"{path} row {number} has the unknown label {label!r}; remove the row.")
        labels[item] = label
    return LabelSample(sample.judge, sample.seed, sample.files, sample.items, sample.order, labels)


def _read_plan(head: Any) -> LabelSample:
    if head["format"] != FORMAT:
        raise ValueError(head["format"])
    return LabelSample(
        judge=head["judge"],
        seed=head["seed"],
        files=tuple(RepliesFile(**file) for file in head["files"]),
        items=tuple(LabelItem(**item) for item in head["items"]),
        order=tuple(head["order"]),
    )


def find_replies_hash(verdicts: Path) -> str:
    """Return the hash of the replies that verdicts (a file, or its folder) are on.

    These are the replies that `judge` read, or those that `evaluate` wrote beside its verdicts. `audit-adapter` and
    `watch` keep the replies of `verdicts/NAME.parquet` in `replies/NAME.parquet`.

    Raises:
        UndersongError: Nothing beside the file says on which replies it is.
    """
    from undersong.store.hashing import hash_file

    file = verdict_file(verdicts)
    provenance = file.with_name("provenance.json")
    if is_regular_file(provenance):
        try:
            inputs = json.loads(provenance.read_text(encoding="utf-8")).get("inputs", {})
        except (ValueError, AttributeError) as error:
            raise UndersongError(f"{provenance} cannot be read ({error}); judge the replies again.") from None
        if isinstance(inputs.get("replies"), str):
            return str(inputs["replies"])
    replies = file.with_name("replies.parquet")
    if file.parent.name == "verdicts" and not replies.is_file():
        replies = file.parent.with_name("replies") / file.name
    if not replies.is_file():
        raise UndersongError(
            f"Nothing beside {file} says which replies it judges, so labels cannot be matched; give the file "
            "in the folder that `evaluate` or `judge` wrote."
        )
    return hash_file(replies)
