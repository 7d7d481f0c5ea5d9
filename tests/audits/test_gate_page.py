"""The gate's page: whole without a network, worst first, and nothing hostile in it."""

from __future__ import annotations

import re
from pathlib import Path

from gated import HOSTILE, benign, harm

from undersong.audits.gate.findings import ComparedFile, GateDecision
from undersong.audits.gate.output import finding_of
from undersong.audits.gate.page import render_gate_page
from undersong.audits.gate.rises import RiseLimits, evaluate_rises
from undersong.evaluation.verdicts import write_verdicts


def decide(before, after, change: str = "", **limits: float) -> GateDecision:
    findings = map(finding_of, evaluate_rises({HOSTILE: (before, after)}, RiseLimits(**limits)))
    return GateDecision(tuple(findings), change, (ComparedFile("before", HOSTILE, "ab" * 32),))


def test_the_page_loads_nothing_and_escapes_names() -> None:
    page = render_gate_page(decide(harm(100, 0), harm(100, 60), HOSTILE, jsr=0.02))
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=["']?(?!#)[^"'#]""", page)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3  # the change, the model, the file


def test_the_page_has_verdict_numbers_limits_and_files() -> None:
    before, after = harm(100, 0) + benign(40, 0), harm(100, 60) + benign(40, 0)
    page = render_gate_page(decide(before, after, "merging", jsr=0.02, over_refusal=0.05))
    assert "The gate on the change “merging” failed: 1 of 2 limits broken" in page
    assert page.index(">broken<") < page.index(">cannot tell<")
    assert "+60.0" in page  # the rise in points
    assert "would tell" in page
    assert "abababababababab" in page


def test_a_limit_on_rates_has_its_figure(gate, tmp_path: Path) -> None:
    verdicts, page = tmp_path / "a.parquet", tmp_path / "new" / "gate.html"
    write_verdicts(harm(100, 5), verdicts)
    assert gate(verdicts, "--max-jsr", 0.5, "--page", page)[0] == 0
    assert "Each rate in percent" in page.read_text(encoding="utf-8")
