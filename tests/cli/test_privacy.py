"""What no output may hold: replies without --show-replies, and passwords in addresses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run_here
from recorded import record, study, written

SECRET = "ZZsecretpw"
MARKER = "ZZharmreply"
ADDRESS = f"m@http://u:{SECRET}@127.0.0.1:9/v1"


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_shown_replies_are_private_and_no_part_of_the_result_hash(tmp_path: Path) -> None:
    said = record(tmp_path / "said.jsonl", refused=f"i cannot {MARKER}")
    rows = [json.loads(line) | {"modality": "audio"} for line in said.read_text().splitlines()]
    said.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = study(said)
    keys["evaluation"]["modalities"] = ["audio"]
    (tmp_path / "s.yaml").write_text(json.dumps(keys))
    hidden = run_here(tmp_path, "run", "s.yaml", "--out", "out")
    results, page = tmp_path / "out" / "results.json", tmp_path / "out" / "report.html"
    assert hidden.returncode == 0, hidden.stderr
    assert MARKER not in results.read_text() + page.read_text()
    assert mode(results) == mode(page) == 0o644
    shown = run_here(tmp_path, "run", "s.yaml", "--out", "out", "--show-replies")
    assert MARKER in results.read_text()
    assert MARKER in page.read_text()
    assert mode(results) == mode(page) == 0o600
    hashes = [
        next(line for line in done.stdout.splitlines() if line.startswith("result hash")) for done in (hidden, shown)
    ]
    assert hashes[0] == hashes[1]
    again = run_here(tmp_path, "report", "out", "--show-replies", "--out", "again.html")
    assert again.returncode == 0, again.stderr
    assert MARKER in (tmp_path / "again.html").read_text()
    assert mode(tmp_path / "again.html") == 0o600


@pytest.mark.parametrize("field", ["reply", "answers", "finish", "prompt", "error"])
def test_an_error_never_quotes_a_reply(field: str, tmp_path: Path) -> None:
    row = {"prompt_id": "p", "prompt": "x", "reply": "y"} | {field: [MARKER, 1]}
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    done = run_here(tmp_path, "judge", "r.jsonl", "--judge", "keyword", "--out", "o")
    assert done.returncode == 2
    assert "row 1 has a list as " + field in done.stderr
    assert MARKER not in done.stderr + done.stdout


def commands(folder: Path) -> list[list[str]]:
    base = written(folder, study(record(folder / "said.jsonl")))
    variants = {
        "model": {"models": [f"served:{ADDRESS}"]},
        "axis": {"models": [f"served:{ADDRESS}"], "axes": {"inner": "internal"}, "selection": {"axes": ["inner"]}},
        "judge": {"evaluation": base["evaluation"] | {"judge": f"llm:{ADDRESS}"}},
        "matrix": {"matrix": {"models": [[f"served:{ADDRESS}"]]}},
        "slash": {"models": [f"served:m@http://u:{SECRET}/x@127.0.0.1:9/v1"]},
        "query": {"models": [f"served:m@http://127.0.0.1:9/v1?key={SECRET}"]},
        "good": {},
    }
    for name, change in variants.items():
        (folder / f"{name}.yaml").write_text(json.dumps(base | change))
    verbs = [[verb, f"{name}.yaml"] for name in variants if name != "good" for verb in ("plan", "run", "status")]
    evaluate = ["evaluate", "said.jsonl", "--out", "o", "--model"]
    return [
        *verbs,
        ["plan", "good.yaml", "--override", f"models=[served:{ADDRESS}]"],
        ["plan", "good.yaml", "--override", f"evaluation.judge=llm:{ADDRESS}"],
        [*evaluate, f"served:{ADDRESS}", "--judge", "keyword"],
        [*evaluate, "recorded:said.jsonl", "--judge", f"llm:{ADDRESS}"],
        ["judge", "said.jsonl", "--judge", f"strongreject:{ADDRESS}", "--out", "o"],
        ["tune", "said.jsonl", "--model", f"served:{ADDRESS}", "--out", "o"],
        ["doctor", f"served:{ADDRESS}"],
        ["verify", f"served:{ADDRESS}"],
    ]


def test_no_output_holds_a_password_of_an_address(tmp_path: Path) -> None:
    given = commands(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for command in given:
        done = run_here(tmp_path, *command)
        assert done.returncode == 2, (command, done.stdout, done.stderr)
        assert SECRET not in done.stdout + done.stderr, command
        assert done.stderr.count("\n") == 1
        assert "UNDERSONG_API_KEY" in done.stderr
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before  # nothing is written
