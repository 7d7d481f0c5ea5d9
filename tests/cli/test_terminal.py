"""What the commands print of hostile names: no control character, no forged line, no command to a CI service."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from command_line import run_apart, run_here
from results_factory import make_rate, make_results, make_run

from undersong.cli import main
from undersong.cli.terminal import escaped_streams

HOSTILE = (
    "h\n::error file=x::forged\nThe gate is open: 1 of 1.\r\x1b[2J\x1b]0;PWN\x07\x9b31m\u202egnp\u2066\x08##[error]x"
)
NAMES = (HOSTILE, "::warning::y", "##vso[task.complete]z", "\u2028::notice::q")
COMMANDS = re.compile(r"^\s*::|##(\[|vso\[)", re.MULTILINE)


def assert_neutral(text: str) -> None:
    """Every character is printable or ends a line of ours, and no line is a command."""
    assert all(character.isprintable() or character in "\n\xa0" for character in text), ascii(text)
    assert not COMMANDS.search(text), text
    assert "\nThe gate is open: 1 of 1." not in text


def write_lines(file: Path, rows: list[Mapping[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file.name


def verdicts(folder: Path, name: str = "v.jsonl", verdict: str = "jailbreak") -> str:
    rows = [
        {"prompt_id": f"{i}{name}", "set": name, "system": name, "modality": "audio", "judge": name, "harmful": True}
        for i, name in enumerate(NAMES)
    ]
    return write_lines(folder / name, [row | {"verdict": verdict} for row in rows])


def one_set(folder: Path, name: str, verdict: str) -> str:
    """A table of one prompt set and judge, as `compare` and the gate on rises need it."""
    row = {"set": HOSTILE, "system": HOSTILE, "judge": HOSTILE, "harmful": True, "verdict": verdict}
    return write_lines(folder / name, [{"prompt_id": f"{i}{HOSTILE}"} | row for i in range(8)])


def results(folder: Path) -> str:
    rates = [make_rate(0.5, name, n=8, harmful=True) for name in NAMES]
    runs = [make_run("base", rates, model=HOSTILE), make_run(HOSTILE, rates, model=HOSTILE, kind="closest")]
    (folder / "results.json").write_text(json.dumps(make_results(runs, study={"name": HOSTILE})))
    return "results.json"


def pool(folder: Path) -> None:
    rows = [{"id": f"p{i}\x1b[2J\u202e::error::", "text": f"sing {i} {name}"} for i, name in enumerate(NAMES)]
    write_lines(folder / "pool.jsonl", rows)
    write_lines(
        folder / "harm.jsonl", [{"id": f"h{name[:1]}\x9b2J##[error]{i}", "text": name} for i, name in enumerate(NAMES)]
    )


def study(folder: Path, name: str, **changes: Any) -> str:
    """A study of recorded replies to prompts with hostile ids, under hostile names."""
    pool(folder)
    ids = [json.loads(line)["id"] for line in (folder / "harm.jsonl").read_text().splitlines()]
    write_lines(folder / "prompts.jsonl", [{"id": f"x{id}", "text": f"another {i}"} for i, id in enumerate(ids)])
    write_lines(folder / "said.jsonl", [{"prompt_id": f"x{id}", "reply": HOSTILE} for id in ids])
    tables = {"pool": "pool.jsonl", "reference": "harm.jsonl"}
    whole = {
        "study": "s", "models": ["recorded:said.jsonl"], **tables,
        "prompt_sets": {HOSTILE: {"corpus": "prompts.jsonl", "harmful": True}},
        "axes": {HOSTILE: "tfidf"}, "selection": {"axes": [HOSTILE]},
        "evaluation": {"judge": "keyword", "modalities": ["text"], "system_prompts": {HOSTILE: None}},
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(json.dumps(whole | changes))
    return f"{name}.yaml"


def replies(folder: Path) -> str:
    row = {"prompt": HOSTILE, "reply": HOSTILE, "set": HOSTILE, "system": HOSTILE, "modality": HOSTILE}
    return write_lines(folder / "replies.jsonl", [row | {"prompt_id": f"{i}{HOSTILE}"} for i in range(4)])


def arguments(verb: str, folder: Path) -> list[list[str]]:
    """Command lines of a verb on hostile files in `folder`."""
    if verb == "screen":
        pool(folder)
        axis = ["--axis", f"{HOSTILE.replace('=', '')}=tfidf"]
        write_lines(folder / "twice.jsonl", [{"id": HOSTILE, "text": "x"}] * 2)
        command = ["screen", "pool.jsonl", "--harm", "harm.jsonl", "--keep", "closest:2"]
        return [
            [*command, "--out", "kept"],
            [*command, *axis, "--out", "other"],
            ["screen", "twice.jsonl", *command[2:], "--out", "o"],
        ]
    if verb == "gate":
        limit = ["--max-jsr", "0.1", "--junit", "j.xml", "--markdown", "s.md"]
        pair = [
            "--before",
            one_set(folder, "before.jsonl", "refusal"),
            "--after",
            one_set(folder, "after.jsonl", "jailbreak"),
        ]
        return [["gate", verdicts(folder), *limit], ["gate", results(folder), *limit],
                ["gate", *pair, "--max-jsr-rise", "0.1", *limit[2:]],
                ["gate", results(folder), "--arm", "x", *limit]]  # fmt: skip
    if verb == "judge":
        return [["judge", replies(folder), "--judge", "keyword", "--out", "out"]]
    if verb == "compare":
        files = [
            one_set(folder, f"::error::{name}.jsonl", verdict)
            for name, verdict in (("a", "refusal"), ("b", "jailbreak"), ("c", "other"))
        ]
        return [
            ["compare", *files[:2]],
            ["compare", *files],
            *(["compare", *files[:n], form] for n in (2, 3) for form in ("--json", "--markdown")),
        ]
    if verb == "report":
        return [["report", results(folder), "--markdown", "r.md"], ["report", results(folder), "--figures", "f"]]
    if verb == "export-eval":
        return [["export-eval", results(folder), "--out", "logs", "--arm", HOSTILE]]
    if verb in ("plan", "status", "run", "defend"):
        defended = {"system_defense": HOSTILE} if verb == "defend" else {}
        names = [
            study(folder, "good", **defended),
            study(folder, "key", **{HOSTILE: 1}),
            study(folder, "model", models=[HOSTILE]),
        ]
        return [[verb, name] for name in names]
    if verb == "evaluate":
        study(folder, "unused")
        return [["evaluate", "prompts.jsonl", "--model", "recorded:said.jsonl", "--judge", "keyword",
                 "--modality", "text", "--out", "o"],
                ["evaluate", "harm.jsonl", "--model", HOSTILE, "--judge", "keyword", "--out", "o"]]  # fmt: skip
    if verb == "tune":
        pool(folder)
        return [["tune", "pool.jsonl", "--model", "organism:kimi", "--modality", "text", "--out", "o"]]
    if verb == "probe":
        return [["probe", "--model", HOSTILE, "--out", "o"]]
    if verb == "export-adapter":
        return [
            [verb, HOSTILE, "--model", HOSTILE, "--out", "o"],
            [verb, HOSTILE, "--model", "organism:af3", "--out", "o"],
        ]
    return [[verb, HOSTILE]]


VERBS = (
    "screen",
    "gate",
    "judge",
    "compare",
    "report",
    "export-eval",
    "plan",
    "status",
    "run",
    "defend",
    "evaluate",
    "tune",
    "doctor",
    "verify",
    "probe",
    "export-adapter",
)


@pytest.mark.parametrize("verb", VERBS)
def test_hostile_names_cannot_command_a_terminal_or_forge_a_line(verb: str, tmp_path: Path) -> None:
    for command in arguments(verb, tmp_path):
        done = run_here(tmp_path, *command)
        assert done.stdout + done.stderr
        assert_neutral(done.stdout)
        assert_neutral(done.stderr)
        if done.returncode == 2:  # one line of error, behind those of progress
            *progress, error = done.stderr.splitlines()
            assert error.startswith("undersong"), done.stderr
            assert not any(line.startswith("undersong") for line in progress), done.stderr
        if "--json" in command:
            json.loads(done.stdout)
    for file in (*tmp_path.glob("*.md"), *tmp_path.glob("*.xml")):
        assert_neutral(file.read_text())
    for file in tmp_path.glob("*.xml"):
        ElementTree.parse(file)


def test_what_libraries_print_is_neutral_too() -> None:
    """As the names of a checkpoint's tensors, which transformers logs."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), escaped_streams():
        print(HOSTILE)
        print("a", end="")
        print("::not at the start of a line")
        print(" ", end="", file=sys.stderr)
        print("::error::", NAMES[2], NAMES[3], file=sys.stderr)
        assert not sys.stdout.isatty()
    assert "\na::not at the start of a line\n" in out.getvalue()
    for text in (out.getvalue(), err.getvalue()):
        assert "\x1b" not in text
        assert not COMMANDS.search(text)
    with contextlib.redirect_stdout(out):
        print("\x1b")  # the streams are their own again
    assert "\x1b" in out.getvalue()


def test_a_stream_of_another_encoding_gets_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run_apart(tmp_path, "plan", "nowhere-é.yaml")
    assert done.returncode == 2
    assert "nowhere-\\xe9.yaml" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("is_buffered", [True, False])
def test_output_to_a_full_device_is_one_sentence(
    is_buffered: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["undersong", "models"])
    with io.TextIOWrapper(open("/dev/full", "wb", buffering=0), write_through=not is_buffered) as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as stopped:
            main()
    assert stopped.value.code == 2
    sentence = "undersong: cannot use /dev/full: No space left on device; make room, give access, or choose another"
    assert capsys.readouterr().err == f"{sentence} path.\n"
