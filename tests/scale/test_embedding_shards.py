"""Shards of an embedding job: the rows of one call, whoever makes them; a kill costs the one in progress."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.corpora.manifest import write_manifest
from undersong.encoders.embeddings import read_embeddings
from undersong.encoders.registry import make_encoder
from undersong.scale.embedding_shards import FittedOnce, embed_shards, samples_digest, vector_rows
from undersong.scale.row_shards import parse_shard
from undersong.types import Embeddings, Quarantined, Sample, UndersongError, Vectors


@dataclass
class Counting:
    """Writes each id's number as its vector; ids with an `x` cannot be read; keeps how it was asked."""

    name: str = "counting"
    asked: list[list[str]] = field(default_factory=list)

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        ids = [sample.id for sample in samples]
        self.asked.append(ids)
        sound = [id for id in ids if "x" not in id]
        vectors = np.array([[1.0, float(id.strip("ax"))] for id in sound], np.float32).reshape(-1, 2)
        lost = [Quarantined(id, "cannot be read") for id in ids if "x" in id]
        return Embeddings(tuple(sound), vectors, np.ones(len(sound), np.int64), tuple(lost))


def items(n: int, broken: Sequence[int] = ()) -> list[Sample]:
    return [Sample(f"{'x' if i in broken else 'a'}{i}", text=f"number {i}") for i in range(n)]


def same_vectors(*sides: Vectors) -> bool:
    return np.array_equal(*(side if isinstance(side, np.ndarray) else side.toarray() for side in sides))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".parquet"}


def test_shards_are_the_rows_of_one_call_and_a_second_call_is_a_lookup(tmp_path: Path) -> None:
    samples = items(10, broken=[4, 9])
    encoder = Counting()
    found = embed_shards(samples, "counting", tmp_path / "out", rows=4, make=lambda: encoder)
    assert (found.folder, found.complete, found.shard_count, found.computed, found.quarantined) == (
        tmp_path / "out", True, 3, 3, 2,
    )  # fmt: skip
    assert sorted(path.name for path in found.folder.iterdir()) == [
        "embeddings-00000.parquet", "embeddings-00001.parquet", "embeddings-00002.parquet", "job.json",
        "quarantine.parquet",
    ]  # fmt: skip
    whole, made = Counting().encode(samples), read_embeddings(found.folder)
    assert made.ids == whole.ids
    assert np.array_equal(made.vectors, whole.vectors)
    assert made.quarantined == whole.quarantined
    again = embed_shards(samples, "counting", tmp_path / "out", rows=4, make=lambda: pytest.fail("made again"))
    assert (again.complete, again.computed, again.quarantined) == (True, 0, 2)


@pytest.mark.parametrize("encoder", ["tfidf", "logmel"])
def test_a_manifest_by_a_real_encoder_is_what_the_encoder_says(tmp_path: Path, encoder: str) -> None:
    rng = np.random.default_rng(0)
    samples = []
    for number, seconds in enumerate([0.5, 0.3, 0.4, 0.01, 0.6]):
        sound = io.BytesIO()
        soundfile.write(sound, 0.1 * rng.standard_normal(int(16_000 * seconds)), 16_000, format="WAV")
        path = tmp_path / f"{number}.wav"
        path.write_bytes(sound.getvalue() if number != 2 else b"no sound")
        samples.append(Sample(f"s{number}", audio=str(path), text=f"word{number} and word{number + 1}"))
    write_manifest(samples, tmp_path / "pool.jsonl")
    harm = [Sample("h", text="harm and word1")]
    found = embed_shards(tmp_path / "pool.jsonl", encoder, tmp_path / "out", rows=2, fit=[*samples, *harm])
    whole = make_encoder(encoder, fit=[*samples, *harm]).encode(samples)
    made = read_embeddings(found.folder)
    assert made.ids == whole.ids
    assert same_vectors(made.vectors, whole.vectors)
    assert np.array_equal(made.frames, whole.frames)
    assert set(made.quarantined) == set(whole.quarantined)
    assert len(made.quarantined) == (2 if encoder == "logmel" else 0)


KILLED = """
    import sys
    sys.path.insert(0, {here!r})
    from test_embedding_shards import Counting, items
    from undersong.scale.embedding_shards import embed_shards
    embed_shards(items(12, [5]), "counting", {out!r}, rows=3, make=Counting)
"""


