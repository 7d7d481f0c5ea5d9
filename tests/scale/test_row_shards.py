"""Passes in shards: rows in the items' order, a kill loses one shard, jobs share, damage is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from undersong.encoders.batching import Progress
from undersong.scale.row_shards import RowFunction, RowShards, fill_row_shards
from undersong.types import Sample, UndersongError


def items(n: int) -> list[Sample]:
    return [Sample(f"s{i}", text="word " * i) for i in range(n)]


def lengths(samples: Sequence[Sample]) -> pa.Table:
    return pa.table({"id": [s.id for s in samples], "length": [len(s.text or "") for s in samples]})


def counting(seen: list[list[str]], dies: str = "") -> Callable[[], RowFunction]:
    def make() -> RowFunction:
        seen.append(["loaded"])

        def run(samples: Sequence[Sample]) -> pa.Table:
            seen.append([sample.id for sample in samples])
            if dies in seen[-1]:
                raise KeyboardInterrupt
            return lengths(samples)

        return run

    return make


def test_rows_are_those_of_one_call_and_a_second_call_computes_nothing(tmp_path: Path) -> None:
    shards, seen, told = RowShards(tmp_path / "p", items(10), 4), list[list[str]](), list[Progress]()
    assert fill_row_shards(shards, counting(seen), progress=told.append) == 3
    assert shards.table().equals(lengths(items(10)))
    assert [(one.done, one.total) for one in told][-1] == (10, 10)
    before = len(seen)
    assert fill_row_shards(shards, counting(seen)) == 0
    assert len(seen) == before  # nothing was loaded either


def test_a_killed_pass_makes_at_most_one_shard_again(tmp_path: Path) -> None:
    shards, seen = RowShards(tmp_path / "p", items(10), 2), list[list[str]]()
    with pytest.raises(KeyboardInterrupt):
        fill_row_shards(shards, counting(seen, dies="s3"))
    kept = 5 - len(shards.missing_shards())
    assert kept == 3
    seen.clear()
    assert fill_row_shards(shards, counting(seen)) == 5 - kept
    assert shards.table().equals(lengths(items(10)))


def test_jobs_make_every_shard_once_and_the_last_call_what_is_left(tmp_path: Path) -> None:
    shards, seen = RowShards(tmp_path / "p", items(9), 2), list[list[str]]()
    assert fill_row_shards(shards, counting(seen), shard="2/3") == 2
    assert fill_row_shards(shards, counting(seen), shard="1/3") == 2
    assert [part for part in seen if part != ["loaded"]] == [["s2", "s3"], ["s8"], ["s0", "s1"], ["s6", "s7"]]
    assert fill_row_shards(shards, counting(seen)) == 1
    assert shards.table().equals(lengths(items(9)))
    with pytest.raises(UndersongError, match="is no i/n"):
        fill_row_shards(shards, counting(seen), shard="4/3")


def test_what_another_job_made_in_the_meantime_is_left(tmp_path: Path) -> None:
    shards, seen = RowShards(tmp_path / "p", items(6), 2), list[list[str]]()

    def meddling() -> RowFunction:
        run = counting(seen)()

        def both(samples: Sequence[Sample]) -> pa.Table:
            if shards.shard_file(0) is None:
                shards.write_shard(0, shards.shard_samples(0), lengths)
            return run(samples)

        return both

    fill_row_shards(shards, meddling)
    assert ["s0", "s1"] not in seen


def test_another_shard_size_is_other_files_and_damage_is_made_anew(tmp_path: Path) -> None:
    fill_row_shards(RowShards(tmp_path / "p", items(6), 2), counting([]))
    shards = RowShards(tmp_path / "p", items(6), 3)
    assert len(shards.missing_shards()) == 2
    fill_row_shards(shards, counting([]))
    file = shards.shard_file(1)
    assert file is not None
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1  # Parquet itself would read this
    file.write_bytes(data)
    with pytest.raises(UndersongError, match="is not what was written; run again, which makes it anew"):
        shards.table()
    assert shards.missing_shards() == [1]
    with pytest.raises(UndersongError, match="Shard 1 is missing"):
        shards.table()
    assert fill_row_shards(shards, counting([])) == 1
    assert shards.table().equals(lengths(items(6)))


def test_a_pass_that_forgets_an_item_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="1 rows were made of the 2 items of shard 1"):
        fill_row_shards(RowShards(tmp_path / "p", items(4), 2), lambda: lambda samples: lengths(samples[:1]))
