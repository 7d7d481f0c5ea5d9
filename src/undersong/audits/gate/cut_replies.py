"""Replies that were cut at the limit of tokens, in the words of the gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from undersong.types import Verdict

if TYPE_CHECKING:
    from undersong.audits.gate.rises import VerdictPair

MAX_NOTES = 4  # on cut replies; a study has dozens of rates


def cut_short_text(replies: int) -> str:
    """Say that replies were cut before a judge could tell what they are, and what to do."""
    return (
        f"{replies:,} replies were cut at the limit of tokens and have no clear verdict, so they could be either; "
        "generate the replies again with a larger --max-new-tokens"
    )


def cut_reply_notes(verdict_pairs: Mapping[str, VerdictPair], kinds: Iterable[bool] = (True, False)) -> tuple[str, ...]:
    """Return notes on the rates whose replies were cut, of each model and of the one before it.

    Args:
        verdict_pairs: Model -> its verdicts before and after.
        kinds: True for rates on harmful prompts, False for those on benign ones.
    """
    wanted, notes = set(kinds), []
    for model, pair in verdict_pairs.items():
        for side, verdicts in zip(("before", "after"), pair):
            notes += _side_notes(f"{model}, {side}", [one for one in verdicts if one.harmful in wanted])
    return shorten_notes(notes)


def shorten_notes(notes: Sequence[str]) -> tuple[str, ...]:
    """Return the first notes, and how many rates more have such a note."""
    shown, rest = notes[:MAX_NOTES], len(notes) - MAX_NOTES
    return (
        (*shown, f"Note: {rest} more rates have replies that were cut at the limit of tokens.")
        if rest > 0
        else (*shown,)
    )


def _side_notes(name: str, verdicts: Sequence[Verdict]) -> list[str]:
    from undersong.evaluation.rates import cut_replies_text

    groups: dict[tuple[str, ...], list[Verdict]] = {}
    for verdict in verdicts:
        key = verdict.set, verdict.modality, verdict.system, verdict.judge
        groups.setdefault(key, []).append(verdict)
    cut = {key: sum(verdict.is_cut for verdict in group) for key, group in groups.items()}
    return [
        f"Note: {name} ({', '.join(filter(None, key))}): {cut_replies_text(cut[key], len(group))}."
        for key, group in groups.items()
        if cut[key]
    ]
