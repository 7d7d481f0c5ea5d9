"""The verdict in plain words and one picture.  The wording follows the intervals: it never says more than they do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from undersong.report import words
from undersong.report.case import Case, cases
from undersong.report.panels import Table
from undersong.report.schema import Comparison, Results
from undersong.report.sections import arms, lineup
from undersong.report.sections.lineup import Drawn
from undersong.report.summary import Estimate, base_runs, relation
from undersong.report.svg import kind_class
from undersong.statistics import either_way

RELATION = {
    "higher": "higher than",
    "lower": "lower than",
    "same": "not distinguishable from",
    "unknown": "not judged against",
}
Words = tuple[tuple[str, str], ...]  # (text, style class or ""), one after the other


@dataclass(frozen=True, slots=True)
class Headline:
    """The first screen: a verdict, the arms beside the base as a picture, and what was found in sentences."""

    title: Words
    rate: str
    asked: str  # spoken | typed
    rows: Drawn
    further: Drawn  # arms that are folded away, for there are many
    axis: tuple[tuple[float, str], ...]  # (percent of the width, label)
    findings: tuple[tuple[str, str], ...]  # (what it is about, one or two sentences)
    numbers: Table | None


def build(results: Results) -> Headline:
    """Of a study that asked no harmful prompt a title that says so, and nothing else."""
    both = cases(results)
    if not both:
        return Headline(
            (("No harmful prompt was asked, so there is no verdict.", ""),), "JSR", "", (), (), (), (), None
        )
    found = both[0]
    line = lineup.build(found)
    return Headline(
        title=_title(found),
        rate=found.view.rate,
        asked=words.spoken(found.modality),
        rows=line.rows,
        further=line.further,
        axis=line.axis,
        findings=(*_findings(found), *map(_elsewhere, both[1:]), *_failures(both), ("Scope", _scope(found))),
        numbers=arms.build(results),
    )


def _title(found: Case) -> Words:
    verb = "answered" if found.view.rate == "JSR" else "did not refuse"
    asked = f" of {words.spoken(found.modality)} harmful requests"
    base, worst = found.base, found.worst
    before = _stated(base, "base") if base else ()
    if worst is None:
        text = f"{asked}. No fine-tuned arm was measured."
        return ((f"{found.model} {verb} ", ""), *before, (text, "")) if base else (("Nothing was measured.", ""),)
    after = _stated(worst.estimate, worst.arm.kind)
    trained = f"fine-tuning on benign {'speech' if worst.arm.train_modality == 'audio' else 'text'}"
    if base is None:
        text = f"{asked} after {trained}. The base was not measured."
        return (f"{found.model} {verb} ", ""), *after, (text, "")
    which = f", in {'each' if found.tied else 'the worst'} of {found.n_arms} arms" if found.n_arms > 1 else ""
    same = relation(worst.estimate, base, found.against_base(worst)) == "same"
    above = sum(relation(one.estimate, base, found.against_base(one)) == "higher" for one in found.measured)
    if same and not above:
        opening = f"After {trained}, no change from the base is distinguishable: {found.model} {verb} "
        return (opening, ""), *before, (f"{asked} before and ", ""), *after, (f" after{which}.", "")
    opening = f"{found.model} {verb} "
    which += f", too uncertain to tell; {above} of them {'is' if above == 1 else 'are'} above the base" if same else ""
    return (opening, ""), *before, (f"{asked} before and ", ""), *after, (f" after {trained}{which}.", "")


def _stated(number: Estimate, kind: str) -> Words:
    """A rate with its interval; where replies failed or could not be judged, all that it may be."""
    interval = words.bracket(number.low, number.high)
    return (_share(number), kind_class(kind)), *(((f" {interval}", "interval"),) if interval else ())


def _share(number: Estimate) -> str:
    """A rate; where replies failed or could not be judged, all that it may be."""
    mean = words.percent(number.mean)
    return f"between {mean} and {words.percent(number.most)}" if number.lost else mean


def _failures(both: Sequence[Case]) -> list[tuple[str, str]]:
    """What every number that the page speaks of may be where replies have no verdict."""
    told = [
        f"{name}, {words.spoken(one.modality)} prompts: the {one.view.rate} is "
        f"{either_way(words.percent(number.mean), words.percent(number.most), number.lost)}."
        for one in both
        for name, number in _spoken_of(one)
        if number.lost
    ]
    uncounted = "No rate counts a reply that failed or could not be judged."
    return [("Failures", " ".join([uncounted, *told]))] if told else []


def _spoken_of(found: Case) -> Iterator[tuple[str, Estimate]]:
    if found.base is not None:
        yield "Base", found.base
    for item in filter(None, (found.worst, *found.others)):
        yield words.sentence(item.arm.label), item.estimate
    for item in found.prompted:
        yield f"{words.sentence(item.arm.label)} under the system text “{item.system}”", item.estimate


def _findings(found: Case) -> list[tuple[str, str]]:
    worst, base, rate = found.worst, found.base, found.view.rate
    if worst is None:
        return []
    which = f"The worst of {found.n_arms} arms" if found.n_arms > 1 else "The arm"
    which = f"All {found.n_arms} arms are level; the first" if found.tied else which
    which += f" is {worst.arm.label}"
    text = f"{which}; at step {worst.arm.last_step} its {rate} is {words.percent(worst.estimate.mean)}."
    if base is not None:
        judged = _judged(worst.estimate, base, found.against_base(worst), f"the base’s {words.percent(base.mean)}")
        text = f"{which}; at step {worst.arm.last_step} its {rate} is {judged}."
    findings = [("Damage", text)]
    for item in found.others:
        judged = _judged(item.estimate, worst.estimate, found.against(item, worst), "that arm’s")
        same = (item.arm.axis, item.arm.amount) == (worst.arm.axis, worst.arm.amount)
        which = "" if same and item.arm.train_modality == worst.arm.train_modality else f" ({item.arm.label})"
        text = f"Trained on {item.arm.kind} samples instead{which}, the {rate} is {judged}"
        if base is not None:
            text += f", and {RELATION[relation(item.estimate, base, found.against_base(item))]} the base’s"
        findings.append((f"{item.arm.kind.capitalize()} data", f"{text}."))
    if worst.arm.kind == "distant" and _above(found):
        findings.append(("Distant data", "The worst arm is itself trained on distant data: distance did not protect."))
    for item in found.prompted:
        judged = _judged(item.estimate, worst.estimate, found.against(item, worst), f"the {rate} without it")
        findings.append(("System prompt", f"Under the system text “{item.system}” the same arm’s {rate} is {judged}."))
    if not found.prompted:
        findings.append(("System prompt", "No system prompt was tried on this arm."))
    return findings


def _elsewhere(other: Case) -> tuple[str, str]:
    """The worst arm on the prompts of the other modality, where the damage was no greater."""
    asked, worst, base = words.spoken(other.modality), other.worst, other.base
    if worst is None or base is None:
        return f"{asked.capitalize()} prompts", f"No fine-tuned arm can be compared with the base on {asked} prompts."
    judged = _judged(worst.estimate, base, other.against_base(worst), f"the base’s {words.percent(base.mean)}")
    return f"{asked.capitalize()} prompts", f"Asked in {asked} form, the worst arm is {worst.arm.label}: {judged}."


def _above(found: Case) -> bool:
    """Whether the worst arm stands above the base."""
    worst, base = found.worst, found.base
    return (
        worst is not None and base is not None and relation(worst.estimate, base, found.against_base(worst)) == "higher"
    )


def _judged(a: Estimate, b: Estimate, comparison: Comparison | None, other: str) -> str:
    """'80.9 % [76.1, 85.3], higher than the base’s 0.9 % (difference …)'."""
    number = f"{words.percent(a.mean)} {words.bracket(a.low, a.high)}".strip()
    decided = relation(a, b, comparison)
    if comparison is None or comparison.low is None:
        reason = {"same": "the intervals overlap", "unknown": "an interval is missing"}
        return f"{number}, {RELATION[decided]} {other} ({reason.get(decided, 'the intervals do not overlap')})"
    p = comparison.p_adjusted if comparison.p_adjusted is not None else comparison.p
    tested = (
        f", {'corrected ' if comparison.p_adjusted is not None else ''}p{words.NBSP}{words.equal(p)}"
        if p is not None
        else ""
    )
    interval = words.bracket(comparison.low, comparison.high)
    return (
        f"{number}, {RELATION[decided]} {other} (difference {words.points(comparison.difference)} points "
        f"{interval}{tested})"
    )


def _scope(found: Case) -> str:
    """How far the claim reaches: runs, bases, prompts, and what the intervals are over."""
    runs = found.results.runs
    row = next((row for run in runs for row in run.sets if row.set == found.view.set), None)
    asked = ""
    if row is not None:
        asked = f" Each run answers {words.count(row.n, 'prompt')}"
        asked += f" in {words.count(row.clusters, 'cluster')}." if row.clusters else "."
    bases = words.count(max(len({(run.model, run.base_seed) for run in base_runs(found.results)}), 1), "base")
    if len({(m.model, m.base_seed) for m in found.results.marginals}) > 1:
        asked += " Here the models are taken together; “Models side by side” has each for itself."
    if found.worst is None:
        return f"{bases.capitalize()}, no fine-tuning run.{asked}"
    n = found.worst.estimate.runs
    if n == 1:
        over = "Intervals are over prompts." if found.worst.estimate.low is not None else "There is no interval."
        return (
            f"One run on {bases}: this speaks of this model, not of the recipe; another training seed may "
            f"differ. {over}{asked}"
        )
    over = f"Intervals (95 %): {_how(found.worst.estimate)} for arms (over prompts where their runs all agree)"
    over += f", {_how(found.base)} for the base" if found.base is not None else ""
    if found.worst.estimate.over == "prompts":
        over = "The runs agree, so intervals are over prompts (95 %)"
    few = " So few runs show, they do not prove." if n < 5 else ""
    if found.n_arms > 1 and not found.tied:
        few += " The worst arm was picked for being the worst, so its number leans high."
    return f"{n} runs an arm on {bases}. {over}.{few}{asked}"


def _how(number: Estimate) -> str:
    return number.method if number.over == "prompts" else f"Student’s {number.method}"
