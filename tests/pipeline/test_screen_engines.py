"""The same screening whoever embeds the pool: at once, in jobs of their own shards, on Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import tiny_speech
from screening import screen

from undersong import encoders
from undersong.pipeline.engine import Engine
from undersong.pipeline.screening import Screened
from undersong.types import UndersongError

SIDES = ("organism:unseen-benign", "organism:unseen-harm")
AXES = {"words": "tfidf", "sound": "logmel"}


def screened(out: Path, **how) -> Screened:
    made = screen(*SIDES, out, axes=AXES, **how)
    assert made is not None
    return made


def same(one: Screened, other: Screened) -> bool:
    return one.selection == other.selection and all(one.tables[axis].equals(other.tables[axis]) for axis in AXES)


def test_jobs_of_their_own_shards_make_the_same_screening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = screened(tmp_path / "plain")
    for job in ("2/2", "1/2"):
        assert screen(*SIDES, tmp_path / "out", axes=AXES, store=tmp_path / "store", engine=Engine(shard=job)) is None
        assert not (tmp_path / "out").exists()
    made: list[str] = []
    make = encoders.make_encoder

    def noted(spec: str, **more):
        encoder = make(spec, **more)
        encode = encoder.encode

        def count(samples):
            made.extend(sample.id for sample in samples)
            return encode(samples)

        monkeypatch.setattr(type(encoder), "encode", lambda self, samples: count(samples), raising=False)
        return encoder

    monkeypatch.setattr(encoders, "make_encoder", noted)
    joined = screened(tmp_path / "out", store=tmp_path / "store")
    assert same(joined, plain)
    pool = set(plain.tables["words"].column("id").to_pylist())
    assert not pool & set(made)  # the jobs have embedded the pool; of the harm set alone there was more to do


def test_shards_of_other_weights_are_not_taken(tmp_path: Path) -> None:
    """A folder keeps its name when its model is trained on: one job's shards must not be joined with another's."""
    folder = tiny_speech.save("wavlm-base", tmp_path / "wavlm")
    how = {"axes": {"speech": f"speech:{folder}"}, "store": tmp_path / "store"}
    for job in ("1/2", "2/2"):
        assert screen(*SIDES, tmp_path / "out", engine=Engine(shard=job), **how) is None
    weights = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(weights)
    safetensors.torch.save_file({name: 2 * one for name, one in tensors.items()}, weights, {"format": "pt"})
    joined, plain = (
        screen(*SIDES, tmp_path / name, **more) for name, more in (("out", how), ("plain", {"axes": how["axes"]}))
    )
    assert joined is not None
    assert plain is not None
    assert joined.tables["speech"].equals(plain.tables["speech"])


def test_ray_makes_the_same_screening(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    ray = screened(tmp_path / "ray", engine=Engine("ray", workers=1))
    assert same(ray, screened(tmp_path / "plain"))


def test_what_no_engine_can_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="no engine 'slurm'; take one of local, ray"):
        screened(tmp_path / "out", engine=Engine("slurm"))
    with pytest.raises(UndersongError, match="belong to --engine ray"):
        screened(tmp_path / "out", engine=Engine(workers=2))
    with pytest.raises(UndersongError):
        screened(tmp_path / "out", engine=Engine(shard="3/2"))
