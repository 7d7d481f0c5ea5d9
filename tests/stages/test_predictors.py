"""Artifacts of an axis that runs the model: what they depend on, and that replies to harmful requests stay private."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_af3

from undersong.encoders.embeddings import read_embeddings
from undersong.predictors.registry import PredictorSettings
from undersong.settings.defaults import ORGANISM_REFUSALS
from undersong.stages.context import RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.predictors import PredictorAxis, known_refusal_texts, predictor_modality
from undersong.store.store import Store
from undersong.types import UndersongError


@pytest.fixture
def axis(tiny_folder: Path, tmp_path: Path) -> PredictorAxis:
    """Typed requests; the tiny model's own reply to the first harmful one counts as its refusal."""
    from undersong.models.load import load_model

    texts = {"pool": ["fold the boat", "wash some lamp", "take me"], "harm": ["paint the chair", "how to paint"]}
    for name, requests in texts.items():
        rows = [{"id": f"{name}{i}", "text": text, "answer": "first then"} for i, text in enumerate(requests)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ctx = RunContext(Store(tmp_path / "store"))
    pool, harm = (load_corpus(ctx, str(tmp_path / f"{name}.jsonl"), decode=False) for name in texts)
    settings = PredictorSettings(modality="text", system_text=tiny_af3.PLAIN, rank=2, alpha=4)
    model = load_model(str(tiny_folder))
    (reply, *_) = model.generate(settings.prompts(harm.samples, harmful=True), 32)
    return PredictorAxis(
        ctx, "influence:32", str(tiny_folder), replace(settings, refusal_texts=(reply.reply.strip(),)), pool, harm
    )


def test_vectors_are_made_once_and_depend_on_what_they_say(axis: PredictorAxis, monkeypatch) -> None:
    pool, harm = axis.sample_vectors(axis.pool), axis.reference_vectors(axis.reference)
    assert read_embeddings(pool.path).vectors.shape == (3, 32)
    assert read_embeddings(harm.path).ids == ("harm0", "harm1")
    (replies,) = axis.ctx.store.root.glob("base_replies/*/base_replies.json")
    assert stat.S_IMODE(replies.stat().st_mode) == 0o600
    assert json.loads(replies.read_text())["refused"][0]
    others = {
        axis.sample_vectors(axis.pool).hash,
        replace(axis, settings=replace(axis.settings, rank=3)).sample_vectors(axis.pool).hash,
        replace(axis, settings=replace(axis.settings, system_text=None)).sample_vectors(axis.pool).hash,
        replace(axis, spec="influence:16").sample_vectors(axis.pool).hash,
    }
    assert pool.hash in others
    assert len(others) == 4
    monkeypatch.setattr(RunContext, "model", lambda *_: pytest.fail("made again"))
    assert (axis.sample_vectors(axis.pool), axis.reference_vectors(axis.reference)) == (pool, harm)


def test_other_training_settings_share_the_replies(axis: PredictorAxis) -> None:
    axis.reference_vectors(axis.reference)
    replace(axis, settings=replace(axis.settings, rank=3)).reference_vectors(axis.reference)
    assert len([*axis.ctx.store.root.glob("base_replies/*/base_replies.json")]) == 1


def test_a_base_that_refuses_nothing_has_no_such_axis(axis: PredictorAxis) -> None:
    never = replace(axis, settings=replace(axis.settings, refusal_texts=("never said",)))
    with pytest.raises(UndersongError, match="refused none of the 2 reference prompts"):
        never.reference_vectors(axis.reference)
    with pytest.raises(UndersongError, match="refused nothing of 5 prompts"):
        replace(never, spec="refusal").sample_vectors(axis.pool)
    states = replace(never, spec="decoder").sample_vectors(axis.pool)  # needs no refusal
    assert np.isfinite(read_embeddings(states.path).vectors).all()


def test_modality_and_refusals_are_found() -> None:
    assert predictor_modality("influence,modality=text", "audio") == "text"
    assert predictor_modality("decoder:3", "audio") == "audio"
    assert known_refusal_texts("organism:af3") == ORGANISM_REFUSALS
    assert known_refusal_texts("organism:af3", ("no",)) == ("no",)
    assert known_refusal_texts("org/model") == ()
