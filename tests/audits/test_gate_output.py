"""What a gate writes: JUnit XML that parses, Markdown that holds its table, and nothing hostile in either."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gated import HOSTILE, benign, harm

from undersong.audits.gate.findings import FAILED, INCONCLUSIVE, PASSED, ComparedFile, GateDecision, GateFinding
from undersong.audits.gate.output import gate_json, gate_junit_xml, gate_markdown, gate_sentence, rise_finding
from undersong.audits.gate.page import render_gate_page
from undersong.audits.gate.rises import RiseLimits, evaluate_rises
from undersong.evaluation.verdicts import write_verdicts


def case(outcome: int, model: str = "m") -> GateFinding:
    return GateFinding(model, "JSR, harm", "0.0% → 1.0%", "+0.10", "+2.00", "rise 2", outcome, f"{model}: JSR rose")


def test_junit_counts_and_says_why() -> None:
    whole = ElementTree.fromstring(gate_junit_xml([case(PASSED), case(FAILED), case(INCONCLUSIVE), case(INCONCLUSIVE)]))
    suite = whole.find("testsuite")
    assert [suite.get(key) for key in ("tests", "failures", "errors")] == ["4", "1", "2"]
    assert [len(suite.findall(f"testcase/{kind}")) for kind in ("system-out", "failure", "error")] == [1, 1, 2]
    assert suite.find("testcase/failure").get("message") == "m: JSR rose"
    assert suite.find("properties/property").get("value") == "model"


def test_the_summary_has_the_worst_first() -> None:
    text = gate_markdown([case(PASSED), case(INCONCLUSIVE), case(FAILED)])
    lines = [line for line in text.splitlines() if line.startswith("| m ")]
    assert [line.split("|")[-2].strip() for line in lines] == ["❌ broken", "❔ cannot tell", "✅ kept"]
    assert "The gate failed: 1 of 3 limits broken (exit 1). Scope: the model" in text


def test_the_sentence_of_each_code() -> None:
    assert gate_sentence([case(PASSED)]).startswith("The gate passed: 1 of 1 limits kept (exit 0)")
    said = "The gate is undecided: no limit is broken, and 1 of 2 need more data (exit 3)"
    assert gate_sentence([case(PASSED), case(INCONCLUSIVE)]).startswith(said)


def test_names_that_others_wrote_do_nothing() -> None:
    cases = [case(INCONCLUSIVE, HOSTILE)]
    suite = ElementTree.fromstring(gate_junit_xml(cases).encode()).find("testsuite")
    assert suite.find("testcase").get("classname").startswith("m|<script>alert(1)</script>")
    text = gate_markdown(cases)
    text.encode()
    (row,) = [line for line in text.splitlines() if "script" in line and line.startswith("|")]
    assert row.replace("\\|", "").count("|") == 8
    for raw in ("<script", "![x]", "[x](", "@everyone", "\x1b", " `$"):
        assert raw not in text.replace("\\<", "").replace("\\!\\[", "").replace("\\[", "").replace(" \\`", "")


def test_no_output_obeys_a_name() -> None:
    """A CI log runs `##[error]`, and a terminal or browser obeys controls and marks of direction."""
    name = "::error::x ##[error]y \x9b31m \x85 \u202egnp"
    decision = GateDecision((case(FAILED, name),), name, (ComparedFile("before", name, "0" * 64),), notes=(name,))
    outputs = {
        "json": gate_json(decision),
        "junit": gate_junit_xml(decision.findings, name, (name,)),
        "markdown": gate_markdown(decision.findings, name, (name,)),
        "page": render_gate_page(decision),
    }
    for kind, text in outputs.items():
        assert not any(character in text for character in "\x9b\x85\u202e"), kind
        assert kind == "page" or "##[error]" not in text, kind
        assert kind == "page" or not any(line.lstrip().startswith("::") for line in text.split("\n")), kind
    content = json.loads(outputs["json"])
    assert (content["change"], content["findings"][0]["model"], content["notes"]) == (name, name, [name])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (harm(400, 0), harm(399, 0), "cannot tell; verdicts on 1 of 400 prompts are on one side only"),
        (harm(40, 0), benign(9, 0), "plain, exact) 0.0% → not measured over 40 prompts"),
        (benign(9, 0), benign(9, 0), "m: JSR (harmful prompts) was not measured: cannot tell; at least 149 prompts"),
        (harm(149, 0, judge="keyword"), harm(149, 0, judge="keyword"), "m: non-refusal rate (harm, audio, "),
    ],
)  # fmt: skip
def test_lines(before, after, said: str) -> None:
    (one,) = evaluate_rises({"m": (before, after)}, RiseLimits(jsr=0.02))
    assert said in rise_finding(one).sentence


def test_both_are_written_whatever_the_code(gate, tmp_path: Path) -> None:
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_verdicts(harm(100, 0), a)
    write_verdicts(harm(100, 60), b)
    files = ("--junit", tmp_path / "new" / "j.xml", "--markdown", tmp_path / "s.md")  # folders are made, as by pytest
    assert gate("--before", a, "--after", b, "--max-jsr-rise", 0.02, *files)[0] == 1
    assert ElementTree.parse(tmp_path / "new" / "j.xml").getroot().get("failures") == "1"
    assert "❌ broken" in (tmp_path / "s.md").read_text(encoding="utf-8")
    assert gate(a, "--max-jsr", 0.5, *files)[0] == 0
    assert "rate 50" in (tmp_path / "s.md").read_text(encoding="utf-8")


def test_every_output_names_the_change(gate, tmp_path: Path) -> None:
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_verdicts(harm(100, 0), a)
    write_verdicts(harm(100, 60), b)
    files = {kind: tmp_path / f"gate.{kind}" for kind in ("page", "junit", "markdown", "json")}
    options = [word for kind, file in files.items() for word in (f"--{kind}", file)]
    code, _, err = gate("--before", a, "--after", b, "--max-jsr-rise", 0.02, "--change", "to 4 <bits>", *options)
    assert code == 1
    assert err.startswith("The gate on the change “to 4 <bits>” failed: 1 of 1 limits broken")
    texts = {kind: file.read_text(encoding="utf-8") for kind, file in files.items()}
    assert "The gate on the change “to 4 &lt;bits&gt;” failed" in texts["page"]
    assert "“to 4 \\<bits\\>” failed" in texts["markdown"]
    assert ElementTree.fromstring(texts["junit"]).find(".//property[@name='change']").get("value") == "to 4 <bits>"
    assert json.loads(texts["json"])["change"] == "to 4 <bits>"


def test_the_json_has_every_number(gate, tmp_path: Path) -> None:
    a, b, file = tmp_path / "a.parquet", tmp_path / "b.parquet", tmp_path / "gate.json"
    write_verdicts(harm(40, 0), a)
    write_verdicts(harm(40, 1), b)
    assert gate("--before", a, "--after", b, "--max-jsr-rise", 0.02, "--json", file)[0] == 3
    content = json.loads(file.read_text(encoding="utf-8"))
    assert (content["exit_code"], content["change"], content["scope"]) == (3, None, "model")
    assert [one["role"] for one in content["compared"]] == ["before", "after"]
    assert all(len(one["sha256"]) == 64 for one in content["compared"])
    (finding,) = content["findings"]
    numbers = ("kind", "before", "after", "limit", "n", "clusters")
    assert [finding[key] for key in numbers] == ["rise", 0.0, 0.025, 0.02, 40, 40]
    assert finding["low"] < 0.025 < finding["high"]
    assert finding["outcome"] == "cannot tell"


def test_json_of_what_was_not_measured_has_no_number() -> None:
    (test,) = evaluate_rises({"m": (benign(9, 0), benign(9, 0))}, RiseLimits(jsr=0.02))
    (finding,) = json.loads(gate_json(GateDecision((rise_finding(test),))))["findings"]
    assert (finding["before"], finding["low"], finding["n"]) == (None, None, 0)
