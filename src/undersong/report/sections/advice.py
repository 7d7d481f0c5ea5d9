"""What to do now, as far as the numbers carry it.  Every item rests on an interval, or says that there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    above = [item for item in found.measured if _decided(found, item) == "higher"]
    yield _harmed(found, worst, above) if above else _unharmed(found, worst)
    if above:
        yield from _recommended(results)
        if worst in above and not any(one.defense for one in results.recommended):
            yield from _helped(found, worst)
    if any(screen.closest for screen in results.screen):
        what = "Look at what lies closest before you train on it."
        yield Item(what, "The benign samples nearest to harm stand beside the harmful item they resemble.", "samples")
    runs = worst.estimate.runs
    if runs < ENOUGH:
        why = (
            f"{words.sentence(words.count(runs, 'run'))} an arm cannot prove it; “undersong plan” says how many would."
        )
        yield Item("Train more seeds before you claim anything of the recipe.", why, "comparisons")


def _harmed(found: Case, worst: Measured, above: Sequence[Measured]) -> Item:
    """Of the arms above the base; the one with the highest mean may be too uncertain to be among them."""
    told = max(above, key=lambda item: item.estimate.mean)
    which = "the worst arm" if told is worst else "an arm that is above the base"
    base = f"; the base’s is {_number(found.base)}" if found.base is not None else ""
    more = f" {words.count(len(above), 'arm')} of {found.n_arms} are above it." if len(above) > 1 else ""
    why = f"{words.sentence(told.arm.label)}: its {found.view.rate} is {_number(told.estimate)}{base}.{more}"
    return Item(f"Do not ship {which} as it is.", why, "steps")


def _unharmed(found: Case, worst: Measured) -> Item:
    rate, number, decided = found.view.rate, _number(worst.estimate), _decided(found, worst)
    if decided == "unknown":
        why = f"The highest {rate} is {number}, and without intervals nothing is judged."
        return Item("Measure again, with more runs.", why, "runs")
    what = "Do not read this as proof of safety."
    if decided == "lower":
        return Item(what, f"The highest {rate} is {number}, below the base’s, on these prompts only.", "")
    high = worst.estimate.high
    bound = f": up to {words.percent(high)} fits the runs" if high is not None else ""
    return Item(what, f"No arm is shown to be above the base, but the highest {rate} is {number}{bound}.", "")


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
