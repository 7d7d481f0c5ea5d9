"""Several models against one, on the same prompts: one family, corrected together (scope `model`).

Knows comparisons of two; does not know files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from undersong.evaluation.compare import NAMES, SCOPE, Comparison, Side, compare_verdicts, failures, to_json
from undersong.statistics import Rate, holm
from undersong.types import UndersongError, Verdict


@dataclass(frozen=True, slots=True)
class Arm:
    """One model against the first.  `p_adjusted`: its clustered p by Holm over all arms of the table."""

    name: str
    comparison: Comparison
    p_adjusted: float


def compare_many(
    before: Sequence[Verdict], after: Mapping[str, Sequence[Verdict]], *, name: str = "BEFORE", **choices: Any
) -> tuple[Arm, ...]:
    """Every arm (name -> its verdicts) against `before`; `choices` as in `compare_verdicts`.

    Raises UndersongError as that does, and where one arm's prompts are harmful and another's benign: their rates are
    no family.
    """
    made = {arm: compare_verdicts(before, verdicts, names=(name, arm), **choices) for arm, verdicts in after.items()}
    if not made:
        raise UndersongError(f"There is nothing to compare {name} with; name at least one more file.")
    metrics = {arm: comparison.metric for arm, comparison in made.items()}
    first = next(iter(metrics))
    if other := next((arm for arm, metric in metrics.items() if metric != metrics[first]), None):
        raise UndersongError(
            f"{first} answers harmful prompts and {other} benign ones, or the reverse; compare them apart."
        )
    adjusted = holm([comparison.paired.clustered_p for comparison in made.values()])
    return tuple(Arm(arm, one, p) for (arm, one), p in zip(made.items(), adjusted) if p is not None)


def many_json(arms: Sequence[Arm]) -> dict[str, Any]:
    """The keys of `undersong compare --json` for several files: `arms`, each as for one, with `name`, `p_adjusted`."""
    return {
        "scope": SCOPE,
        "metric": arms[0].comparison.metric,
        "correction": f"Holm over {len(arms)} arms, on the clustered p",
        "arms": [{"name": arm.name, **to_json(arm.comparison), "p_adjusted": arm.p_adjusted} for arm in arms],
    }


HEAD = (
    "model", "rate", "95 % (clustered)", "difference, points", "95 % (clustered)", "p", "p, Holm", "errors, unparsed",
    "rate, either way",
)  # fmt: skip


def rows(arms: Sequence[Arm], name: str) -> list[tuple[str, ...]]:
    """The table's cells under HEAD, the first model on top."""
    first = arms[0].comparison
    blank = ("",) * 4
    table: list[tuple[str, ...]] = [(name, *_share(first.paired.before), *blank, *failed(first.before))]
    for arm in arms:
        paired, side = arm.comparison.paired, arm.comparison.after
        interval = f"{100 * paired.clustered_low:+.1f} to {100 * paired.clustered_high:+.1f}"
        moved = f"{100 * paired.difference:+.1f}", interval, f"{paired.clustered_p:.3g}", f"{arm.p_adjusted:.3g}"
        table.append((arm.name, *_share(paired.after), *moved, *failed(side)))
    return table


def markdown(arms: Sequence[Arm], name: str) -> str:
    """The same as a Markdown table with what the reader must know below it."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEAD, *map(_escaped, rows(arms, name)))]
    lines.insert(1, "|" + " --- |" * len(HEAD))
    return "\n".join([*lines, "", *said(arms)])


def said(arms: Sequence[Arm]) -> list[str]:
    """What the table is about, and every note once."""
    first = arms[0].comparison
    name = NAMES[first.metric]
    what = name[0].upper() + name[1:]
    notes = [f"{a.name}: {note}" for a in arms for note in (failures(a.comparison), *a.comparison.notes) if note]
    return [
        f"{what} over {first.paired.n} prompts in {first.paired.clusters} clusters, {len(arms)} "
        f"arm{'s' if len(arms) > 1 else ''} corrected together: claims about these models, not about what made them "
        "differ.",
        *notes,
    ]


def _share(share: Rate) -> tuple[str, str]:
    return f"{share.rate:.1%}", f"{share.low:.1%} to {share.high:.1%}"


def failed(side: Side) -> tuple[str, str]:
    """How many replies of a side have no verdict, and both ends of what its rate could then be."""
    limits = f"{side.bounds.low:.1%} to {side.bounds.high:.1%}" if side.lost else ""
    return f"{side.error}, {side.unparsed}", limits


def _escaped(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.replace("|", "\\|") for cell in cells)
