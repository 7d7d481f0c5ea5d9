"""The files in the provenance of a folder: recorded when it is written, checked when one is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import run_here

from undersong.evaluation.replies import write_replies
from undersong.evaluation.verdicts import read_verdicts
from undersong.standalone.judge import judge_file
from undersong.standalone.options import JudgeOptions
from undersong.store.provenance import PROVENANCE, check_recorded_file, file_records, record_files
from undersong.types import Reply, UndersongError


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """What `judge` writes, in the folder `out`."""
    replies = [Reply(f"p{i}", "harm", "text", "", "Sure." if i % 3 else "I cannot help.", 1, "stop") for i in range(9)]
    write_replies(replies, tmp_path / "said.parquet")
    judge_file(tmp_path / "said.parquet", tmp_path / "out", JudgeOptions(judge="keyword"))
    return tmp_path / "out"


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_the_command_records_its_files_and_the_reader_checks_them(judged: Path) -> None:
    assert json.loads((judged / PROVENANCE).read_text())["files"].keys() == {"verdicts.parquet"}
    assert check_recorded_file(judged / "verdicts.parquet")
    assert len(read_verdicts(judged)) == 9


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(flip, "its SHA-256 is not the one in provenance.json"), (lambda file: file.write_bytes(b"PAR1"), "4 bytes")],
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", "out/verdicts.parquet", "--max-jsr", "1"),
        ("gate", "--before", "copy", "--after", "out", "--max-jsr-rise", "0.5"),
        ("compare", "copy", "out"),
        ("card", "out"),
    ],
)
def test_no_command_reads_another_file(
    damage: Callable[[Path], None], reason: str, arguments: tuple[str, ...], judged: Path
) -> None:
    (copy := judged.with_name("copy")).mkdir()
    shutil.copy(judged / "verdicts.parquet", copy)
    damage(judged / "verdicts.parquet")
    done = run_here(judged.parent, *arguments)
    assert done.returncode == 2
    assert "verdicts.parquet is not what undersong wrote (" in done.stderr
    assert reason in done.stderr


def test_a_file_that_was_changed_on_purpose_is_read_from_a_folder_of_its_own(judged: Path, tmp_path: Path) -> None:
    rows = [row for row in read_verdicts(judged) if row.prompt_id != "p0"]
    from undersong.evaluation.verdicts import write_verdicts

    write_verdicts(rows, judged / "verdicts.parquet")
    with pytest.raises(UndersongError, match=r"if you changed it on purpose, copy it to a folder of its own\.$"):
        read_verdicts(judged)
    shutil.copy(judged / "verdicts.parquet", tmp_path / "mine.parquet")
    assert read_verdicts(tmp_path / "mine.parquet") == rows


def test_folders_of_earlier_versions_and_other_programs_are_read(judged: Path) -> None:
    content = json.loads((judged / PROVENANCE).read_text())
    for provenance in ({key: value for key, value in content.items() if key != "files"}, {"files": "mine"}, []):
        (judged / PROVENANCE).write_text(json.dumps(provenance))
        assert not check_recorded_file(judged / "verdicts.parquet")
        assert len(read_verdicts(judged)) == 9


@pytest.mark.parametrize("text", ["", "{", '{"stage": "judge", "files": {"verdicts.parquet": [1]}}'])
def test_a_damaged_provenance_is_an_error(text: str, judged: Path) -> None:
    (judged / PROVENANCE).write_text(text)
    with pytest.raises(UndersongError, match=r"^\S+provenance\.json is damaged, so nobody can tell whether \S+"):
        read_verdicts(judged)


def test_a_file_is_found_in_the_folder_above_and_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "step-000002").mkdir()
    (weights := tmp_path / "step-000002" / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "step-000002" / ".writing-1-00000000-x").touch()
    records = file_records(tmp_path)
    assert list(records) == ["step-000002/adapter_model.safetensors"]
    (tmp_path / PROVENANCE).write_text(json.dumps({"stage": "tune", "files": records}))
    (tmp_path / "last").symlink_to(tmp_path / "step-000002")
    for file in (weights, tmp_path / "last" / weights.name):
        assert check_recorded_file(file)
    weights.write_bytes(b"Weights")
    for file in (weights, tmp_path / "last" / weights.name):
        with pytest.raises(UndersongError, match=rf"^{file} is not what undersong wrote"):
            check_recorded_file(file)


def test_a_folder_that_grows_keeps_its_records(tmp_path: Path) -> None:
    for name in ("base", "run/checkpoint-2"):
        (file := tmp_path / "verdicts" / f"{name}.parquet").parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
        record_files(tmp_path, "watch", [file])
    for name in ("base", "run/checkpoint-2"):
        file = tmp_path / "verdicts" / f"{name}.parquet"
        assert check_recorded_file(file)
        file.write_text(name.upper())
        with pytest.raises(UndersongError, match="is not what undersong wrote"):
            check_recorded_file(file)
