"""The same screening whoever embeds the pool: at once, in jobs of their own shards, on Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import soundfile
import tiny_af3
import tiny_asr
import tiny_speech
from screen_call import screen

from undersong.corpora import audio_metadata
from undersong.encoders.asr import Transcriber, read_transcripts
from undersong.encoders.registry import make_encoder
from undersong.models.audio_lm import AudioModel
from undersong.scale import embedding_shards
from undersong.scale.row_shards import RowShards
from undersong.screening.pool.output import ScreeningResult
from undersong.stages.context import RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.engine import DEFAULT_ENGINE, Engine
from undersong.stages.transcripts import transcribe_corpus
from undersong.store.store import Store
from undersong.types import UndersongError

SIDES = ("organism:unseen-benign", "organism:unseen-harm")
AXES = {"words": "tfidf", "sound": "logmel"}


def screened(out: Path, **how) -> ScreeningResult:
    made = screen(*SIDES, out, axes=AXES, **how)
    assert made is not None
    return made


def same(one: ScreeningResult, other: ScreeningResult) -> bool:
    return one.selection == other.selection and all(one.tables[axis].equals(other.tables[axis]) for axis in AXES)


def test_jobs_of_their_own_shards_make_the_same_screening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = screened(tmp_path / "plain")
    for job in ("2/2", "1/2"):
        assert screen(*SIDES, tmp_path / "out", axes=AXES, store=tmp_path / "store", engine=Engine(shard=job)) is None
        assert not (tmp_path / "out").exists()
    made: list[str] = []
    make = make_encoder

    def noted(spec: str, **more):
        encoder = make(spec, **more)
        encode = encoder.encode

        def count(samples):
            made.extend(sample.id for sample in samples)
            return encode(samples)

        monkeypatch.setattr(type(encoder), "encode", lambda self, samples: count(samples), raising=False)
        return encoder

    monkeypatch.setattr("undersong.encoders.registry.make_encoder", noted)
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


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    """Nine benign clips without texts, one of them unreadable, and two harmful ones."""
    rows = []
    for i in range(11):
        soundfile.write(tmp_path / f"{i}.wav", tiny_af3.clip(str(i), 0.4 + 0.1 * i, i).samples, tiny_af3.RATE)
        rows.append({"id": f"clip{i}", "audio": f"{i}.wav"})
    (tmp_path / "5.wav").write_bytes(b"no audio")
    for name, part in (("pool", rows[:9]), ("harm", rows[9:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return tmp_path / "pool.jsonl", tmp_path / "harm.jsonl"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the clips that the corpus stage decodes, in shards of three."""
    seen: list[str] = []
    load = audio_metadata.load_clip
    monkeypatch.setattr("undersong.stages.corpus.ROWS", 3)
    monkeypatch.setattr(audio_metadata, "load_clip", lambda sample, rate: seen.append(sample.id) or load(sample, rate))
    return seen


def test_decoding_that_is_killed_goes_on_after_its_last_shard(
    clips, decoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"axes": {"sound": "logmel"}, "max_quarantined": 0.2}
    write = RowShards.write_shard

    def killed(shards: RowShards, number: int, *more) -> None:
        if number == 0:
            raise KeyboardInterrupt
        write(shards, number, *more)

    monkeypatch.setattr(RowShards, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        screen(*clips, tmp_path / "out", **how)
    monkeypatch.setattr(RowShards, "write_shard", write)
    assert len(list(tmp_path.glob("out.*.partial/corpus/*.shards/rows-*"))) == 2
    decoded.clear()
    made = screen(*clips, tmp_path / "out", **how)
    assert sorted(decoded) == ["clip0", "clip1", "clip10", "clip2", "clip9"]  # the shard in progress, and the harm set
    assert [(item.id, "damaged" in item.reason) for item in made.quarantined] == [("clip5", True)]
    monkeypatch.setattr("undersong.stages.corpus.ROWS", 4096)
    plain = screen(*clips, tmp_path / "plain", **how)
    assert made.selection == plain.selection
    assert made.tables["sound"].equals(plain.tables["sound"])
    for name in ("screening.json", "quarantine.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_jobs_share_out_what_is_decoded_and_what_a_model_hears(
    clips, decoded: list[str], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    hear = AudioModel.encode_audio
    monkeypatch.setattr(embedding_shards, "SHARD_ROWS", 3)
    monkeypatch.setattr(
        AudioModel, "encode_audio", lambda self, c: heard.extend(clip.id for clip in c) or hear(self, c)
    )
    how = {"axes": {"ears": "internal"}, "model": str(tiny_folder), "max_quarantined": 0.2}
    for job in ("1/2", "2/2"):
        assert screen(*clips, tmp_path / "out", store=tmp_path / "store", engine=Engine(shard=job), **how) is None
    assert sorted(decoded) == sorted(f"clip{i}" for i in range(11))
    assert sorted(heard) == [f"clip{i}" for i in range(9) if i != 5]
    heard.clear()
    made = screen(*clips, tmp_path / "out", store=tmp_path / "store", **how)
    assert sorted(heard) == ["clip10", "clip9"]
    assert made.tables["ears"].equals(screen(*clips, tmp_path / "plain", **how).tables["ears"])


def test_jobs_share_out_transcribing(clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asr, heard = str(tiny_asr.save(tmp_path / "asr", ends=0.5)), list[str]()
    transcribe = Transcriber.transcribe
    monkeypatch.setattr("undersong.stages.transcripts.CLIPS_PER_SHARD", 3)
    monkeypatch.setattr(
        Transcriber, "transcribe", lambda self, s: heard.extend(one.id for one in s) or transcribe(self, s)
    )
    shops = [RunContext(Store(tmp_path / name)) for name in ("jobs", "jobs", "plain")]
    pool = [load_corpus(shop, str(clips[0])) for shop in shops]
    first, second = (Engine(shard=job) for job in ("1/2", "2/2"))
    made = [
        transcribe_corpus(shop, asr, one, how) for shop, one, how in zip(shops, pool, (second, first, DEFAULT_ENGINE))
    ]
    assert heard[:3] == ["clip3", "clip4", "clip6"]  # of three shards the second is its own; then it makes the others
    assert sorted(heard) == sorted(2 * [f"clip{i}" for i in range(9) if i != 5])
    jobs, _, plain = (read_transcripts(one.path) for one in made)
    assert jobs == plain
    assert jobs.rows
    assert not list((tmp_path / "jobs" / "transcripts").glob("*.shards"))


def test_ray_makes_the_same_screening(clips, tiny_folder: Path, tmp_path: Path) -> None:
    """All that costs: decoding, encoders, and what the model hears."""
    pytest.importorskip("ray")
    ray = screened(tmp_path / "ray", engine=Engine("ray", workers=1))
    assert same(ray, screened(tmp_path / "plain"))
    how = {"axes": {"ears": "internal"}, "model": str(tiny_folder), "max_quarantined": 0.2}
    one, other = (
        screen(*clips, tmp_path / f"ears{engine.name}", engine=engine, **how)
        for engine in (Engine("ray", workers=1), DEFAULT_ENGINE)
    )
    assert one.tables["ears"].equals(other.tables["ears"])
    assert one.quarantined == other.quarantined


def test_what_no_engine_can_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="no engine 'slurm'; choose one of local, ray"):
        screened(tmp_path / "out", engine=Engine("slurm"))
    with pytest.raises(UndersongError, match="need --engine ray"):
        screened(tmp_path / "out", engine=Engine(workers=2))
    with pytest.raises(UndersongError):
        screened(tmp_path / "out", engine=Engine(shard="3/2"))
