"""What a gate says: a sentence a case and one for all, JUnit XML, and Markdown for a pull request.  Judges nothing.

Names of models and sets come from files that anybody may have written: they are escaped in both forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from undersong.integrations.gate import Checked
from undersong.integrations.outcome import BROKEN, KEPT, UNSURE, WORDS, Case, exit_code
from undersong.integrations.rises import Judged
from undersong.report.markdown import escaped, plain, row

SCOPE = "Scope: the model, on these prompts; nothing is said of the recipe that made it."
HEAD = ("model", "measured", "found", "at least", "at most", "limit", "")
MARKS = {KEPT: "✅", BROKEN: "❌", UNSURE: "❔"}
SAID = {
    KEPT: "The gate is open: {n} of {n} limits are kept",
    BROKEN: "The gate is closed: {k} of {n} limits are shown to be broken",
    UNSURE: "The gate cannot tell: no limit is shown to be broken, and of {n} it is open whether {k} are kept",
}


def rise_case(one: Judged) -> Case:
    """Of a rate that may have risen."""
    share = (
        " → ".join("not asked" if rate is None else f"{rate:.1%}" for rate in one.found) if one.n else "not measured"
    )
    low, high = (_points(bound) if one.n else "–" for bound in (one.low, one.high))
    text = f"{one.model}: {one.name} ({one.prompts}) "
    if one.n:
        text += (
            f"{share} over {one.n} prompts in {one.against.design.clusters} clusters, a rise of at least {low} "
            f"({100 * (1 - one.level):.4g} %, by Holm) and at most {high} ({100 * one.confidence:.4g} %) points; "
            f"the limit is {100 * one.limit:g}: "
        )
    else:
        text += "was not measured: "
    return Case(
        model=one.model,
        measured=f"{one.name}, {one.prompts}",
        found=f"{share}, n = {one.n} in {one.against.design.clusters} clusters" if one.n else share,
        at_least=low,
        at_most=high,
        limit=f"rise {100 * one.limit:g}",
        outcome=one.outcome,
        line=f"{text}{_because(one)}",
    )


def _because(one: Judged) -> str:
    parts = [WORDS[one.outcome]]
    if one.outcome == UNSURE:
        if one.missing:
            parts.append(f"verdicts on {one.missing} of {one.n} prompts are on one side only")
        if one.lost:
            parts.append(f"{one.lost} replies have no verdict")
        if not one.n:
            least = "no number of prompts" if one.needed is None else f"at least {one.needed:,} prompts"
            parts.append(f"{least}, each its own cluster and none changed, would tell")
        elif one.needed is not None:
            parts.append(f"some {one.needed:,} prompts like these would tell")
        elif not (one.lost or one.missing):
            parts.append("no number of prompts like these would tell")
    return "; ".join(parts)


def rate_cases(checked: Checked) -> list[Case]:
    """Of limits on rates, each broken or kept."""
    return [
        Case(
            model=rate.where,
            measured=rate.name,
            found=f"{rate.found:.1%}",
            at_least="",
            at_most=f"{100 * rate.value:.1f}",
            limit=f"rate {100 * rate.limit:.4g}",
            outcome=BROKEN if rate.value > rate.limit else KEPT,
            line=rate.line
            if rate.value > rate.limit
            else f"{rate.where}: {rate.name} {rate.shown} keeps {rate.limit:g}",
        )
        for rate in checked.rates
    ]


def verdict(cases: Sequence[Case]) -> str:
    """One sentence for all, and what it is about."""
    code = exit_code([case.outcome for case in cases])
    found = SAID[code].format(k=sum(case.outcome == code for case in cases), n=len(cases))
    return f"{found} (exit {code}). {SCOPE}"


def markdown(cases: Sequence[Case]) -> str:
    """A table, worst first, with the sentence above it."""
    order = (BROKEN, UNSURE, KEPT)
    lines = [f"**undersong gate** {MARKS[exit_code([case.outcome for case in cases])]} {verdict(cases)}", ""]
    lines += [row(HEAD), "|" + " --- |" * len(HEAD)]
    for case in sorted(cases, key=lambda case: order.index(case.outcome)):
        cells = (case.model, case.measured, case.found, case.at_least, case.at_most, case.limit)
        lines.append(row((*map(escaped, cells), f"{MARKS[case.outcome]} {WORDS[case.outcome]}")))
    unsure = [f"- {escaped(case.line)}" for case in cases if case.outcome == UNSURE]
    return "\n".join([*lines, "", "Rises, bounds and limits in points.", *unsure]) + "\n"


def junit(cases: Sequence[Case]) -> str:
    """A test a case: broken is a failure; what cannot be told is an error, because a test that is skipped passes."""
    counted = {kind: str(sum(case.outcome == code for case in cases)) for kind, code in _KINDS.items()}
    facts = {"name": "undersong gate", "tests": str(len(cases)), **counted}
    whole = ElementTree.Element("testsuites", facts)
    suite = ElementTree.SubElement(whole, "testsuite", facts)
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", name="scope", value="model")
    for case in cases:
        made = ElementTree.SubElement(suite, "testcase", classname=plain(case.model), name=plain(case.measured))
        if case.outcome == KEPT:
            ElementTree.SubElement(made, "system-out").text = plain(case.line)
        else:
            kind = "failure" if case.outcome == BROKEN else "error"
            ElementTree.SubElement(made, kind, message=plain(case.line), type=WORDS[case.outcome])
    ElementTree.indent(whole)
    return ElementTree.tostring(whole, encoding="unicode", xml_declaration=True) + "\n"


_KINDS = {"failures": BROKEN, "errors": UNSURE}


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"
