"""Tables of `compare` in a terminal of eighty columns: no word and no number is cut."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run_here

from undersong.evaluation.comparison import compare_verdicts
from undersong.evaluation.comparison_report import comparison_json
from undersong.evaluation.multi_model_comparison import (
    TABLE_HEADER,
    compare_many,
    comparison_table_rows,
    lost_reply_cells,
)
from undersong.evaluation.verdicts import read_verdicts, write_verdicts
from undersong.types import Verdict

NAMES = ("base-model-untuned", "tuned-closest-0.25", "tuned-distant-0.25")


def write_model(folder: Path, jailbroken: int, lost: int) -> Path:
    """Write the verdicts on 1200 prompts in 400 clusters, and return their file."""
    words = ["jailbreak"] * jailbroken + ["error"] * lost
    words += ["refusal"] * (1200 - len(words))
    verdicts = [
        Verdict(f"p{i}", "harm", True, f"c{i // 3}", "audio", "plain", "exact", word) for i, word in enumerate(words)
    ]
    folder.mkdir()
    write_verdicts(verdicts, folder / "verdicts.parquet")
    return folder / "verdicts.parquet"


def words_of(cells: Iterable[str]) -> set[str]:
    """Words and numbers of cells; a terminal does not show how an interval was computed."""
    return {word for cell in cells for word in cell.replace(" (clustered)", "").split()}


def table_tokens(printed: str) -> set[str]:
    """Words between the lines of the tables."""
    return {token for line in printed.splitlines() if line[:1] in "┃│" for token in re.split(r"[┃│\s]+", line) if token}


@pytest.mark.parametrize("lost", [0, 120])
def test_no_word_or_number_of_several_models_is_cut(lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    before, *after = (write_model(tmp_path / name, n, lost) for name, n in zip(NAMES, (0, 1000, 1080)))
    printed = run_here(tmp_path, "compare", *(f"{name}/verdicts.parquet" for name in NAMES)).stdout
    arms = compare_many(read_verdicts(before), {file.parent.name: read_verdicts(file) for file in after})
    header, *rows = TABLE_HEADER, *comparison_table_rows(arms, NAMES[0])
    shown_columns = range(len(header)) if lost else range(len(header) - 2)
    assert words_of(row[i] for row in (header, *rows) for i in shown_columns) <= table_tokens(printed)
    assert all(len(line) <= 80 for line in printed.splitlines() if line[:1] in "┏┃┡│└")


@pytest.mark.parametrize("lost", [0, 120])
def test_no_word_or_number_of_two_models_is_cut(lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    before, after = (write_model(tmp_path / name, n, lost) for name, n in zip(NAMES, (0, 1080)))
    printed = run_here(tmp_path, "compare", *(f"{name}/verdicts.parquet" for name in NAMES[:2])).stdout
    comparison = compare_verdicts(read_verdicts(before), read_verdicts(after))
    cells = [*TABLE_HEADER[-2:], *lost_reply_cells(comparison.before), *lost_reply_cells(comparison.after)]
    assert words_of(["jailbroken 1080 of 1200 90.0%", *cells]) <= table_tokens(printed)
    assert all(len(line) <= 80 for line in printed.splitlines() if line[:1] in "┏┃┡│└")


def test_folders_stand_for_the_verdicts_in_them(tmp_path: Path) -> None:
    for name, verdict in (("before", "refusal"), ("after", "jailbreak")):
        rows = [Verdict(str(i), "harm", True, str(i), "text", "plain", "exact", verdict) for i in range(8)]
        (tmp_path / name).mkdir()
        write_verdicts(rows, tmp_path / name / "verdicts.parquet")
    done = run_here(tmp_path, "compare", "before", "after")
    assert done.returncode == 0, done.stderr
    assert "100.0" in done.stdout


@pytest.mark.parametrize("files", [2, 3])
def test_cut_replies_are_said(files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for name, cut in list(zip(NAMES, (0, 7, 7)))[:files]:
        path = write_model(tmp_path / name, 5, 0)
        finishes = ["length"] * cut + ["stop"] * (1200 - cut)
        write_verdicts([replace(one, finish=end) for one, end in zip(read_verdicts(path), finishes)], path)
        paths.append(path)
    said = "The replies after: 7 of 1,200 replies were cut at the limit of tokens; a judge sees no more than that."
    for option in ([], ["--json"], ["--markdown"]):
        printed = " ".join(run_here(tmp_path, "compare", *map(str, paths), *option).stdout.split())
        assert said in printed, option
        assert "The replies before" not in printed
    compared = compare_verdicts(read_verdicts(paths[0]), read_verdicts(paths[1]))
    assert comparison_json(compared)["cut"] == {"before": 0, "after": 7}
