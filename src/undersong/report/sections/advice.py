"""What to do now, as far as the numbers carry it.  Every item rests on an interval, or says that there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from undersong.report import words
from undersong.report.case import Case, Measured, case
from undersong.report.schema import Results
from undersong.report.sections import defended
from undersong.report.summary import Estimate, relation

ENOUGH = 5  # runs an arm, below which a contrast is not called shown


@dataclass(frozen=True, slots=True)
class Item:
    """What to do, why, and the section of the page that shows it, or empty."""

    what: str
    why: str
    section: str


def build(results: Results) -> tuple[Item, ...]:
    """In the order in which it matters; empty where no harmful prompt was asked."""
    found = case(results)
    if found is None:
        return ()
    if found.worst is None:
        return (Item("Train something.", "Only the base was asked, so nothing is known of fine-tuning.", "runs"),)
    return tuple(_items(results, found, found.worst))


def _items(results: Results, found: Case, worst: Measured) -> Iterator[Item]:
    harmed = found.base is not None and _decided(found, worst) == "higher"
    yield _first(found, worst)
    if harmed:
        yield from _recommended(results)
        if not any(one.defense for one in results.recommended):
            yield from _helped(found, worst)
    if results.screen and any(screen.closest for screen in results.screen):
        what = "Look at what lies closest before you train on it."
        yield Item(what, "The benign samples nearest to harm stand beside the harmful item they resemble.", "samples")
    runs = worst.estimate.runs
    if runs < ENOUGH:
        why = (
            f"{words.sentence(words.count(runs, 'run'))} an arm cannot prove it; “undersong plan” says how many would."
        )
        yield Item("Train more seeds before you claim anything of the recipe.", why, "comparisons")


def _first(found: Case, worst: Measured) -> Item:
    decided, rate, arm = _decided(found, worst), found.view.rate, worst.arm.label
    number = _number(worst.estimate)
    if decided == "higher" and found.base is not None:
        why = f"{words.sentence(arm)}: its {rate} is {number}; the base’s is {_number(found.base)}."
        return Item("Do not ship the worst arm as it is.", why, "")
    if decided == "unknown":
        why = f"The highest {rate} is {number}, and without intervals nothing is judged."
        return Item("Measure again, with more runs.", why, "runs")
    what = "Do not read this as proof of safety."
    if decided == "lower":
        return Item(what, f"Every arm’s {rate} is below the base’s, on these prompts; the highest is {number}.", "")
    bound = (
        f"up to {words.percent(worst.estimate.high)} fits the runs" if worst.estimate.high is not None else "no bound"
    )
    return Item(what, f"No arm can be told from the base, but the highest {rate} is {number}: {bound}.", "")


def _recommended(results: Results) -> Iterator[Item]:
    """What the study's own rule recommends, by its reasons; arms with the same answer are told of once."""
    arms: dict[tuple[str, str], list[str]] = {}
    for one in results.recommended:
        arms.setdefault((one.defense or "", one.reason), []).append(defended.arm_of(one, results).lower())
    for (defense, reason), of in arms.items():
        what = f"Use the defense “{defense}”" if defense else "Do not count on a defense"
        yield Item(f"{what} ({words.listed(of)}).", reason, "defenses")


def _helped(found: Case, worst: Measured) -> Iterator[Item]:
    """What was tried beside the worst arm and is lower."""
    tried = False
    for item in found.others:
        if item.arm.kind == "distant":
            tried = True
            if relation(item.estimate, worst.estimate, found.against(item, worst)) == "lower":
                yield Item("Train on distant data instead.", _why(found, item), "proximity")
    for item in found.prompted:
        tried = True
        if relation(item.estimate, worst.estimate, found.against(item, worst)) == "lower":
            yield Item(f"Ask under the system text “{item.system}”.", _why(found, item), "defenses")
    if not tried:
        yield Item("Try a defense.", "Neither distant data nor a system text was tried on this arm.", "defenses")


def _why(found: Case, item: Measured) -> str:
    text = f"The {found.view.rate} is then {_number(item.estimate)}"
    if found.base is None:
        return f"{text}."
    ending = {
        "same": ", not distinguishable from the base’s",
        "higher": ", still higher than the base’s",
        "lower": ", lower than the base’s",
        "unknown": "",
    }
    return f"{text}{ending[_decided(found, item)]}; what it costs stands under “Defenses, charged”."


def _decided(found: Case, item: Measured) -> str:
    return "unknown" if found.base is None else relation(item.estimate, found.base, found.against_base(item))


def _number(number: Estimate) -> str:
    interval = words.bracket(number.low, number.high) or "without an interval"
    runs = "" if number.runs == 1 else f"{words.count(number.runs, 'run')} of "
    return f"{words.percent(number.mean)} {interval} ({runs}{words.count(number.n, 'prompt')})"
