"""Fault 18: proximity was measured to the very prompts that JSR was then measured on."""

from __future__ import annotations

import pytest

from undersong.study.load import parse_study
from undersong.study.run import run_audit
from undersong.types import UndersongError

SEVERAL = {"one": "organism:reference", "two": "organism:unseen-harm"}


@pytest.mark.parametrize("reference", ["organism:unseen-harm", SEVERAL])
def test_the_reference_may_not_be_the_test_set(tmp_path, reference) -> None:
    data = {
        "study": "s", "models": ["organism:af3"], "pool": "organism:pool", "reference": reference,
        "axes": {"semantic": "tfidf"}, "prompt_sets": {"harm": {"corpus": "organism:unseen-harm", "harmful": True}},
        "selection": {"filters": {"speaker": ["A"]}},
    }  # fmt: skip
    with pytest.raises(UndersongError, match="The reference harm set and the test harm set overlap"):
        run_audit(parse_study(data, "s"), tmp_path / "out")


def test_the_packaged_studies_keep_them_apart() -> None:
    from undersong.corpora.overlap import check_disjoint_behaviors
    from undersong.corpora.registry import open_corpus

    reference = open_corpus("organism:reference").samples
    for name in ("test-harm", "unseen-harm"):
        check_disjoint_behaviors(reference, open_corpus(f"organism:{name}").samples)
