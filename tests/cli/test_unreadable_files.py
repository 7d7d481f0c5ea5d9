"""Files that no command can read: one sentence and exit 2, and never 1 from the gate."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_here
from results_factory import make_rate, make_results, make_run

Damage = Callable[[bytes], bytes]
DEMO_STUDY = Path(__file__).parents[2] / "studies" / "demo.yaml"


def damaged_footer(data: bytes) -> bytes:
    """The metadata before the last 8 bytes are of no structure that thrift knows."""
    length = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - length] + b"\x0e" * length + data[-8:]


def damaged_page(data: bytes) -> bytes:
    """The header of the first page, after the magic number, is no header."""
    return data[:4] + b"\x0e" * 30 + data[34:]


def table(folder: Path, damage: Damage) -> str:
    columns = {
        "id": ["a", "b"], "text": ["x", "y"], "prompt_id": ["a", "b"], "reply": ["x", "y"], "judge": ["j", "j"],
        "verdict": ["refusal", "refusal"], "harmful": [True, True],
    }  # fmt: skip
    pq.write_table(pa.table(columns), folder / "t.parquet", compression="none")
    (folder / "t.parquet").write_bytes(damage((folder / "t.parquet").read_bytes()))
    (folder / "other.jsonl").write_text('{"id": "h", "text": "z"}\n')
    return "t.parquet"


def commands(file: str) -> dict[str, list[str]]:
    """Command lines that read a table."""
    recorded = ["evaluate", "organism:test-harm", "--model", f"recorded:{file}", "--judge", "keyword", "--out", "o"]
    return {
        "pool": ["screen", file, "--harm", "other.jsonl", "--out", "o"],
        "harm": ["screen", "other.jsonl", "--harm", file, "--out", "o"],
        "tune": ["tune", file, "--model", "organism:kimi", "--modality", "text", "--out", "o"],
        "evaluate": ["evaluate", file, "--model", "recorded:other.jsonl", "--judge", "keyword", "--out", "o"],
        "recorded": recorded,
        "judge": ["judge", file, "--judge", "keyword", "--out", "o"],
        "compare": ["compare", file, "other.jsonl"],
        "gate": ["gate", file, "--max-jsr", "0.1"],
        "rise": ["gate", "--before", file, "--after", "other.jsonl", "--max-jsr-rise", "0.1"],
    }


def assert_one_sentence(folder: Path, *arguments: str) -> str:
    done = run_here(folder, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    *progress, error = done.stderr.splitlines()
    assert error.startswith("undersong: ")
    assert not any(line.startswith("undersong: ") for line in progress)
    assert r"\n" not in error  # a message of several lines is one line, without escapes
    return error + "\n"


@pytest.mark.parametrize("name", commands(""))
@pytest.mark.parametrize("damage", [damaged_footer, damaged_page], ids=lambda damage: damage.__name__)
def test_a_damaged_parquet_file(name: str, damage: Damage, tmp_path: Path) -> None:
    assert_one_sentence(tmp_path, *commands(table(tmp_path, damage))[name])


@pytest.mark.parametrize("damage", [damaged_footer, damaged_page], ids=lambda damage: damage.__name__)
def test_damaged_vectors(damage: Damage, tmp_path: Path) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0, 0.5, 0.5], pa.float32()), 2)
    for name in ("t", "harm"):
        pq.write_table(
            pa.table({"id": ["a", "b"], "embedding": vectors}), tmp_path / f"{name}.parquet", compression="none"
        )
    file = tmp_path / "t.parquet"
    file.write_bytes(damage(file.read_bytes()))
    assert "t.parquet" in assert_one_sentence(tmp_path, "screen", "t.parquet", "--harm", "harm.parquet", "--out", "o")


OTHER_READERS = {  # each reads one of t.parquet, results.json, s.yaml and j.py
    "report": ["report", "results.json"],
    "results": ["gate", "results.json", "--max-jsr", "0.1"],
    "synthesize": ["synthesize", "results.json"],
    "card": ["card", "t.parquet"],
    "replies": ["replies", "t.parquet"],
    "study": ["plan", "s.yaml"],
    "registration": ["run", "demo.yaml", "--out", "o", "--registration", "results.json"],
    "match": [
        "screen",
        "other.jsonl",
        "--harm",
        "h.jsonl",
        "--keep",
        "distant:0.5",
        "--match-selection",
        "s.yaml",
        "--out",
        "o",
    ],
    "drop": ["screen", "other.jsonl", "--harm", "other.jsonl", "--drop", "s.yaml", "--out", "o"],
    "check": ["check", "t.parquet"],
    "list": ["check", "other.jsonl", "--fix", "f.jsonl", "--drop", "s.yaml"],
    "labels": ["compare", "v.jsonl", "v.jsonl", "--labels", "s.yaml"],
    "label": ["label", "r.jsonl", "--manifest", "other.jsonl", "--out", "s.yaml"],
    "labelled": ["label", "t.parquet", "--out", "new.jsonl"],
    "judge code": ["judge", "r.jsonl", "--manifest", "other.jsonl", "--judge", "python:j.py:make", "--out", "o"],
    "explored": ["check", "other.jsonl", "--explore", "t.parquet"],
    "page": ["check", "other.jsonl", "--page", "t.parquet"],
}


@pytest.mark.parametrize("name", [*commands(""), *OTHER_READERS])
@pytest.mark.parametrize("kind", ["pipe", "kernel"])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(name: str, kind: str, tmp_path: Path) -> None:
    """Opening a pipe would wait for ever, and a file of the kernel may never end."""
    for file in ("t.parquet", "results.json", "s.yaml", "j.py"):
        if kind == "pipe":
            os.mkfifo(tmp_path / file)
        else:
            (tmp_path / file).symlink_to("/proc/self/mem")  # calls itself a regular file
    (tmp_path / "other.jsonl").write_text('{"id": "h", "text": "z"}\n')
    (tmp_path / "r.jsonl").write_text('{"prompt_id": "h", "reply": "no"}\n')
    (tmp_path / "h.jsonl").write_text('{"id": "h", "text": "y"}\n')
    (tmp_path / "v.jsonl").write_text('{"prompt_id": "h", "verdict": "refusal", "judge": "j", "harmful": true}\n')
    (tmp_path / "demo.yaml").write_text(DEMO_STUDY.read_text())
    message = assert_one_sentence(tmp_path, *(commands("t.parquet") | OTHER_READERS)[name])
    if name not in ("explored", "page"):
        assert "give a regular file" in message


def deep() -> str:
    return '{"schema": ' + "[" * 100_000


def huge() -> str:
    rate = make_rate(0.5, "harm", n=8, harmful=True)
    text = json.dumps(make_results([make_run("base", [rate])]))
    return text.replace('"error": 0', f'"error": 1{"0" * 400}', 1)


@pytest.mark.parametrize("verb", [["gate", "--max-jsr", "0.5"], ["gate", "--max-jsr-rise", "0.5"], ["report"]])
@pytest.mark.parametrize(
    "text", [deep, huge, lambda: "[]", lambda: "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
)
def test_results_that_no_command_can_read(verb: list[str], text: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(text())
    assert_one_sentence(tmp_path, verb[0], "results.json", *verb[1:])


def test_a_fault_of_ours_never_looks_like_a_broken_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("undersong.audits.gate.rates.check_rates", fail)
    done = run_here(tmp_path, "gate", "v.jsonl", "--max-jsr", "0.1")
    assert done.returncode == 2
    assert "RuntimeError: a fault" in done.stderr


def test_figures_of_names_with_lone_surrogates(tmp_path: Path) -> None:
    rate = make_rate(0.5, "harm\ud800", n=8, harmful=True)
    runs = [make_run("base", [rate], model="m\udfff"), make_run("a\ud800", [rate], model="m\udfff", kind="closest")]
    (tmp_path / "results.json").write_text(json.dumps(make_results(runs, study={"name": "s\ud800"})))
    done = run_here(tmp_path, "report", "results.json", "--figures", "f")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "f").glob("*.png"))
