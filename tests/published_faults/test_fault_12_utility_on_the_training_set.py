"""Fault 12: utility was measured on the training samples."""

from __future__ import annotations

import pytest

from undersong.corpora.overlap import check_disjoint_items
from undersong.study.load import parse_study
from undersong.study.run import run_audit
from undersong.types import UndersongError


def test_a_set_of_training_samples_is_refused_before_anything_is_trained(tmp_path) -> None:
    data = {
        "study": "s", "models": ["organism:af3"], "pool": "organism:pool", "reference": "organism:reference",
        "axes": {"semantic": "tfidf"}, "selection": {"filters": {"speaker": ["A"]}},
        "prompt_sets": {"harm": {"corpus": "organism:unseen-harm", "harmful": True},
                 "utility": {"corpus": "organism:pool", "filters": {"speaker": ["A"]}}},
    }  # fmt: skip
    with pytest.raises(UndersongError, match="The pool and the set utility overlap"):
        run_audit(parse_study(data, "s"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("store/adapter"))


def test_another_voice_of_a_training_question_is_found_by_its_words(benign) -> None:
    mine = [sample for sample in benign if sample.speaker == "A"]
    other = next(s for s in benign if s.speaker == "E" and s.text in {sample.text for sample in mine})
    with pytest.raises(UndersongError, match="same text"):
        check_disjoint_items(mine, [other], other_name="the set x")
