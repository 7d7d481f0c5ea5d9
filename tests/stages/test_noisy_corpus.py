"""A set or a pool under noise: the same items, other sound, filed by the noise and its level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from undersong.corpora.decode import load_clip
from undersong.stages.context import RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.engine import Engine
from undersong.store.store import Store
from undersong.study.load import parse_study
from undersong.types import UndersongError

REF, WHERE = "organism:unseen-harm", {"speaker": ["A"]}


def test_the_same_items_sound_otherwise(tmp_path: Path) -> None:
    shop = RunContext(Store(tmp_path))
    clean, noisy, worse = (load_corpus(shop, REF, WHERE, noise=noise) for noise in (None, "pink:10", "pink:0"))
    assert len({one.artifact.hash for one in (clean, noisy, worse)}) == 3
    for plain, ten, zero in zip(clean.samples, noisy.samples, worse.samples, strict=True):
        assert (f"{plain.id} in pink:10", plain.text, plain.group) == (ten.id, ten.text, ten.group)
        assert dict(ten.labels)["noise_snr"] == "10"
        speech, with_ten, with_zero = (load_clip(one, 16_000).samples for one in (plain, ten, zero))
        assert len(speech) == len(with_ten)
        added = [np.std(found / float(dict(one.labels)["noise_scale"]) - speech)
                 for found, one in ((with_ten, ten), (with_zero, zero))]  # fmt: skip
        assert 20 * np.log10(added[1] / added[0]) == pytest.approx(10, abs=0.2)


def test_jobs_that_share_out_decoding_hear_the_noise_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("undersong.stages.corpus.ROWS", 3)
    jobs, alone = (RunContext(Store(tmp_path / name)) for name in ("jobs", "alone"))
    one, _ = (load_corpus(jobs, REF, WHERE, noise="pink:0", engine=Engine(shard=shard)) for shard in ("2/2", "1/2"))
    assert one.samples == load_corpus(alone, REF, WHERE, noise="pink:0").samples


def test_a_recording_is_filed_by_its_sound_and_not_its_name(tmp_path: Path) -> None:
    shop = RunContext(Store(tmp_path / "store"))
    hum = 0.1 * np.sin(np.arange(16_000 * 5) / 9)
    for name in ("cafe", "copy"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "hum.wav", hum, 16_000)
    one, same = (load_corpus(shop, REF, WHERE, noise=f"{tmp_path / name / 'hum.wav'}:5") for name in ("cafe", "copy"))
    assert one.artifact.hash == same.artifact.hash


def test_what_is_no_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match=r"gone\.wav"):
        load_corpus(RunContext(Store(tmp_path)), REF, WHERE, noise=f"{tmp_path}/gone.wav:5")
    study = {"study": "s", "models": ["m"], "pool": "p", "reference": "r", "axes": {"semantic": "tfidf"},
             "prompt_sets": {"harm": {"corpus": "h", "harmful": True, "noise": "loud"}}}  # fmt: skip
    with pytest.raises(UndersongError, match="noise"):
        parse_study(study, "study")


def test_noise_is_asked_for_in_speech_alone(tmp_path: Path) -> None:
    from undersong.study.prompt_requests import prompt_set_requests

    data = {"study": "s", "models": ["organism:af3"], "pool": "p", "reference": "r", "axes": {"semantic": "tfidf"},
            "prompt_sets": {"harm": {"corpus": REF, "harmful": True},
                     "loud": {"corpus": REF, "harmful": True, "noise": "pink:5"}}}  # fmt: skip
    study, shop = parse_study(data, "study"), RunContext(Store(tmp_path))
    sets = {name: load_corpus(shop, REF, noise=one.noise) for name, one in study.prompt_sets.items()}
    asked = [
        (one.set_name, one.modality) for one in prompt_set_requests(study, sets, "organism:af3", is_last_step=True)
    ]
    assert asked == [("harm", "audio"), ("harm", "text"), ("loud", "audio")]


def test_a_pool_under_noise_is_chosen_from_as_without(tmp_path: Path) -> None:
    from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
    from undersong.stages.embeddings import EmbeddingRequest, embed_corpus
    from undersong.study.arm_selection import arm_rules, load_selection, measure_proximity
    from undersong.study.audit import load_corpora
    from undersong.study.planning.planning_store import plan_artifacts

    data = {"study": "s", "models": ["organism:af3"], "pool": "organism:unseen-benign",
            "reference": "organism:reference", "axes": {"semantic": "tfidf"},
            "prompt_sets": {"harm": {"corpus": REF, "harmful": True}}}  # fmt: skip
    chosen, trained = [], []
    for noise in (None, "pink:10"):
        study, shop = parse_study(data | {"selection": {"noise": noise}}, "study"), RunContext(Store(tmp_path))
        record = load_corpora(study, shop)
        assert {dict(one.labels).get("noise_snr") for one in record.pool.samples} == {noise and "10"}
        assert not any("noise_snr" in dict(one.labels) for one in record.sets["harm"].samples)
        fit = (record.pool, record.reference)
        pool, harm = (embed_corpus(shop, EmbeddingRequest("tfidf", one, fit, "organism:af3", None)) for one in fit)
        settings = study.proximity.model_dump()
        made = measure_proximity(shop, "semantic", pool, harm, study.reference, settings, record.pool, None)
        near = {("semantic", study.reference): made}
        kept = [load_selection(shop, record.pool, near, rule, 0) for rule in arm_rules(study)]
        texts = {one.id: (one.text, one.speaker) for one in record.pool.samples}
        chosen.append([[texts[ident] for ident in one.ids] for one in kept])
        trained.append(
            {
                key
                for key, one in plan_artifacts(study, tmp_path, DEFAULT_LOAD_OPTIONS).planned.items()
                if one.stage == "adapter"
            }
        )
    assert chosen[0] == chosen[1]
    assert not trained[0] & trained[1]
