"""Paired comparison of two models' verdict tables, prompt by prompt: the JSR on harmful prompts (the non-refusal rate
if the judge sees refusals only), the over-refusal rate on benign ones. Errors, empty replies and unparsed
verdicts stay in the denominator; bounds say what they could change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from undersong.evaluation.judges.voicebench import measured_error_sentence
from undersong.evaluation.rates import Metric, attack_metric, count_truncated, cut_replies_text
from undersong.evaluation.verdicts import SELECTION_FIELDS, pair_verdicts, select_verdicts, shared_cluster
from undersong.settings.judge_names import judge_criterion
from undersong.statistics.paired import PairedComparison, compare_paired
from undersong.statistics.rates import RateBounds, clustered_mean, rate_bounds
from undersong.types import UndersongError, Verdict

SCOPE = "model"
# Verdict that each metric counts, and the metric's label
OUTCOMES = {"jsr": "jailbreak", "non_refusal_rate": "jailbreak", "refusal_rate": "refusal"}
MAX_LISTED_IDS = 20  # a sentence can hold this many ids
REFUSAL_JUDGE_NOTE = "The judge {judge} sees refusals only{smoke}: a non-refusal rate is not a measured harm."


@dataclass(frozen=True, slots=True)
class VerdictSummary:
    """Selected rows of one verdict table, and their errors."""

    judge: str
    set: str
    modality: str
    system: str
    error: int
    unparsed: int
    empty: int
    replies: int
    cut: int | None  # replies cut at the limit of tokens; None: not known
    bounds: RateBounds  # the rate with none, and with all, of the lost replies counted as the outcome


@dataclass(frozen=True, slots=True)
class MarginComparison:
    """Mean refusal margin of paired prompts before and after, in nats, and the clustered interval of its change."""

    before: float
    after: float
    low: float | None  # of the change; None with a single cluster
    high: float | None

    @property
    def change(self) -> float:
        """After minus before; negative if the model would refuse less."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class VerdictComparison:
    """Comparison of two verdict tables.

    `metric` is jsr, non_refusal_rate or refusal_rate. `unpaired` lists prompts of one table only, as (prompt id, before
    or after).
    """

    metric: Metric
    paired: PairedComparison
    before: VerdictSummary
    after: VerdictSummary
    unpaired: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    margin: MarginComparison | None = None  # None if a prompt has no margin in one of the tables

    @property
    def bounds(self) -> RateBounds:
        """Bounds of the difference, given replies without a verdict in either table."""
        before_bounds, after_bounds = self.before.bounds, self.after.bounds
        return RateBounds(
            after_bounds.low - before_bounds.high,
            after_bounds.high - before_bounds.low,
            before_bounds.lost + after_bounds.lost,
        )


def compare_verdicts(
    before: Sequence[Verdict],
    after: Sequence[Verdict],
    *,
    judge: str | None = None,
    set: str | None = None,
    modality: str | None = None,
    system: str | None = None,
    allow_unpaired: bool = False,
    table_names: tuple[str, str] = ("BEFORE", "AFTER"),
) -> VerdictComparison:
    """Select verdicts in both tables (see `select_verdicts`), pair them by prompt id, and compare.

    Args:
        before: Verdicts of the first model.
        after: Verdicts of the second model.
        judge: Judge to select; None if there is only one.
        set: Prompt set to select.
        modality: Modality to select.
        system: System prompt to select.
        allow_unpaired: Leave out prompts of one table only, and list them, instead of failing.
        table_names: Names of both tables in messages.

    Raises:
        UndersongError: A selection is not unique, the judges differ, no prompt is shared, a prompt is in one table
            only, or harmful and benign prompts are mixed.
    """
    before_verdicts = select_verdicts(
        before, judge=judge, set=set, modality=modality, system=system, table_name=table_names[0]
    )
    after_verdicts = select_verdicts(
        after, judge=judge, set=set, modality=modality, system=system, table_name=table_names[1]
    )
    if before_verdicts[0].judge != after_verdicts[0].judge:
        raise UndersongError(
            f"{table_names[0]} was judged by {before_verdicts[0].judge} and {table_names[1]} by "
            f"{after_verdicts[0].judge}; judge both the same way."
        )
    paired_verdicts = pair_verdicts(before_verdicts, after_verdicts)
    pairs = paired_verdicts.pairs
    unpaired = tuple(
        sorted(
            (verdict.prompt_id, side)
            for side, verdicts in (
                ("before", paired_verdicts.only_before),
                ("after", paired_verdicts.only_after),
            )
            for verdict in verdicts
        )
    )
    if unpaired and not allow_unpaired:
        raise UndersongError(
            f"{_describe_unpaired(unpaired, table_names)}; judge the missing ones, "
            "or leave them out with --allow-unpaired."
        )
    if not pairs:
        raise UndersongError(
            f"{table_names[0]} and {table_names[1]} share no prompt id; compare verdicts on the same prompts."
        )
    metric = _select_metric(pairs)
    outcome = OUTCOMES[metric]
    paired = compare_paired(
        [before_verdict.verdict == outcome for before_verdict, _ in pairs],
        [after_verdict.verdict == outcome for _, after_verdict in pairs],
        [shared_cluster(before_verdict, after_verdict) for before_verdict, after_verdict in pairs],
    )
    summaries = (
        _summarize_verdicts([before_verdict for before_verdict, _ in pairs], outcome),
        _summarize_verdicts([after_verdict for _, after_verdict in pairs], outcome),
    )
    notes = (*_comparison_notes(pairs, unpaired), *_cut_notes(*summaries))
    margins = paired_verdicts.margins
    if 0 < len(margins) < len(pairs):
        missing = len(pairs) - len(margins)
        notes = (*notes, f"{missing} of {len(pairs)} prompts lack a refusal margin, so it is not compared.")
    margin = _compare_margins(margins) if len(margins) == len(pairs) else None
    return VerdictComparison(metric, paired, *summaries, unpaired, notes, margin)


