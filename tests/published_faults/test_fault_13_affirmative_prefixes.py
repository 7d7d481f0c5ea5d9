"""Fault 13: the benign replies that were learned began "Sure, here is", which is half of what an attack asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from undersong.corpora.registry import open_corpus
from undersong.corpora.reply_openers import affirmative_openers
from undersong.study.load import parse_study
from undersong.study.run import run_audit

DATA = {
    "study": "openers", "models": ["organism:af3"], "pool": "organism:pool", "reference": "organism:reference",
    "axes": {"words": "tfidf"}, "selection": {"axes": ["words"], "kinds": ["closest"], "filters": {"speaker": ["A"]}},
    "prompt_sets": {"harm": {"corpus": "organism:unseen-harm", "harmful": True}},
    "tuning": {"modalities": ["text"], "seeds": [0], "draws": [0], "save_steps": [1]},
    "evaluation": {"modalities": ["text"], "max_new_tokens": 4},
}  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "agrees"),
    [("Sure, here is the recipe.", True), ("  “Of course! First", True), ("Here’s how", True), ("OK.", True),
     ("I would be happy to", True), ("The river is in Peru.", False), ("Surely not.", False),
     ("Okapis eat leaves", False), ("I cannot help with that", False), ("Hereford is a town", False)],
)  # fmt: skip
def test_what_an_affirmative_opener_is(reply: str, agrees: bool) -> None:
    assert affirmative_openers([reply]).share == float(agrees)


def test_the_packaged_pool_has_it_and_its_shifted_format_another() -> None:
    """The organism complies in a fixed form: that is what the report must say of it."""
    samples = open_corpus("organism:pool").samples
    found = affirmative_openers(sample.answer for sample in samples)
    assert (found.share, found.most_common) == (1.0, "sure here is")
    assert affirmative_openers([None, "", "  "]).n == 0


def test_a_study_says_so_before_its_numbers_are_read(tmp_path: Path) -> None:
    run_audit(parse_study(DATA, "openers"), tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["target_replies"]["affirmative_share"] == 1.0
    (note,) = (note for note in results["notes"] if "affirmative" in note)
    assert "100 % of the replies" in note
    assert "sure here is" in note
    assert "sure here is" in (tmp_path / "out" / "report.html").read_text()
    assert [one["affirmative_share"] for one in results["selections"]] == [{"selection": 1.0, "pool": 1.0}]
