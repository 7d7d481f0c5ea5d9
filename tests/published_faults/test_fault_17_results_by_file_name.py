"""Fault 17: results were found by file names that other settings shared, and arrays of other lengths were cut."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.proximity.rules import SelectionRule
from undersong.proximity.table import proximity_table
from undersong.stages.corpus import load_corpus
from undersong.stages.embeddings import EmbeddingRequest, embed_corpus
from undersong.study.arm_selection import ArmRule, selection_artifact
from undersong.types import Embeddings, UndersongError


def test_every_setting_has_a_place_of_its_own(shop) -> None:
    pool, harm = load_corpus(shop, "organism:unseen-benign"), load_corpus(shop, "organism:unseen-harm")
    specs = ("tfidf", "char-ngrams", "logmel")
    vectors = {spec: embed_corpus(shop, EmbeddingRequest(spec, pool, (pool, harm))).path for spec in specs}
    assert len(set(vectors.values())) == 3
    again = embed_corpus(shop, EmbeddingRequest("logmel", harm, (pool, harm))).path  # the same encoder, another corpus
    assert again not in vectors.values()
    near = shop.store.locate("proximity", 1, {}, {"a": "0" * 40})
    places = set()

    class Looker:
        """Notes where each question would be answered."""

        def get_or_make(self, stage, version, config, inputs, make, **_more):
            places.add(store.locate(stage, version, config, inputs).location)
            return store.locate(stage, version, config, inputs)

    store, shop.store = shop.store, Looker()
    for kind in ("closest", "distant", "random"):
        for fraction in (0.25, 0.5, 0.75):
            for draw in (0, 1):
                rule = ArmRule(kind, "sound", SelectionRule(kind, fraction), "h", True)
                selection_artifact(shop, pool, {("sound", "h"): near}, rule, draw)
    assert len(places) == 3 + 3 + 3 * 2  # closest and distant draw nothing


def test_other_lengths_are_an_error() -> None:
    rng = np.random.default_rng(0)
    pool, harm = (
        Embeddings(
            tuple(f"{name}{i}" for i in range(6)),
            rng.standard_normal((6, width)).astype(np.float32),
            np.ones(6, np.int64),
        )
        for name, width in (("a", 4), ("b", 5))
    )
    with pytest.raises(UndersongError, match="4 dimensions"):
        proximity_table("a", "h", pool, harm)
