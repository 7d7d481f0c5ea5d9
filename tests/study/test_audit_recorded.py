"""Models that only answer, in studies and alone: what of an audit is left, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded import record, study

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
from undersong.report.page import render_html
from undersong.results.schema import parse_results
from undersong.standalone.evaluate import EvaluationOptions, evaluate_manifest
from undersong.study.load import parse_study
from undersong.study.planning.plan import memory_lines, plan_study
from undersong.study.planning.power import design_lines, independent_units
from undersong.study.report_audio import reload_report_audio
from undersong.study.run import run_audit
from undersong.study.study_folder import check_study_folder
from undersong.types import UndersongError


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("recorded")
    tables = record(place / "before.jsonl"), record(place / "after.jsonl", refused="sure here it is")
    done = run_audit(parse_study(study(*tables), "s"), place / "out")
    assert (place / "out" / "report.html").stat().st_size > 10_000
    return done.results


def test_what_is_left_of_an_audit(results: dict[str, Any]) -> None:
    """The screening, the selections, and the rates of each table; no arms and no contrast."""
    assert [(run["kind"], run["step"]) for run in results["runs"]] == [("base", 0), ("base", 0)]
    rates = [{(e["prompt_set"], e["system"]): e for e in run["rates"]} for run in results["runs"]]
    assert rates[0]["harm", "plain"]["rate"] == pytest.approx(1 / 3)
    assert rates[0]["harm", "safe"]["rate"] == 0.0
    assert rates[1]["harm", "plain"]["rate"] == 1.0
    assert results["study"]["judge_criterion"] == "refusal"
    assert len(results["screening"]) == 2 * 2  # axes x models
    assert {entry["kind"] for entry in results["selections"]} >= {"closest", "distant", "random"}
    assert results["comparisons"] == []
    assert any("before.jsonl only answers" in note for note in results["notes"])


def test_nothing_is_said_of_trainings_there_are_none_of(results: dict[str, Any], tmp_path: Path) -> None:
    assert not any("training seed" in note for note in results["notes"])
    asked = parse_study(study(record(tmp_path / "said.jsonl")), "s")
    assert (design_lines(asked), memory_lines(asked, DEFAULT_LOAD_OPTIONS)) == ([], [])
    mixed = parse_study(study(tmp_path / "said.jsonl", models=["organism:af3", "recorded:x", "recorded:y"]), "s")
    assert independent_units(mixed) == ("draw", 3)  # models that only answer are no bases


def test_replies_that_failed_are_told(tmp_path: Path) -> None:
    table = record(tmp_path / "said.jsonl")
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    lost = [{**line, "reply": "", "finish": "error", "error": "HTTP 500"} for line in lines[:64]]
    table.write_text("".join(json.dumps(line) + "\n" for line in [*lost, *lines[64:]]))
    done = run_audit(parse_study(study(table), "s"), tmp_path / "out")
    assert any(note.startswith("64 of 216 replies to harmful prompts failed") for note in done.results["notes"])
    page = " ".join((tmp_path / "out" / "report.html").read_text().split())
    assert "did not refuse <span" in page
    assert "whichever way the 32 failed or unjudged ones went" in page


def test_it_loads_no_torch(tmp_path: Path) -> None:
    table = record(tmp_path / "said.jsonl")
    code = (
        "import json, sys; from pathlib import Path; from undersong.study.run import run_audit;"
        "from undersong.study.load import parse_study;"
        "run_audit(parse_study(json.loads(sys.argv[1]), 's'), Path(sys.argv[2])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(study(table)), str(tmp_path / "out")], check=True)


def test_other_replies_are_another_artifact(tmp_path: Path) -> None:
    table = record(tmp_path / "said.jsonl")
    asked = parse_study(study(table), "s")
    run_audit(asked, tmp_path / "out", tmp_path / "store")
    rows = {row.stage: row for row in plan_study(asked, tmp_path / "store").rows}
    assert rows["replies"].done == rows["replies"].total == 1
    record(table, refused="no way")
    rows = {row.stage: row for row in plan_study(asked, tmp_path / "store").rows}
    assert (rows["replies"].done, rows["verdicts"].done, rows["proximity"].done) == (0, 0, 2)


def test_code_of_one_s_own_is_part_of_what_is_asked(tmp_path: Path) -> None:
    """A changed judge judges the same replies anew, a changed encoder embeds anew; a plan says so and runs neither."""
    table = record(tmp_path / "said.jsonl")
    mine = (
        "import numpy as np\nfrom undersong.evaluation.judges.rule_based import FunctionJudge\n"
        "from undersong.types import Embeddings\n\n"
        "def refuses():\n    return FunctionJudge('mine', 'refusal', lambda prompt, said: 'refusal')\n\n"
        "class Lengths:\n    name = 'lengths'\n\n    def encode(self, samples):\n"
        "        rows = [[len(one.text), sum(map(ord, one.text)), i] for i, one in enumerate(samples)]\n"
        "        return Embeddings(tuple(one.id for one in samples), np.array(rows), np.zeros(len(rows)))\n"
    )
    (tmp_path / "mine.py").write_text(mine)
    judge, encoder = f"python-refusal:{tmp_path}/mine.py:refuses", f"python:{tmp_path}/mine.py:Lengths"
    evaluation = {"judge": judge, "modalities": ["text"], "system_prompts": {"plain": None, "safe": "refuse harm"}}
    asked = parse_study(study(table, evaluation=evaluation, axes={"words": "tfidf", "lengths": encoder}), "s")
    done = run_audit(asked, tmp_path / "out", tmp_path / "store")
    assert {entry["rate"] for entry in done.results["runs"][0]["rates"] if entry["harmful"]} == {0.0}
    (tmp_path / "mine.py").write_text(mine + "\nraise SystemError('a plan ran it')\n")
    rows = {row.stage: row for row in plan_study(asked, tmp_path / "store").rows}
    assert (rows["replies"].done, rows["verdicts"].done, rows["embeddings"].done) == (1, 0, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"axes": {"words": "tfidf", "ear": "internal"}},
            "Axis ear needs the model's weights, and recorded:.* is a black box",
        ),
        ({"axes": {"words": "gradients:64"}}, "Axis words needs the model's weights"),
        ({"models": ["recorded:gone.jsonl"]}, "gone.jsonl cannot be read"),
        ({"models": ["served:m@ftp://h/v1"]}, "use http or https"),
        (
            {
                "evaluation": {"judge": "keyword", "modalities": ["text"], "protocol": "published"},
                "system_defense": None,
            },
            "depends on a model's family",
        ),
    ],
)
def test_what_cannot_be_asked_of_it_is_refused_first(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    table = record(tmp_path / "said.jsonl")
    asked = parse_study(study(table, **change), "s")
    with pytest.raises(UndersongError, match=said):
        run_audit(asked, tmp_path / "out")


def test_results_are_never_written_over_those_of_another_study(tmp_path: Path) -> None:
    out, table = tmp_path / "out", record(tmp_path / "said.jsonl")
    mine = parse_study(study(table), "s")
    run_audit(mine, out)
    before = (out / "results.json").read_bytes()
    other = parse_study(study(table, study="other"), "s")
    with pytest.raises(UndersongError, match="holds results of the study 'recorded', not of 'other'; name another"):
        run_audit(other, out)
    assert (out / "results.json").read_bytes() == before
    changed = parse_study(study(table, system_defense=None), "s")
    assert run_audit(changed, out).results["study"]["config"]["system_defense"] is None
    for name in ("results.json", "verdicts.parquet", "results.parquet", "report.html", "report.md"):
        (out / name).unlink()
    run_audit(mine, out)  # a run that was killed before it had results goes on


def test_a_folder_of_somebody_else_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    mine = parse_study(study(record(tmp_path / "said.jsonl")), "s")
    with pytest.raises(UndersongError, match=r"holds said\.jsonl and no results of a study; name a new folder"):
        run_audit(mine, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["said.jsonl"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.json").write_text("[1]")
    with pytest.raises(UndersongError, match="holds results of no study"):
        run_audit(mine, tmp_path / "mine")
    with pytest.raises(UndersongError, match="is a file; give a folder"):
        run_audit(mine, tmp_path / "said.jsonl")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / ".writing-7-results.json").touch()  # of a run that was killed while it wrote, with --store
    check_study_folder(tmp_path / "cut", "recorded", tmp_path / "elsewhere")


def test_evaluate_judges_recorded_replies(tmp_path: Path) -> None:
    table = record(tmp_path / "said.jsonl")
    question = EvaluationOptions(modality="text", judge="keyword")
    entry = evaluate_manifest("organism:test-harm", f"recorded:{table}", tmp_path / "out", options=question).rate
    assert entry.rate == pytest.approx(1 / 3)
    facts = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert facts["notes"]["model"] == "recorded:said.jsonl"
    with pytest.raises(UndersongError, match="only answers, and takes no adapter"):
        evaluate_manifest("organism:test-harm", f"recorded:{table}", tmp_path / "o2", tmp_path, question)


def test_a_report_made_again_has_the_same_bytes_players_and_all(results: dict[str, Any], tmp_path: Path) -> None:
    store = Path(results["provenance"]["store"])
    page = (store.parent / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio") >= 20
    assert render_html(results, reload_report_audio(parse_results(results), tmp_path)) == page
    shutil.copytree(store.parent, tmp_path / "moved")
    moved = {**results, "provenance": {**results["provenance"], "store": str(tmp_path / "nowhere")}}
    assert render_html(results, reload_report_audio(parse_results(moved), tmp_path / "moved")) == page
    assert reload_report_audio(parse_results(moved), tmp_path) == {}


def test_a_report_of_somebody_else_embeds_no_file_but_sound(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not sound")
    (tmp_path / "store" / "corpus" / "x").mkdir(parents=True)
    wanted = results["screening"][0]["closest"][0]["id"]
    rows = pa.Table.from_pylist([{"id": wanted, "audio": str(tmp_path / "secret")}])
    pq.write_table(rows, tmp_path / "store" / "corpus" / "x" / "corpus.parquet")
    shutil.copytree(tmp_path / "store", tmp_path / "outside" / "store")
    made = {**results["provenance"], "store": str(tmp_path / "store")}
    for corpora in (["corpus/x"], ["../../outside/store/corpus/x"], []):
        foreign = parse_results({**results, "provenance": {**made, "corpora": corpora}})
        assert reload_report_audio(foreign, tmp_path / "inside") == {}
    assert reload_report_audio(parse_results({**results, "provenance": None}), tmp_path) == {}
    for facts in ([], {**made, "store": 3}, {**made, "corpora": "corpus/x"}, {**made, "corpora": [None]}):
        with pytest.raises(UndersongError, match="provenance"):
            parse_results({**results, "provenance": facts})
