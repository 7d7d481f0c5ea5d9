"""The engines make the same files; on Ray a dying worker costs nothing, and errors are ours."""

from __future__ import annotations

import builtins
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from undersong.encoders.embeddings import read_embeddings
from undersong.scale.embedding_shards import EmbeddingResult, embed_shards
from undersong.scale.ray_cluster import RayWorkers
from undersong.scale.ray_engine import ray_scheduler
from undersong.scale.row_shards import RowFunction, RowShards, fill_row_shards
from undersong.types import Embeddings, Quarantined, Sample, UndersongError


def embed_on_ray(
    samples: Sequence[Sample], encoder: str, folder: str | Path, workers: RayWorkers | None = None, **options
) -> EmbeddingResult:
    return embed_shards(samples, encoder, folder, scheduler=ray_scheduler(workers or RayWorkers()), **options)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def lacking(name: str, *args: object, **kwargs: object) -> object:
        if name.partition(".")[0] == "ray":
            raise ImportError("No module named 'ray'")
        return found(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(UndersongError, match=r"\.\[scale\]"):
        embed_on_ray([Sample("a", text="words")], "tfidf", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_workers_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for workers in (RayWorkers(count=0), RayWorkers(cpus=0), RayWorkers(gpus=-1)):
        with pytest.raises(UndersongError, match="makes no sense"):
            embed_on_ray([Sample("a", text="words")], "tfidf", tmp_path / "out", workers)


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Ray on this machine, once for the module: starting takes seconds.  More CPUs than actors, or it hangs."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(
        "local", num_cpus=4, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}},
    )  # fmt: skip
    yield ray
    ray.shutdown()


@dataclass
class Numbers:
    """Each id's number is its vector; `x` ids cannot be read; at `dies` its process is gone, the first time."""

    once: str = ""
    dies: str = ""
    refuses: str = ""
    name: str = "numbers"

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        ids = [sample.id for sample in samples]
        if self.dies in ids and not self.once:
            os._exit(9)
        if self.dies in ids:
            try:
                os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os._exit(9)
        if self.refuses in ids:
            raise UndersongError(f"Item {self.refuses} is refused; leave it out.")
        sound = [id for id in ids if "x" not in id]
        vectors = np.array([[os.getpid() * 0 + 1.0, float(id[1:])] for id in sound], np.float32).reshape(-1, 2)
        lost = tuple(Quarantined(id, "cannot be read") for id in ids if "x" in id)
        return Embeddings(tuple(sound), vectors, np.ones(len(sound), np.int64), lost)


@dataclass(frozen=True)
class Makes:
    """A factory that pickles."""

    once: str = ""
    dies: str = ""
    refuses: str = ""

    def __call__(self) -> Numbers:
        return Numbers(self.once, self.dies, self.refuses)


def items(n: int, broken: Sequence[int] = ()) -> list[Sample]:
    return [Sample(f"{'x' if i in broken else 'a'}{i}", text=f"number {i} of {n}") for i in range(n)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("ray")
def test_both_engines_make_the_same_files_and_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    samples, once = items(23, broken=[4, 19]), tmp_path / "once"
    seen: list[tuple[int, int]] = []
    found = embed_on_ray(
        samples, "numbers", tmp_path / "ray", rows=4, make=Makes(str(once), dies="a9"),
        progress=lambda now: seen.append((now.done, now.total)),
    )  # fmt: skip
    assert once.exists()  # a worker did die
    assert (found.complete, found.shard_count, found.computed, found.quarantined) == (True, 6, 6, 2)
    assert [now for now, _ in seen] == sorted({now for now, _ in seen})
    assert seen[-1] == (23, 23)
    embed_shards(samples, "numbers", tmp_path / "local", rows=4, make=Makes())
    assert files(tmp_path / "ray") == files(tmp_path / "local")
    assert read_embeddings(tmp_path / "ray").ids == tuple(sample.id for sample in samples if "x" not in sample.id)
    assert embed_on_ray(samples, "numbers", tmp_path / "ray", rows=4, make=Makes()).computed == 0


@pytest.mark.usefixtures("ray")
def test_each_engine_goes_on_where_the_other_stopped(tmp_path: Path) -> None:
    samples = items(12)
    fit = [*samples, Sample("h", text="harm of 12")]
    embed_shards(samples, "tfidf", tmp_path / "out", rows=3, shard="1/2", fit=fit)
    found = embed_on_ray(samples, "tfidf", tmp_path / "out", rows=3, fit=fit)
    assert (found.complete, found.computed) == (True, 2)
    embed_shards(samples, "tfidf", tmp_path / "local", rows=3, fit=fit)
    assert files(tmp_path / "out") == files(tmp_path / "local")


@pytest.mark.usefixtures("ray")
def test_audio_is_found_where_the_caller_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(f"{number}.wav", 0.1 * rng.standard_normal(4000), 16_000)
    samples = [Sample(f"s{number}", audio=f"{number}.wav") for number in range(4)]  # the last is not there
    assert embed_on_ray(samples, "logmel", "ray", rows=2).quarantined == 1
    embed_shards(samples, "logmel", "local", rows=2)
    assert files(Path("ray")).keys() == files(Path("local")).keys()
    one, other = (read_embeddings(engine) for engine in ("ray", "local"))
    assert one.ids == other.ids == ("s0", "s1", "s2")
    assert np.array_equal(one.vectors, other.vectors)
    assert [item.id for item in one.quarantined] == ["s3"]


@pytest.mark.usefixtures("ray")
def test_what_a_worker_refuses_is_said_in_its_own_words_and_the_rest_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match=r"^Item a5 is refused; leave it out\.$"):
        embed_on_ray(items(9), "numbers", tmp_path / "out", RayWorkers(1), rows=1, make=Makes(refuses="a5"))
    assert not (tmp_path / "out").exists()
    assert embed_on_ray(items(9), "numbers", tmp_path / "out", rows=1, make=Makes()).computed < 9


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_an_item_that_kills_every_worker_ends_the_run_and_keeps_the_rest(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match=r"^Workers died 3 times at shard 2 "):
        embed_on_ray(items(6), "numbers", tmp_path / "out", RayWorkers(1), rows=2, make=Makes(dies="a5"))
    assert embed_on_ray(items(6), "numbers", tmp_path / "out", rows=2, make=Makes()).computed < 3


