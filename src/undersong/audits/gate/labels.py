"""The gate on corrected rates: rises by labels that people gave, in place of the judge's verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from undersong.evaluation.corrected_rates import LOST_CELL, UnlabeledGroupsError, labeled_replies
from undersong.evaluation.labels import UNSURE, LabelSample
from undersong.statistics.corrected_rise import CorrectedRise, estimate_corrected_rise
from undersong.statistics.judge_correction import LabeledReplies
from undersong.types import UndersongError, Verdict

VerdictRow = tuple[Verdict | None, Verdict | None, str]  # before, after, cluster


@dataclass(frozen=True)
class GateLabels:
    """Labels, and the replies that each model's verdicts are on."""

    sample: LabelSample
    replies_hashes: Mapping[str, tuple[str, str]]  # model -> SHA-256 of the files of replies before and after


@dataclass(frozen=True, slots=True)
class LabeledRise:
    """The rise of one rate by labels; both estimates are None if some groups of replies have no label yet.

    `pessimistic` counts replies without a text and missing verdicts against the model, `optimistic` in its favor.
    """

    pessimistic: CorrectedRise | None
    optimistic: CorrectedRise | None
    labels: int
    labelable: int  # replies of both sides that have a text
    reason: str = ""  # why there is no estimate


def correct_rise(labels: GateLabels, model: str, rows: Sequence[VerdictRow]) -> LabeledRise | None:
    """Correct the rise of one rate; None if none of its replies were drawn for labels.

    Args:
        labels: The labels.
        model: Name of the model.
        rows: Verdicts of one judge on one prompt set, before and after, with the cluster of each prompt.

    Raises:
        UndersongError: The replies of one side alone were drawn, or not all of them.
    """
    if model not in labels.replies_hashes:
        return None
    hashes = labels.replies_hashes[model]
    sides = [row[0] for row in rows], [row[1] for row in rows]
    drawn = [_is_drawn(verdicts, labels.sample, digest) for verdicts, digest in zip(sides, hashes)]
    if not any(drawn):
        return None
    if not all(drawn) and all(any(verdict is not None for verdict in verdicts) for verdicts in sides):
        raise UndersongError(
            f"{model}: the replies {'before' if drawn[0] else 'after'} were drawn for labels and the others were not; "
            "name both in one `undersong label`."
        )
    clusters = tuple(row[2] for row in rows)
    try:
        known = [_join(verdicts, labels.sample, digest, clusters) for verdicts, digest in zip(sides, hashes)]
    except UnlabeledGroupsError as error:
        keys = {verdict.key for verdicts in sides for verdict in verdicts if verdict is not None}
        items = [item for digest in hashes for key, item in labels.sample.items_of(digest).items() if key in keys]
        known_labels = sum(label not in (None, UNSURE) for _, label in items)
        return LabeledRise(None, None, known_labels, len(items), str(error).rstrip("."))
    before, after = known
    return LabeledRise(
        estimate_corrected_rise(before, _count_lost(after, sides[1])),
        estimate_corrected_rise(_count_lost(before, sides[0]), after),
        sum(label is not None for side in known for label in side.labels),
        sum(cell is not None for side in known for cell in side.cells),
    )


def _is_drawn(verdicts: Sequence[Verdict | None], sample: LabelSample, replies_hash: str) -> bool:
    items = sample.items_of(replies_hash)
    return any(verdict is not None and verdict.key in items for verdict in verdicts)


def _join(
    verdicts: Sequence[Verdict | None], sample: LabelSample, replies_hash: str, clusters: tuple[str, ...]
) -> LabeledReplies:
    """Join the verdicts of one side with its labels; a prompt without a verdict does not have the outcome."""
    present = [verdict for verdict in verdicts if verdict is not None]
    if not present:
        return LabeledReplies((None,) * len(clusters), (None,) * len(clusters), clusters)
    joined = labeled_replies(present, sample, replies_hash)
    pairs = iter(zip(joined.cells, joined.labels))
    rows = [(None, None) if verdict is None else next(pairs) for verdict in verdicts]
    return LabeledReplies(tuple(cell for cell, _ in rows), tuple(label for _, label in rows), clusters)


def _count_lost(replies: LabeledReplies, verdicts: Sequence[Verdict | None]) -> LabeledReplies:
    """Count replies without a text, and prompts without a verdict, as if they had the outcome."""
    lost = [cell is None and (verdict is None or verdict.is_lost) for cell, verdict in zip(replies.cells, verdicts)]
    return LabeledReplies(
        tuple(LOST_CELL if is_lost else cell for cell, is_lost in zip(replies.cells, lost)),
        tuple(True if is_lost else label for label, is_lost in zip(replies.labels, lost)),
        replies.clusters,
    )
