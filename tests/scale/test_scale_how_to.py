"""The numbers of the how-to are what its own formula gives, and the sizes in it are those of the files."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from undersong.corpora.manifest import write_manifest
from undersong.encoders.embeddings import embeddings_table
from undersong.proximity.table import proximity_table
from undersong.types import Embeddings, Sample

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "scale.md"


def test_the_examples_numbers_are_computed() -> None:
    text = HOW_TO.read_text(encoding="utf-8")
    (shown,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == shown


def test_the_examples_of_one_machine_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for side in ("pool", "harm"):
        for number in range(3):
            soundfile.write(f"{side}{number}.wav", 0.1 * rng.standard_normal(4000), 16_000)
        samples = [Sample(f"{side}{number}", audio=f"{side}{number}.wav") for number in range(3)]
        write_manifest(samples, f"{side}.jsonl")
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)[:2]:
        exec(code, names)
    tables = [pq.read_table(f"{out}/proximity.parquet") for out in ("screened", "screened-vectors")]
    assert sorted(tables[0].column("rank").to_pylist()) == [1, 2, 3]
    assert tables[0].column("rank").equals(tables[1].column("rank"))


def test_a_row_takes_the_bytes_that_are_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n, d, i = 20_000, 64, 12
    ids = tuple(f"p{number:0{i - 1}d}" for number in rng.permutation(n))
    pool = Embeddings(ids, rng.normal(size=(n, d)).astype(np.float32), np.zeros(n, np.int64))
    harm = Embeddings(
        tuple(f"h{number:0{i - 1}d}" for number in range(500)),
        rng.normal(size=(500, d)).astype(np.float32),
        np.zeros(500, np.int64),
    )
    made = embeddings_table(pool.ids, pool.vectors, pool.frames)
    assert 0.95 < made.nbytes / (n * (4 * d + 8 + i)) < 1.05
    table = proximity_table("acoustic", "harm", pool, harm)
    pq.write_table(table, tmp_path / "proximity.parquet")
    assert 0.5 < (tmp_path / "proximity.parquet").stat().st_size / (n * (52 + 2 * i)) < 1.1
