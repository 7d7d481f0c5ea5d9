"""Parquet files that decode to far more than their size are refused before their rows are read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_here

from undersong.corpora import parquet_size
from undersong.corpora.formats import open_manifest
from undersong.corpora.parquet_size import check_decoded_size
from undersong.evaluation.serving.recorded_model import recorded_model
from undersong.evaluation.table_rows import read_rows
from undersong.types import UndersongError

BOMB = r"decodes to more than .* GB in 2,000 rows, .* times its size, as a decompression bomb does; remove repeated"


@pytest.fixture(autouse=True)
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_size, "FREE_BYTES", 4_000_000)


def write(file: Path, columns: dict[str, object], **options: object) -> Path:
    pq.write_table(pa.table(columns), file, compression="zstd", **options)
    return file


def repeated(text: str, rows: int = 2_000) -> pa.Array:
    """One text in every row, which a dictionary holds once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


def ids(rows: int = 2_000) -> list[str]:
    return [f"i{i}" for i in range(rows)]


def test_one_text_in_every_row(tmp_path: Path) -> None:
    file = write(tmp_path / "t.parquet", {"id": ids(), "text": repeated("how are you " * 1000)})
    assert file.stat().st_size < 40_000
    for read in (lambda: check_decoded_size(file), lambda: check_decoded_size(file, file.read_bytes())):
        with pytest.raises(UndersongError, match=BOMB):
            read()
    with pytest.raises(UndersongError, match=rf"t\.parquet {BOMB}"):
        open_manifest(file)


def test_one_text_in_every_message(tmp_path: Path) -> None:
    message = [{"role": "user", "content": "how are you " * 1000}]
    file = write(tmp_path / "t.parquet", {"messages": pa.array([message] * 2_000)})
    with pytest.raises(UndersongError, match=BOMB):
        open_manifest(file)


def test_tables_of_verdicts_and_replies(tmp_path: Path) -> None:
    file = write(
        tmp_path / "v.parquet", {"prompt_id": ids(), "reply": repeated("no " * 4000), "verdict": repeated("x" * 9999)}
    )
    with pytest.raises(UndersongError, match=BOMB):
        list(read_rows(file, "verdict"))
    with pytest.raises(UndersongError, match=BOMB):
        recorded_model(str(file))._rows  # noqa: B018


@pytest.mark.parametrize(
    "command",
    [
        ["check", "t.parquet"],
        ["screen", "t.parquet", "--harm", "h.jsonl", "--out", "o"],
        ["screen", "h.jsonl", "--harm", "t.parquet", "--out", "o"],
        ["evaluate", "t.parquet", "--model", "recorded:h.jsonl", "--judge", "keyword", "--out", "o"],
        ["gate", "t.parquet", "--max-jsr", "0.1"],
        ["compare", "h.jsonl", "t.parquet"],
    ],
)
def test_every_command_refuses_it(command: list[str], tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", {"id": ids(), "text": repeated("how are you " * 1000)})
    row = {"id": "h", "text": "z", "prompt_id": "h", "verdict": "refusal", "judge": "j", "harmful": True}
    (tmp_path / "h.jsonl").write_text(json.dumps(row) + "\n")
    done = run_here(tmp_path, *command)
    assert done.returncode == 2, done.stderr
    assert "as a decompression bomb does" in done.stderr


@pytest.mark.parametrize(
    "columns",
    [
        {"id": ids(20_000), "n": repeated("a", 20_000)},  # rows that take more memory than their values
        {"n": pa.array([[0] * 1_000_000] * 10, pa.list_(pa.int64()))},  # one row may hold any number of values
        {"text": pa.array(["a" * 1_000_000] * 10)},
    ],
    ids=["rows", "lists", "packed"],
)
def test_what_the_metadata_alone_say(
    columns: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "t.parquet", columns, use_dictionary=["n"])
    monkeypatch.setattr(parquet_size, "MAX_EXPANSION", 1)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", None)  # nothing is decoded
    with pytest.raises(UndersongError, match="as a decompression bomb does"):
        check_decoded_size(file)


def test_real_data_pass(tmp_path: Path) -> None:
    """Texts that differ, and labels that repeat, are read however large they are."""
    words = np.random.default_rng(0).integers(0, 9999, (2_000, 400)).astype(str)
    texts = [" ".join(row) for row in words]
    columns = {"id": ids(), "text": texts, "answer": repeated("a short answer"), "system": repeated("be kind " * 20)}
    file = write(tmp_path / "t.parquet", columns)
    assert sum(map(len, texts)) > parquet_size.FREE_BYTES - 500_000
    assert [sample.text for sample in open_manifest(file).samples] == texts


def test_a_long_value_of_a_dictionary_makes_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 256 rows would hold all of them at once."""
    file = write(tmp_path / "t.parquet", {"text": repeated("a" * 1_000_000)})
    monkeypatch.setattr(parquet_size, "BATCH_BYTES", 3_000_000)
    sizes, iterate = [], pq.ParquetFile.iter_batches

    def batches(self: pq.ParquetFile, batch_size: int, **options: object) -> object:
        sizes.append(batch_size)
        return iterate(self, batch_size, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", batches)
    with pytest.raises(UndersongError, match=BOMB):
        check_decoded_size(file)
    assert sizes == [2]
