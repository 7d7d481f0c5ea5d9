"""Whether skipping the padding changes a screening: ranks and the closest quarter, of what both ways could embed."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_speech
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from undersong.encoders.padding_check import check_padding
from undersong.encoders.speech import speech_encoder
from undersong.types import Embeddings, Sample, UndersongError


class Ready:
    """An encoder whose vectors are drawn, and some of whose items are left out."""

    def __init__(self, name: str, seed: int, lost: frozenset[str] = frozenset()) -> None:
        self.name, self.seed, self.lost = name, seed, lost

    def vector(self, id: str) -> np.ndarray:
        return np.random.default_rng([self.seed, *id.encode()]).standard_normal(5).astype(np.float32)

    def encode(self, samples) -> Embeddings:
        ids = tuple(sample.id for sample in samples if sample.id not in self.lost)
        return Embeddings(ids, np.array([self.vector(id) for id in ids]).reshape(-1, 5), np.ones(len(ids)))


POOL = [Sample(f"p{i:02}") for i in range(23)]
HARM = [Sample(f"h{i}") for i in range(4)]


@given(seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)), lost=st.sets(st.sampled_from([s.id for s in POOL])))
def test_agrees_with_scipy_on_what_both_embed(seeds: tuple[int, int], lost: set[str]) -> None:
    assume(len(lost) < 18)
    ways = Ready("exact", seeds[0], frozenset(lost)), Ready("bucket", seeds[1], frozenset({"p00", "h3"}))
    made = check_padding(*ways, POOL, HARM)
    ids = [sample.id for sample in POOL if sample.id not in {*lost, "p00"}]
    scores = []
    for way in ways:
        rows = [np.stack([way.vector(id) for id in names]).astype(float) for names in (ids, ["h0", "h1", "h2"])]
        scores.append(cdist(*rows, metric="cosine").min(axis=1))
    quarter = len(ids) // 4
    closest = [{ids[row] for row in np.argsort(values, kind="stable")[:quarter]} for values in scores]
    assert (made.clips, made.harm, made.k, made.chance) == (len(ids), 3, quarter, quarter / len(ids))
    assert made.spearman == pytest.approx(spearmanr(*scores).statistic)
    assert made.overlap == pytest.approx(len(closest[0] & closest[1]) / quarter)


def test_one_way_agrees_with_itself() -> None:
    made = check_padding(Ready("a", 1), Ready("b", 1), POOL, HARM)
    assert made.spearman == pytest.approx(1.0)
    assert made.overlap == 1.0


def test_too_little_to_compare() -> None:
    with pytest.raises(UndersongError, match="3 clips and 4 harm items"):
        check_padding(Ready("a", 1), Ready("b", 1), POOL[:3], HARM)
    with pytest.raises(UndersongError, match="0 harm items"):
        check_padding(Ready("a", 1, frozenset({"h0"})), Ready("b", 1), POOL, HARM[:1])


def test_on_clips(tmp_path, spoken) -> None:
    folder = tiny_speech.save("whisper", tmp_path / "whisper")
    clips = [spoken(f"p{i}", 0.3 + 0.2 * (i % 7), pitch=90 + 17 * i, seed=i) for i in range(12)]
    harm = [spoken(f"h{i}", 0.8, pitch=140 + 60 * i, seed=90 + i) for i in range(3)]
    exact, bucket = (speech_encoder(folder, pad=pad) for pad in ("exact", "bucket"))
    made = check_padding(exact, bucket, clips, harm)
    assert (made.clips, made.harm, made.k) == (12, 3, 3)
    # A random network ranks by the voice alone, with padding or without; its vectors are others all the same.
    assert made.spearman > 0.5
    assert not np.allclose(exact.encode(harm).vectors, bucket.encode(harm).vectors, atol=1e-3)
