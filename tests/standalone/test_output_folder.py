"""A study that was stopped says what it lacks, goes on, and is then as if it had never been stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run_here
from recorded import record, study, written

from undersong.cli.demo import demo
from undersong.stages.output_folder import partial_store
from undersong.study.load import parse_study
from undersong.study.run import run_audit
from undersong.study.schema import Study
from undersong.study.study_folder import UNFINISHED_FILE, check_study_folder, describe_unfinished, unfinished_study


class Stopped(Exception):
    pass


def stopping(after: int):
    """A `say` that stops the run at its n-th word."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == after:
            raise Stopped

    return say


@pytest.fixture
def asked(tmp_path: Path) -> Study:
    return parse_study(written(tmp_path, study(record(tmp_path / "said.jsonl"))), "s")


def test_a_stopped_demo_goes_on_with_the_demo(asked: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped_run(_demo: Study, out: Path, store: Path, *, verb: str, **_: object) -> None:
        run_audit(asked, out, store, say=stopping(2), verb=verb)

    monkeypatch.setattr("undersong.study.run.run_audit", stopped_run)
    with pytest.raises(Stopped):
        demo(out=tmp_path / "d", n_seeds=None, model="organism:qwen-2")
    assert str(describe_unfinished(tmp_path / "d")).endswith(f"continue with `undersong demo` and --out {tmp_path}/d.")


def test_a_stopped_study_says_what_is_missing_and_goes_on(asked: Study, tmp_path: Path) -> None:
    out, store = tmp_path / "out", tmp_path / "elsewhere"
    with pytest.raises(Stopped):
        run_audit(asked, out, store, say=stopping(2))
    assert [path.name for path in out.iterdir()] == [UNFINISHED_FILE]
    assert unfinished_study(out) == asked.study
    said = describe_unfinished(out)
    assert said is not None
    assert f"continue with `undersong run` and --out {out}" in said
    assert f"{out} is of the unfinished study {asked.study!r}: missing are " in said
    lacking = dict(part.rsplit(" ", 3)[0::3] for part in said.split("missing are ")[1].split(";")[0].split(", "))
    assert "verdicts" in lacking
    done = run_here(tmp_path, "report", str(out))
    assert done.returncode == 2
    assert " ".join(done.stderr.split()).endswith(" ".join(said.split()))
    assert not (out / "report.html").exists()

    check_study_folder(out, asked.study, store)  # it may go on, though the store lies elsewhere
    run_audit(asked, out, store)
    assert not (out / UNFINISHED_FILE).exists()
    assert describe_unfinished(out) is None
    assert run_here(tmp_path, "report", str(out)).returncode == 0


def test_a_later_run_that_was_stopped_is_told_of(asked: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_audit(asked, out)
    with pytest.raises(Stopped):
        run_audit(asked, out, say=stopping(1))
    done = run_here(tmp_path, "report", str(out))
    assert done.returncode == 0
    assert "a later run in" in done.stdout


def test_what_is_there_already_is_not_missing(asked: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_audit(asked, out)
    (out / "results.json").unlink()
    with pytest.raises(Stopped):
        run_audit(asked, out, say=stopping(1))
    assert "only the results are still to be written" in str(describe_unfinished(out))


def test_a_corpus_that_is_gone_is_said_and_a_foreign_note_is_none(asked: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        run_audit(asked, out, say=stopping(2))
    (tmp_path / "said.jsonl").unlink()
    assert "what it lacks is unknown" in str(describe_unfinished(out))
    facts = json.loads((out / UNFINISHED_FILE).read_text())
    for other in ({**facts, "study": {"study": "s"}}, {**facts, "loading": {"color": "red"}}):
        (out / UNFINISHED_FILE).write_text(json.dumps(other))
        assert "what it lacks is unknown" in str(describe_unfinished(out))
    for foreign in ("", "[1]", "{}", '{"store": 1, "loading": 2, "study": 3}', "\x00"):
        (out / UNFINISHED_FILE).write_text(foreign)
        assert describe_unfinished(out) is None
        assert unfinished_study(out) is None


@pytest.mark.parametrize("file", [None, "embeddings/a/rows-1", "embeddings/a/other"])
def test_an_interruption_notes_the_files_of_a_partial_store(file: str | None, tmp_path: Path) -> None:
    def interrupt() -> None:
        with partial_store(tmp_path / "o", "key", ["*/*/rows-*"], "embeddings") as store:
            if file is not None:
                (store.root / file).parent.mkdir(parents=True)
                (store.root / file).touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        interrupt()
    is_kept = file is not None and "rows-" in file
    notes = ["what is finished of the embeddings is kept beside --out, and the same command goes on from it"]
    assert getattr(raised.value, "__notes__", []) == (notes if is_kept else [])
    assert bool(list(tmp_path.iterdir())) == is_kept
