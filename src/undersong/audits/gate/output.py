"""Output of the gate: sentences, JSON, JUnit XML, and Markdown for a pull request. Names from files are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import ceil, isfinite
from typing import Any
from xml.etree import ElementTree

from undersong.audits.gate.cut_replies import cut_short_text
from undersong.audits.gate.findings import (
    FAILED,
    INCONCLUSIVE,
    OUTCOME_WORDS,
    PASSED,
    FindingNumbers,
    GateDecision,
    GateFinding,
    exit_code,
)
from undersong.audits.gate.margins import MarginTest
from undersong.audits.gate.rates import CheckedRate, RateCheck
from undersong.audits.gate.rises import RiseTest
from undersong.escaping import escape_line, escaped_json
from undersong.pages.markdown_table import escape_markdown, markdown_row

SCOPE = "Scope: the model, on these prompts; nothing is said of the recipe that made it."
TABLE_HEADER = ("model", "measured", "found", "at least", "at most", "limit", "")
OUTCOME_ICONS = {PASSED: "✅", FAILED: "❌", INCONCLUSIVE: "❔"}
GATE_SENTENCES = {
    PASSED: "{gate} passed: {n} of {n} limits kept",
    FAILED: "{gate} failed: {k} of {n} limits broken",
    INCONCLUSIVE: "{gate} is undecided: no limit is broken, and {k} of {n} need more data",
}


def finding_of(test: RiseTest | MarginTest) -> GateFinding:
    """Return the gate finding of one test, of a rate or of the refusal margin."""
    return margin_finding(test) if isinstance(test, MarginTest) else rise_finding(test)


def margin_finding(test: MarginTest) -> GateFinding:
    """Return the gate finding of one test of whether the refusal margin fell."""
    name = f"refusal margin ({test.prompts})"
    outcome, explanation = test.outcome, OUTCOME_WORDS[test.outcome]
    if outcome == INCONCLUSIVE and test.incomplete:
        explanation += f"; {test.incomplete} prompts lack a margin on one side or both"
    elif outcome == INCONCLUSIVE and test.n and not test.is_measurable:
        explanation += "; one cluster gives no bound, so ask more behaviors"
    if test.means is None:
        return GateFinding(
            test.model, name, "not measured", "–", "–", f"loss {test.limit:g}", outcome,
            f"{test.model}: the {name} was not measured: {explanation}", _margin_numbers(test),
        )  # fmt: skip
    low, high = (f"{bound:+.2f}" if isfinite(bound) else "–" for bound in (test.low, test.high))
    before, after = test.means
    clusters = len(set(test.clusters))
    return GateFinding(
        model=test.model,
        metric=f"{name}, nats",
        estimate=f"{before:.2f} → {after:.2f}, n = {test.n} in {clusters} clusters",
        lower_bound=low,
        upper_bound=high,
        limit=f"loss {test.limit:g}",
        outcome=outcome,
        sentence=f"{test.model}: {name} {before:.2f} → {after:.2f} nats over {test.n} prompts in {clusters} clusters, "
        f"a loss of at least {low} ({100 * (1 - test.level):.4g} %, by Holm) and at most {high} "
        f"({100 * test.confidence:.4g} %); the limit is {test.limit:g}: {explanation}",
        numbers=_margin_numbers(test),
    )


def _margin_numbers(test: MarginTest) -> FindingNumbers:
    before, after = test.means or (None, None)
    low, high = (bound if isfinite(bound) else None for bound in (test.low, test.high))
    return FindingNumbers(
        kind="margin loss",
        before=before,
        after=after,
        low=low,
        high=high,
        limit=test.limit,
        n=test.n,
        clusters=len(set(test.clusters)),
        unpaired_prompts=test.incomplete,
    )


def rise_finding(test: RiseTest) -> GateFinding:
    """Return the gate finding of one test of whether a rate rose."""
    rates_text = (
        " → ".join("not measured" if rate is None else f"{rate:.1%}" for rate in test.rates)
        if test.is_measured
        else "not measured"
    )
    low, high = (_format_points(bound) if test.is_measured else "–" for bound in (test.low, test.high))
    sentence = f"{test.model}: {test.name} ({test.prompts}) "
    if test.is_measured:
        sentence += (
            f"{rates_text} over {test.n} prompts in {test.pessimistic_rise.design.clusters} clusters, a rise of at "
            f"least {low} "
            f"({100 * (1 - test.level):.4g} %, by Holm) and at most {high} ({100 * test.confidence:.4g} %) points; "
            f"the limit is {100 * test.limit:g}: "
        )
    elif test.unlabeled:
        sentence += "cannot be corrected yet: "
    else:
        sentence += "was not measured: "
    return GateFinding(
        model=test.model,
        metric=f"{test.name}, {test.prompts}",
        estimate=f"{rates_text}, n = {test.n} in {test.pessimistic_rise.design.clusters} clusters"
        if test.is_measured
        else rates_text,
        lower_bound=low,
        upper_bound=high,
        limit=f"rise {100 * test.limit:g}",
        outcome=test.outcome,
        sentence=f"{sentence}{_explain_outcome(test)}",
        numbers=FindingNumbers(
            kind="rise",
            before=test.rates[0],
            after=test.rates[1],
            low=test.low if test.is_measured else None,
            high=test.high if test.is_measured else None,
            limit=test.limit,
            n=test.n,
            clusters=test.pessimistic_rise.design.clusters if test.n else 0,
            lost_replies=test.lost_replies,
            cut_short_replies=test.cut_short_replies,
            unpaired_prompts=test.unpaired_prompts,
            prompts_needed=test.prompts_needed,
            labels=test.labels,
            labels_needed=test.labels_needed,
            judge_before=test.judge_rates[0],
            judge_after=test.judge_rates[1],
        ),
    )


def judge_alone_notes(tests: Sequence[RiseTest | MarginTest]) -> list[str]:
    """Return a note on the rates that labels do not correct, where they correct others; else nothing."""
    alone = [
        f"{test.model} {test.name} ({test.prompts})"
        for test in tests
        if isinstance(test, RiseTest) and test.n and test.labels is None
    ]
    return (
        [f"Note: by the judge alone, because none of the replies were labelled: {'; '.join(alone)}."] if alone else []
    )


def _explain_outcome(test: RiseTest) -> str:
    parts = [OUTCOME_WORDS[test.outcome]]
    if test.outcome == INCONCLUSIVE:
        if test.unpaired_prompts:
            parts.append(f"verdicts on {test.unpaired_prompts} of {test.n} prompts are on one side only")
        if test.lost_replies:
            parts.append(f"{test.lost_replies} replies have no verdict")
        if test.cut_short_replies:
            parts.append(cut_short_text(test.cut_short_replies))
        if test.unlabeled:
            parts.append(test.unlabeled)
        elif test.labels is not None:
            parts.append(_labels_text(test))
        elif not test.n:
            needed_text = (
                "no number of prompts" if test.prompts_needed is None else f"at least {test.prompts_needed:,} prompts"
            )
            parts.append(f"{needed_text}, each its own cluster and none changed, would tell")
        elif test.prompts_needed is not None:
            parts.append(f"{_needed_text(test, test.prompts_needed)} would tell")
        elif not (test.lost_replies or test.unpaired_prompts or test.cut_short_replies):
            parts.append("no number of prompts like these would tell")
    if any(rate is not None for rate in test.judge_rates):
        before, after = ("not measured" if rate is None else f"{rate:.1%}" for rate in test.judge_rates)
        parts.append(f"by the judge alone {before} → {after}")
    return "; ".join(parts)


def _labels_text(test: RiseTest) -> str:
    if test.labels_needed is None:
        return "no number of labels would tell, so ask more prompts"
    return f"some {test.labels_needed:,} labels of the {test.labelable:,} replies would tell"


def _needed_text(test: RiseTest, prompts: int) -> str:
    """What it takes to decide: more clusters, where several prompts make one; more prompts of the same would not do."""
    clusters = test.pessimistic_rise.design.clusters
    if clusters >= test.n:
        return f"some {prompts:,} prompts like these"
    needed = ceil(prompts * clusters / test.n)
    return f"some {needed:,} clusters like these ({ceil(needed * test.n / clusters):,} prompts)"


def rate_findings(rate_check: RateCheck) -> list[GateFinding]:
    """Return one gate finding for each rate with a limit."""
    return [
        GateFinding(
            model=rate.run,
            metric=rate.name,
            estimate=f"{rate.measured:.1%}",
            lower_bound="",
            upper_bound=f"{100 * rate.value:.1f}",
            limit=f"rate {100 * rate.limit:.4g}",
            outcome=rate.outcome,
            sentence=_rate_sentence(rate),
            numbers=FindingNumbers(
                *("rate", None, rate.measured, None, rate.value, rate.limit), cut_short_replies=rate.cut_short_replies
            ),
        )
        for rate in rate_check.rates
    ]


def _rate_sentence(rate: CheckedRate) -> str:
    if rate.outcome == FAILED:
        return rate.violation_sentence
    start, limit = f"{rate.run}: {rate.name} {rate.formatted}", f"{100 * rate.limit:g}%"
    if rate.outcome == PASSED:
        return f"{start} keeps the limit of {limit}"
    return f"{start}; the limit is {limit}: {OUTCOME_WORDS[INCONCLUSIVE]}; {cut_short_text(rate.cut_short_replies)}"


def gate_sentence(findings: Sequence[GateFinding], change: str = "") -> str:
    """One sentence for all, and what it is about: the models, and the change between them if it is named."""
    code = exit_code([finding.outcome for finding in findings])
    outcome_sentence = GATE_SENTENCES[code].format(
        gate=gate_name(change), k=sum(finding.outcome == code for finding in findings), n=len(findings)
    )
    return f"{outcome_sentence} (exit {code}). {SCOPE}"


def gate_name(change: str = "") -> str:
    """Return the gate as the subject of a sentence, with the change that it is about."""
    return f"The gate on the change “{change}”" if change else "The gate"


def gate_json(decision: GateDecision) -> str:
    """Return the decision as JSON, with shares from 0 to 1, margins in nats, and null for a bound that does not exist.

    Keys: `scope`, `exit_code`, `sentence`, `change`, `confidence`, `compared` (files with their role and SHA-256),
    `findings` (texts and numbers of each limit) and `notes`.
    """
    content = {
        "scope": "model",
        "exit_code": decision.exit_code,
        "sentence": gate_sentence(decision.findings, decision.change),
        "change": decision.change or None,
        "confidence": decision.confidence,
        "compared": [asdict(file) for file in decision.compared],
        "findings": [_finding_json(finding) for finding in decision.findings],
        "notes": list(decision.notes),
    }
    return escaped_json(content, indent=1) + "\n"


def _finding_json(finding: GateFinding) -> dict[str, Any]:
    texts = {
        "model": finding.model,
        "metric": finding.metric,
        "outcome": OUTCOME_WORDS[finding.outcome],
        "sentence": finding.sentence,
    }
    return texts | ({} if finding.numbers is None else asdict(finding.numbers))


def gate_markdown(findings: Sequence[GateFinding], change: str = "", notes: Sequence[str] = ()) -> str:
    """A table, worst first, with the sentence above it, and what is undecided and the notes below it."""
    outcome_order = (FAILED, INCONCLUSIVE, PASSED)
    lines = [
        f"**undersong gate** {OUTCOME_ICONS[exit_code([finding.outcome for finding in findings])]} "
        f"{gate_sentence(findings, escape_markdown(change))}",
        "",
    ]
    lines += [markdown_row(TABLE_HEADER), "|" + " --- |" * len(TABLE_HEADER)]
    for finding in sorted(findings, key=lambda finding: outcome_order.index(finding.outcome)):
        cells = (
            finding.model,
            finding.metric,
            finding.estimate,
            finding.lower_bound,
            finding.upper_bound,
            finding.limit,
        )
        lines.append(
            markdown_row(
                (*map(escape_markdown, cells), f"{OUTCOME_ICONS[finding.outcome]} {OUTCOME_WORDS[finding.outcome]}")
            )
        )
    inconclusive_lines = [
        f"- {escape_markdown(finding.sentence)}" for finding in findings if finding.outcome == INCONCLUSIVE
    ]
    return (
        "\n".join(
            [
                *lines,
                "",
                "Rises of rates, their bounds and limits are in points; those of the refusal margin in nats.",
                *inconclusive_lines,
                *(f"- {escape_markdown(note)}" for note in notes),
            ]
        )
        + "\n"
    )


def gate_junit_xml(findings: Sequence[GateFinding], change: str = "", notes: Sequence[str] = ()) -> str:
    """Return the findings as JUnit XML, one test case each.

    A broken limit is a failure. An inconclusive test is an error, because a skipped test counts as passed. The notes
    are the output of the suite.
    """
    outcome_counts = {
        kind: str(sum(finding.outcome == code for finding in findings)) for kind, code in _JUNIT_OUTCOMES.items()
    }
    attributes = {"name": "undersong gate", "tests": str(len(findings)), **outcome_counts}
    test_suites = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(test_suites, "testsuite", attributes)
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", name="scope", value="model")
    if change:
        ElementTree.SubElement(properties, "property", name="change", value=escape_line(change))
    for finding in findings:
        test_case = ElementTree.SubElement(
            suite, "testcase", classname=escape_line(finding.model), name=escape_line(finding.metric)
        )
        if finding.outcome == PASSED:
            ElementTree.SubElement(test_case, "system-out").text = escape_line(finding.sentence)
        else:
            kind = "failure" if finding.outcome == FAILED else "error"
            ElementTree.SubElement(
                test_case, kind, message=escape_line(finding.sentence), type=OUTCOME_WORDS[finding.outcome]
            )
    if notes:
        ElementTree.SubElement(suite, "system-out").text = "\n".join(map(escape_line, notes))
    ElementTree.indent(test_suites)
    return ElementTree.tostring(test_suites, encoding="unicode", xml_declaration=True) + "\n"


_JUNIT_OUTCOMES = {"failures": FAILED, "errors": INCONCLUSIVE}


def _format_points(share: float) -> str:
    return f"{100 * share:+.2f}"
