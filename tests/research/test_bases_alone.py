"""A study without kinds trains nothing: bases are asked and judged, and that is told as what it is."""

from __future__ import annotations

from pathlib import Path

from undersong.study.load import parse_study
from undersong.study.planning.plan import plan_study
from undersong.study.planning.power import design_lines
from undersong.study.run import run_audit
from undersong.study.schema import Study


def alone() -> Study:
    data = {
        "study": "alone",
        "models": ["organism:af3"],
        "pool": "organism:unseen-benign",
        "reference": "organism:reference",
        "prompt_sets": {"harm": {"corpus": "organism:unseen-harm", "harmful": True}},
        "axes": {},
        "selection": {"axes": [], "kinds": []},
        "evaluation": {"modalities": ["audio"], "max_new_tokens": 6},
    }
    return parse_study(data, "alone")


def test_only_the_base_is_asked(tmp_path: Path) -> None:
    planned = plan_study(alone(), tmp_path / "store")
    assert {row.stage: row.total for row in planned.rows} == {"corpus": 3, "features": 3, "replies": 1, "verdicts": 1}
    (line,) = design_lines(alone())
    assert "nothing is trained" in line
    done = run_audit(alone(), tmp_path, tmp_path / "store")
    assert [one["arm"] for one in done.results["runs"]] == ["base"]
    assert (tmp_path / "report.html").is_file()
