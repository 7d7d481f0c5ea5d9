"""Replies that were cut at the limit of tokens: a judge sees their beginning alone, so a rate may be wrong by them."""

from __future__ import annotations

from undersong.pages import formatting
from undersong.report.summary import Estimate
from undersong.results.schema import Results


def cut_phrase(estimate: Estimate) -> str:
    """'10 of 108 replies cut', of all runs behind an estimate; empty if none was."""
    return f"{estimate.cut:,} of {estimate.replies:,} replies cut" if estimate.cut else ""


def cut_sentence(results: Results) -> str:
    """Say which prompt sets have replies that were cut at the limit of tokens; empty if there are none."""
    counts: dict[str, tuple[int, int, float]] = {}  # prompt set -> replies cut, all replies, largest share in a run
    for run in [*results.runs, *results.defended_runs]:
        for row in run.rates:
            cut = row.truncated or 0
            if row.judge == results.study.judge or row.judge_criterion == "utility":
                cut_before, replies, share = counts.get(row.prompt_set, (0, 0, 0.0))
                counts[row.prompt_set] = (cut_before + cut, replies + row.n, max(share, cut / row.n if row.n else 0.0))
    parts = [
        f"{cut:,} of {formatting.count(replies, 'reply', 'replies')} to the set {name} (at most "
        f"{formatting.percent(share)} of one run)"
        for name, (cut, replies, share) in counts.items()
        if cut
    ]
    if not parts:
        return ""
    return (
        f"{formatting.join_items(parts)} were cut at the limit of tokens. A judge sees no more than that, so these "
        "rates may be too low or too high; a larger max_new_tokens tells."
    )
