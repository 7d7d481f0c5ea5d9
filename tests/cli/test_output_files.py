"""Files that a command would write over its own inputs, or over each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import exit_code
from gated import harm

from undersong.cli.output_files import check_output_files
from undersong.evaluation.verdicts import write_verdicts
from undersong.types import UndersongError


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, verdicts in (("zb", harm(20, 0)), ("za", harm(20, 1))):
        (tmp_path / name).mkdir()
        write_verdicts(verdicts, tmp_path / name / "verdicts.parquet")
    return tmp_path


PAIR = ("gate", "--before", "zb", "--after", "za", "--max-jsr-rise", 0.5)


@pytest.mark.parametrize("option", ["--page", "--json", "--junit", "--markdown"])
def test_the_gate_never_replaces_what_it_reads(option: str, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folders / "zb" / "verdicts.parquet"
    content = file.read_bytes()
    assert exit_code(*PAIR, option, "za/../zb/verdicts.parquet") == 2
    error = capsys.readouterr().err
    assert f"{option} za/../zb/verdicts.parquet would replace a file that --before reads; name another file." in error
    assert file.read_bytes() == content


def test_the_gate_writes_no_two_outputs_to_one_file(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*PAIR, "--page", "same.x", "--json", "za/../same.x") == 2
    assert "--page same.x and --json za/../same.x are one file; name a file for each." in capsys.readouterr().err
    assert not (folders / "same.x").exists()
    assert exit_code(*PAIR, "--page", "zb/gate.html", "--json", "zb/gate.json") == 0
    assert exit_code(*PAIR, "--page", "zb/gate.html", "--json", "zb/gate.json") == 0  # its own outputs


def test_an_audit_does_not_replace_its_labels(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "out").mkdir()
    labels = folders / "out" / "card.md"
    labels.write_text("labels")
    assert exit_code("audit-adapter", "zb", "--model", "zb", "--out", "out", "--labels", "out/card.md") == 2
    assert "The output out/card.md would replace a file that --labels reads" in capsys.readouterr().err
    assert labels.read_text() == "labels"


def test_the_replies_that_labels_are_on_are_read_too(tmp_path: Path) -> None:
    for kind in ("verdicts", "replies"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "base.parquet").touch()
    with pytest.raises(UndersongError, match="would replace a file that --before reads"):
        check_output_files(
            {"--page": tmp_path / "replies" / "base.parquet"}, {"--before": tmp_path / "verdicts" / "base.parquet"}
        )


def test_links_are_followed_and_devices_are_no_files(folders: Path) -> None:
    (folders / "link.html").symlink_to(folders / "za" / "verdicts.parquet")
    with pytest.raises(UndersongError, match=r"would replace a file that --after reads"):
        check_output_files({"--page": Path("link.html")}, {"--before": Path("zb"), "--after": Path("za")})
    check_output_files({"--page": Path("/dev/null"), "--json": Path("/dev/null")}, {"--labels": None})
