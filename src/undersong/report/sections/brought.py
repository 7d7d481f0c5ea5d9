"""What each defense brought and what it cost, a sentence each.  It never says more than paired runs show."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.report import words
from undersong.report.columns import Column, mean_of
from undersong.report.priced import Change, Defense


def findings(title: str, rows: Sequence[Defense], columns: Sequence[Column], rate: str) -> list[str]:
    """A sentence for each defense of one undefended arm, which `title` names; none where `rows` lack that arm's own.

    `rate`: what the page calls what gets through; it is told of the prompts on which it is highest without a defense.
    """
    without = next((row for row in rows if row.defense == "none"), None)
    if without is None:
        return []
    asked = [column for column in columns if column.group == "jsr" and mean_of(column.of(without)) is not None]
    jsr = max(
        asked, key=lambda column: mean_of(column.of(without)) or 0.0, default=None
    )  # where there is most to bring
    defended = [row for row in rows if row is not without]
    found = [(row, _brought(jsr, row, without, rate) if jsr else "", _cost(columns, row, without)) for row in defended]
    return [
        f"{words.sentence(row.defense)}, {title[:1].lower()}{title[1:]}: {'; '.join(filter(None, (brought, cost)))}."
        for row, brought, cost in found
        if brought or cost
    ]


def _brought(column: Column, row: Defense, without: Defense, rate: str) -> str:
    """'JSR on spoken prompts 80.9 % without, 3.1 % with it', and whether run noise alone may say so."""
    here, there = column.of(row), column.of(without)
    if here is None or there is None or here.mean is None or there.mean is None:
        return ""
    before, after = words.percent(there.mean), words.percent(here.mean)
    text = f"{rate} on {words.spoken(column.modality)} prompts {before} without, {after} with it"
    change = row.against.get(column.modality)
    return text if change is not None and _is_told(change) else f"{text} (run noise alone may say so)"


def _is_told(change: Change) -> bool:
    """Whether the interval of the difference, paired over runs, leaves 0 out; without one as the results say."""
    if change.told is not None:
        return change.told
    return change.low is not None and change.high is not None and not change.low <= 0 <= change.high


def _cost(columns: Sequence[Column], row: Defense, without: Defense) -> str:
    """The largest rise of over-refusal and the largest loss of utility among all columns."""
    said = []
    for group, name, sign in (("over_refusal", "over-refusal", 1), ("utility", "utility", -1)):
        changes = [
            (here - there, column)
            for column in columns
            if column.group == group
            and (here := mean_of(column.of(row))) is not None
            and (there := mean_of(column.of(without))) is not None
        ]
        if changes:
            change, column = max(changes, key=lambda item: sign * item[0])
            where = f"{column.set}, {words.spoken(column.modality)}"
            said.append(f"{name} {words.points(change)} points where it costs most ({where})")
    return "; ".join(said)