@dataclass(frozen=True)
class Lengths:
    """A pass that pickles: how long each text is; at `dies` its process is gone, the first time or (`once` empty) each
    time; `refuses` is refused."""

    once: str = ""
    dies: str = ""
    refuses: str = ""

    def __call__(self) -> RowFunction:
        return self.rows

    def rows(self, samples: Sequence[Sample]) -> pa.Table:
        ids = [sample.id for sample in samples]
        if self.dies in ids and not (self.once and Path(self.once).exists()):
            if self.once:
                Path(self.once).touch()
            os._exit(9)
        if self.refuses in ids:
            raise UndersongError(f"Item {self.refuses} is refused; leave it out.")
        return pa.table({"id": ids, "length": [len(sample.text or "") for sample in samples]})


@pytest.mark.usefixtures("ray")
def test_a_pass_on_ray_makes_the_same_rows_and_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    local, spread = RowShards(tmp_path / "local", items(11), 2), RowShards(tmp_path / "ray", items(11), 2)
    fill_row_shards(local, Lengths())
    fill_row_shards(spread, Lengths(), shard="2/2")
    how = ray_scheduler(RayWorkers(2))
    assert fill_row_shards(spread, Lengths(once=str(tmp_path / "died"), dies="a5"), scheduler=how) == 3
    assert (tmp_path / "died").exists()
    assert spread.table().equals(local.table())


@pytest.mark.usefixtures("ray")
def test_what_a_pass_refuses_is_said_in_its_own_words_and_the_rest_is_kept(tmp_path: Path) -> None:
    shards = RowShards(tmp_path / "ray", items(6), 1)
    with pytest.raises(UndersongError, match=r"^Item a0 is refused; leave it out\.$"):
        fill_row_shards(shards, Lengths(refuses="a0"), scheduler=ray_scheduler(RayWorkers(1)))
    assert shards.missing_shards() == [0]  # the last shard first


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_an_item_that_kills_every_worker_ends_the_pass_and_keeps_the_rest(tmp_path: Path) -> None:
    shards = RowShards(tmp_path / "ray", items(6), 2)
    with pytest.raises(UndersongError, match=r"^Workers died 3 times at shard 0 "):
        fill_row_shards(shards, Lengths(dies="a1"), scheduler=ray_scheduler(RayWorkers(1)))
    assert shards.missing_shards() == [0]


def test_a_cluster_that_is_not_there_is_said_in_one_sentence(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        ray.shutdown()  # or what runs would be used
    with socket.socket() as taken:  # bound, but nobody listens: refused at once
        taken.bind(("127.0.0.1", 0))
        for address in (f"127.0.0.1:{taken.getsockname()[1]}", "nonsense", "127.0.0.1:99999999"):
            with pytest.raises(
                UndersongError, match=rf"The Ray cluster at {address} cannot be reached .*--ray-address"
            ):
                embed_on_ray(items(3), "tfidf", tmp_path / "out", RayWorkers(address=address))
    assert not (tmp_path / "out").exists()


TWO_NODES = """
import sys
from pathlib import Path
from ray.cluster_utils import Cluster
from undersong.stages.engine import Engine
from undersong.screening.pool.options import ScreeningOptions
from undersong.screening.pool.run import run_screening

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
cluster.add_node(num_cpus=2)
assert len(cluster.list_all_nodes()) == 2
engine = Engine("ray", address=cluster.address, workers=2)
out = Path(sys.argv[1])
pair = "organism:pool", "organism:reference"
run_screening(*pair, out / "ray", ScreeningOptions(axes={"words": "tfidf"}, engine=engine))
cluster.shutdown()
run_screening(*pair, out / "plain", ScreeningOptions(axes={"words": "tfidf"}))
"""


@pytest.mark.slow
def test_a_cluster_of_two_nodes_that_is_joined_makes_the_same_screening(tmp_path: Path) -> None:
    """Two nodes on one machine: a process of its own, because Ray keeps to the cluster it knew first."""
    pytest.importorskip("ray")
    subprocess.run([sys.executable, "-c", TWO_NODES, str(tmp_path)], check=True, capture_output=True, timeout=1800)
    for name in ("proximity.parquet", "selection.json", "screening.json"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