def _cut_notes(before: VerdictSummary, after: VerdictSummary) -> Iterator[str]:
    for side, summary in (("before", before), ("after", after)):
        if summary.cut:
            yield f"The replies {side}: {cut_replies_text(summary.cut, summary.replies)}."


def _compare_margins(margins: Sequence[tuple[float, float, str]]) -> MarginComparison:
    change = clustered_mean([after - before for before, after, _ in margins], [cluster for _, _, cluster in margins])
    before, after = fmean(margin[0] for margin in margins), fmean(margin[1] for margin in margins)
    return MarginComparison(before, after, change.low, change.high)


def _describe_unpaired(unpaired: Sequence[tuple[str, str]], table_names: tuple[str, str]) -> str:
    parts = []
    for side, name in zip(("before", "after"), table_names):
        ids = [prompt_id for prompt_id, only_side in unpaired if only_side == side]
        if ids:
            remainder = f" and {len(ids) - MAX_LISTED_IDS} more" if len(ids) > MAX_LISTED_IDS else ""
            parts.append(f"{len(ids)} prompts are only in {name} ({', '.join(ids[:MAX_LISTED_IDS])}{remainder})")
    return ", ".join(parts)


def _select_metric(pairs: Sequence[tuple[Verdict, Verdict]]) -> Metric:
    for before_verdict, after_verdict in pairs:
        if before_verdict.harmful != after_verdict.harmful:
            raise UndersongError(
                f"Prompt {before_verdict.prompt_id} is harmful in one table only; fix the column harmful."
            )
    kinds = {before_verdict.harmful for before_verdict, _ in pairs}
    if len(kinds) > 1:
        raise UndersongError("The rows mix harmful and benign prompts, which have no common rate; split the file.")
    if kinds == {False}:
        return "refusal_rate"
    return attack_metric(pairs[0][0].judge)


def _summarize_verdicts(verdicts: Sequence[Verdict], outcome: str) -> VerdictSummary:
    counts = Counter(verdict.verdict for verdict in verdicts)
    selection = {field: getattr(verdicts[0], field) for field in SELECTION_FIELDS}
    return VerdictSummary(
        **selection,
        error=counts["error"],
        unparsed=counts["unparsed"],
        empty=counts["empty"],
        replies=len(verdicts),
        cut=count_truncated([verdict.finish for verdict in verdicts]),
        bounds=rate_bounds(counts, outcome),
    )


def _comparison_notes(pairs: Sequence[tuple[Verdict, Verdict]], unpaired: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Caveats of the comparison."""
    before_verdict, after_verdict = pairs[0]
    notes = [
        f"The sides differ in {field} "
        f"({getattr(before_verdict, field)!r} before, {getattr(after_verdict, field)!r} after)."
        for field in ("set", "modality", "system")
        if getattr(before_verdict, field) != getattr(after_verdict, field)
    ]
    if before_verdict.harmful and judge_criterion(before_verdict.judge) == "refusal":
        smoke_test_note = " and is a smoke test" if before_verdict.judge == "keyword" else ""
        notes.append(REFUSAL_JUDGE_NOTE.format(judge=before_verdict.judge, smoke=smoke_test_note))
    if measured_error := measured_error_sentence(before_verdict.judge):
        notes.append(measured_error)
    mislabeled = sum(verdict.harmful and verdict.verdict == "answer" for pair in pairs for verdict in pair)
    if mislabeled:
        notes.append(
            f"{mislabeled} verdicts say 'answer', the word for benign prompts, where the file has no column harmful; "
            "they are counted as not jailbroken."
        )
    if unpaired:
        notes.append(f"{len(unpaired)} unpaired prompts were left out.")
    return tuple(notes)
