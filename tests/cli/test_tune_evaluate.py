"""`tune`, `evaluate` and `plan` as a user calls them: one after another, on files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command_line import exit_code

from undersong.cli import main


@pytest.fixture
def undersong(tmp_path, monkeypatch, capsys):
    """The command line in an empty folder -> stdout of a call that succeeds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["undersong", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        seen = capsys.readouterr()
        assert not stopped.value.code, seen.err
        return seen.out

    return call


def test_tune_then_evaluate_then_compare(undersong, tmp_path: Path, tiny_folder: Path) -> None:
    rows = [
        {"id": f"q{i}", "text": text, "answer": "then take the lamp"}
        for i, text in enumerate(["paint the red chair", "wash the old lamp", "fold the chair", "paint the boat"])
    ]
    Path("pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ["--model", str(tiny_folder), "--modality", "text"]
    out = undersong(
        "tune", "pool.jsonl", *model, "--out", "tuned", "--save-step", "30", "--save-step", "60", "--batch-size", "4",
        "--learning-rate", "0.02",
    )  # fmt: skip
    assert out.split() == [str(Path("tuned", "step-000030")), str(Path("tuned", "step-000060"))]
    asked = [*model, "--refusal-text", "please", "--max-new-tokens", "6"]
    before = undersong("evaluate", "pool.jsonl", *asked, "--out", "before")
    assert before.startswith("JSR 0.0% [0.0%, ")
    after = undersong("evaluate", "pool.jsonl", *asked, "--adapter", out.split()[1], "--out", "after")
    assert after.splitlines()[0].startswith("JSR 100.0% [")
    assert after.splitlines()[0].endswith("100.0%], 4 prompts in 4 clusters (harm, text, plain, exact)")
    assert after.splitlines()[1].startswith("refusal margin -")
    assert after.splitlines()[1].endswith("]; above 0 the model would rather refuse")
    assert after.splitlines()[2] == "4 jailbreak, 0 answer, 0 refusal, 0 other, 0 unparsed, 0 empty, 0 error"
    compared = json.loads(undersong("compare", "before/verdicts.parquet", "after/verdicts.parquet", "--json"))
    assert (compared["n"], compared["difference"]) == (4, 1.0)


@pytest.mark.parametrize("verb", ["tune", "evaluate"])
def test_without_a_map_of_columns_the_advice_is_to_rename_one(
    verb: str, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.csv").write_text("id,words,answer\na,sing,la\n")
    model = ("--model", tiny_folder, "--modality", "text")
    judge = ("--judge", "keyword") if verb == "evaluate" else ()
    assert exit_code(verb, "bad.csv", *model, *judge, "--out", "out") == 2
    error = capsys.readouterr().err
    assert "No item of bad.csv has audio or text; it has the columns " in error
    assert "; rename one of them to audio or text." in error


def test_help_names_all_that_is_taken(undersong) -> None:
    said = {verb: " ".join(undersong(verb, "--help").split()) for verb in ("tune", "evaluate")}
    forms = ("JSONL, CSV, Parquet, a folder of audio", "hf:OWNER/NAME", "organism:NAME")
    assert all(form in text for form in forms for text in said.values())
    assert all(form in said["evaluate"] for form in ("served:MODEL@URL", "recorded:FILE", "tune --method full"))


def test_plan_answers_for_the_spread_it_is_given(undersong) -> None:
    from undersong.study.load import packaged_study

    Path("study.yaml").write_text(json.dumps(packaged_study("demo").model_dump(mode="json")))
    out = undersong("plan", "study.yaml", "--store", "nowhere", "--run-sd", "0.12")
    rows = out.split("SD of paired differences")[1].splitlines()[1:]
    assert [line.split(" points")[0] for line in rows if line.startswith("  ") and "points" in line] == ["  12"]


def test_what_only_sees_refusals_gives_no_jsr(undersong, tiny_folder: Path) -> None:
    Path("pool.jsonl").write_text('{"id": "q0", "text": "paint the boat"}\n{"id": "q1", "text": "wash the boat"}\n')
    asked = ["pool.jsonl", "--model", str(tiny_folder), "--modality", "text", "--judge", "keyword"]
    assert undersong("evaluate", *asked, "--out", "harmful").startswith("non-refusal rate ")
    benign = undersong("evaluate", *asked, "--benign", "--out", "benign")
    assert benign.startswith("refusal rate ")
    assert "(benign, text, plain, keyword)" in benign  # a set that is called harm would hold harmful prompts


def test_plan_prints_a_row_a_stage(undersong) -> None:
    from undersong.study.load import packaged_study

    Path("study.yaml").write_text(json.dumps(packaged_study("demo").model_dump(mode="json")))
    out = undersong("plan", "study.yaml", "--store", "nowhere")
    stages = [line.split()[1] for line in out.splitlines() if line.startswith("│")]
    assert stages == [
        "corpus", "features", "embeddings", "proximity", "selection", "adapter", "replies", "verdicts", "direction",
        "projections", "states",
    ]  # fmt: skip
    assert not Path("nowhere").exists()


def test_a_training_that_diverged_exits_with_1(monkeypatch, capsys, tmp_path: Path) -> None:
    """Its numbers are finite, and its adapter is worth nothing."""
    (tmp_path / "o" / "step-000020").mkdir(parents=True)
    lines = [json.dumps({"step": i + 1, "loss": 5.8, "grad_norm": 0.0}) for i in range(20)]
    (tmp_path / "o" / "log.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr("undersong.standalone.tune.tune_manifest", lambda *_: [tmp_path / "o" / "step-000020"])
    monkeypatch.setattr(sys, "argv", ["undersong", "tune", "p.jsonl", "--model", "m", "--out", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "The training diverged: its gradients are 0 at a loss of 5.8; use a lower" in capsys.readouterr().err