@pytest.mark.parametrize(("point", "redone"), [("write:begun:3", 2), ("write:synced:3", 2), ("write:renamed:3", 1)])
def test_a_killed_run_redoes_at_most_the_shard_in_progress(tmp_path: Path, point: str, redone: int) -> None:
    """Before its third shard is written, when its bytes are on disk, and when it has its name."""
    script = textwrap.dedent(KILLED.format(here=str(Path(__file__).parent), out=str(tmp_path / "out")))
    killed = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "UNDERSONG_FAILPOINT": point}, check=False
    )
    assert killed.returncode == 137
    assert not (tmp_path / "out").exists()
    encoder = Counting()
    found = embed_shards(items(12, [5]), "counting", tmp_path / "out", rows=3, make=lambda: encoder)
    assert len(encoder.asked) == found.computed == redone
    embed_shards(items(12, [5]), "counting", tmp_path / "at once", rows=3, make=Counting)
    assert files(tmp_path / "out") == files(tmp_path / "at once")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at once", "out"]


@settings(max_examples=25)
@given(n=st.integers(1, 40), rows=st.integers(1, 7), jobs=st.integers(1, 6), data=st.data())
def test_jobs_make_every_shard_once_and_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, n: int, rows: int, jobs: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("jobs")
    samples, encoder = items(n, broken=[n // 2]), Counting()
    order = data.draw(st.permutations(range(1, jobs + 1)))
    for job in order:
        made = embed_shards(
            samples, "counting", folder / "split", rows=rows, shard=f"{job}/{jobs}", make=lambda: encoder
        )
        assert not made.complete
        assert not (folder / "split").exists()
    last = embed_shards(samples, "counting", folder / "split", rows=rows, make=lambda: pytest.fail("not needed"))
    assert last.complete
    assert sorted(id for ids in encoder.asked for id in ids) == sorted(sample.id for sample in samples)
    embed_shards(samples, "counting", folder / "whole", rows=rows, make=Counting)
    assert files(folder / "split") == files(folder / "whole")


def test_the_last_call_makes_what_a_job_that_failed_left(tmp_path: Path) -> None:
    embed_shards(items(9), "counting", tmp_path / "out", rows=2, shard="1/2", make=Counting)
    encoder = Counting()
    assert embed_shards(items(9), "counting", tmp_path / "out", rows=2, make=lambda: encoder).complete
    assert encoder.asked == [["a6", "a7"], ["a2", "a3"]]  # other jobs come from the front


def test_a_damaged_shard_is_found_and_made_again(tmp_path: Path) -> None:
    embed_shards(items(9), "counting", tmp_path / "out", rows=4, shard="1/1", make=Counting)
    (draft,) = tmp_path.iterdir()
    for number, damaged in ((1, b"PAR1"), (0, None)):
        (shard,) = draft.glob(f"rows-4-0000{number}.*.parquet")
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(damaged or data)
        with pytest.raises(UndersongError, match=rf"rows-4-0000{number}\..*parquet is not what was written"):
            embed_shards(items(9), "counting", tmp_path / "out", rows=4, make=Counting)
        assert not shard.exists()
        assert not (tmp_path / "out").exists()
        embed_shards(items(9), "counting", tmp_path / "out", rows=4, shard="1/1", make=Counting)
    (shard,) = draft.glob("rows-4-00002.*.parquet")
    shard.unlink()
    assert embed_shards(items(9), "counting", tmp_path / "out", rows=4, make=Counting).computed == 1
    assert len(read_embeddings(tmp_path / "out").ids) == 9


@pytest.mark.parametrize("point", ["write:begun", "write:synced", "write:renamed"])
def test_a_call_killed_while_it_writes_the_folder_makes_no_shard_again(tmp_path: Path, point: str) -> None:
    script = textwrap.dedent(KILLED.format(here=str(Path(__file__).parent), out=str(tmp_path / "out")))
    killed = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "UNDERSONG_FAILPOINT": f"{point}:5"}, check=False
    )
    assert killed.returncode == 137
    assert not (tmp_path / "out").exists()
    again = embed_shards(items(12, [5]), "counting", tmp_path / "out", rows=3, make=lambda: pytest.fail("made again"))
    assert (again.complete, again.computed, again.quarantined) == (True, 0, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_shard_has_a_row_an_item_with_the_reason_where_there_is_no_vector(tmp_path: Path) -> None:
    table = vector_rows(Counting(), items(3, broken=[1]))
    assert table.to_pylist() == [
        {"id": "a0", "embedding": [1, 0], "frames": 1, "reason": None},
        {"id": "x1", "embedding": None, "frames": 0, "reason": "cannot be read"},
        {"id": "a2", "embedding": [1, 2], "frames": 1, "reason": None},
    ]
    lost = embed_shards(items(4, broken=[0, 1]), "counting", tmp_path / "out", rows=2, make=Counting)
    assert read_embeddings(lost.folder).ids == ("a2", "a3")  # a shard of none but lost items has no width


def test_a_fitted_encoder_travels_without_the_texts_it_was_fitted_on() -> None:
    samples = items(9)
    make = FittedOnce(partial(make_encoder, "tfidf", fit=samples))
    sent = pickle.loads(pickle.dumps(make))
    assert same_vectors(sent().encode(samples).vectors, make().encode(samples).vectors)
    assert b"make_encoder" not in pickle.dumps(make)


def test_another_question_is_not_answered_by_these_shards(tmp_path: Path) -> None:
    def ask(samples: list[Sample], encoder: str = "counting", **more: object) -> int:
        return embed_shards(samples, encoder, tmp_path / "out", make=Counting, **{"rows": 4, **more}).computed  # type: ignore[arg-type]

    ask(items(9), shard="1/3")
    assert ask([*items(9)[:8], Sample("a8", text="another")], shard="1/3") == 1
    assert ask(items(9), version="weights 2", shard="1/3") == 1
    assert ask(items(9), rows=5, shard="1/3") == 1
    assert ask(items(9), encoder="counting2", shard="1/3") == 1
    assert ask(items(9), device="another", shard="1/3") == 1
    assert ask(items(9), shard="1/3") == 0
    ask(items(9))
    with pytest.raises(UndersongError, match="holds something else"):
        ask(items(8))


@given(
    st.lists(st.tuples(*[st.one_of(st.none(), st.text(max_size=3))] * 3), max_size=4),
    st.lists(st.tuples(*[st.one_of(st.none(), st.text(max_size=3))] * 3), max_size=4),
)
def test_only_equal_samples_have_one_digest(one: list[tuple], other: list[tuple]) -> None:
    def samples(rows: list[tuple]) -> list[Sample]:
        return [Sample(str(i), audio=a, text=t, pcm_hash=h) for i, (a, t, h) in enumerate(rows)]

    assert (samples_digest(samples(one)) == samples_digest(samples(other))) == (one == other)


@dataclass
class Dead:
    """All vectors are one, which an encoder refuses by itself as soon as it sees two."""

    name: str = "dead"
    copies: frozenset[str] = frozenset()

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        ids = tuple(sample.id for sample in samples)
        vectors = np.array([[1.0, 0.0 if not self.copies or id in self.copies else float(id[1:])] for id in ids])
        if len(ids) > 1 and (vectors == vectors[0]).all():
            raise UndersongError("Encoder dead gave the same vector to all items.")
        return Embeddings(ids, vectors.astype(np.float32), np.ones(len(ids), np.int64))


def test_a_shard_of_copies_is_no_dead_encoder_but_a_corpus_of_them_is(tmp_path: Path) -> None:
    found = embed_shards(
        items(9), "e", tmp_path / "out", rows=3, make=lambda: Dead(copies=frozenset(["a3", "a4", "a5"]))
    )
    assert read_embeddings(found.folder).vectors[:, 1].tolist() == [0, 1, 2, 0, 0, 0, 6, 7, 8]
    with pytest.raises(UndersongError, match="same vector to all 9 items"):
        embed_shards(items(9), "e", tmp_path / "dead", rows=3, make=Dead)
    with pytest.raises(UndersongError, match="Encoder dead"):  # at once, not at the end of the corpus
        embed_shards(items(50), "e", tmp_path / "dead", rows=40, make=Dead)


def test_an_item_that_an_encoder_forgets_is_an_error(tmp_path: Path) -> None:
    class Forgetful(Counting):
        def encode(self, samples: Sequence[Sample]) -> Embeddings:
            return super().encode(samples[1:])

    with pytest.raises(UndersongError, match="accounted for 3 items where it was given 4"):
        embed_shards(items(8), "e", tmp_path / "out", rows=4, make=Forgetful)


def test_progress_counts_what_is_left_to_do(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    embed_shards(items(10), "e", tmp_path / "out", rows=4, shard="1/3", make=Counting)
    embed_shards(
        items(10), "e", tmp_path / "out", rows=4, make=Counting, progress=lambda now: seen.append((now.done, now.total))
    )
    assert seen == [(2, 6), (6, 6)]


def test_what_makes_no_sense_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for shard in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3"):
        with pytest.raises(UndersongError, match="no i/n"):
            embed_shards(items(3), "e", tmp_path / "out", shard=shard, make=Counting)
    with pytest.raises(UndersongError, match="at least 1"):
        embed_shards(items(3), "e", tmp_path / "out", rows=0, make=Counting)
    with pytest.raises(UndersongError, match="more than once"):
        embed_shards([*items(3), *items(1)], "e", tmp_path / "out", make=Counting)
    with pytest.raises(UndersongError, match="nothing to embed"):
        embed_shards([], "e", tmp_path / "out", make=Counting)
    with pytest.raises(UndersongError, match="Unknown encoder 'logmell'"):
        embed_shards(items(3), "logmell", tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UndersongError, match="holds something else"):
        embed_shards(items(3), "e", tmp_path / "out", make=Counting)


@given(st.integers(1, 50), st.integers(0, 400))
def test_each_shard_is_one_jobs_turn(n: int, number: int) -> None:
    assert sum(parse_shard(f"{i}/{n}")(number) for i in range(1, n + 1)) == 1
