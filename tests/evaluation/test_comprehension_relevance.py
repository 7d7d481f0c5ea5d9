"""What a reply is about: ranks against a count by hand, chance by every other pairing, and what is not decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from undersong.encoders.embedding_checks import validate_embeddings
from undersong.encoders.registry import make_encoder
from undersong.evaluation.relevance import Relevance, measure_relevance, min_requests, rank_relevance
from undersong.types import Embeddings, Sample, UndersongError

REQUESTS = {
    "boat": ["paint the red boat"],
    "lamp": ["wash the old lamp"],
    "chair": ["fold the green chair", "please fold that chair"],
    "door": ["open the heavy door"],
}


@dataclass
class Planted:
    """An encoder whose vectors are given; a text without one is quarantined."""

    vectors: dict[str, list[float]]
    name: str = "planted"
    asked: list[list[str]] = field(default_factory=list)

    def encode(self, samples: Any) -> Embeddings:
        self.asked.append([sample.text for sample in samples])
        rows = np.array([self.vectors.get(sample.text, [0.0, 0.0]) for sample in samples], dtype=np.float32)
        return validate_embeddings(self.name, [sample.id for sample in samples], rows, np.zeros(len(rows)))


def tables() -> st.SearchStrategy[np.ndarray]:
    """Similarities of few values, so that many are equal."""
    shapes = st.tuples(st.integers(1, 6), st.integers(2, 7))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.sampled_from([-1.0, 0.0, 0.25, 1.0])))


def by_hand(row: np.ndarray, column: int) -> tuple[int, float]:
    """(rank with ties to its disadvantage, share of the others that are less near, ties half)."""
    others = [value for place, value in enumerate(row) if place != column]
    rank = 1 + sum(value >= row[column] for value in others)
    below = sum(value < row[column] for value in others) + 0.5 * sum(value == row[column] for value in others)
    return rank, below / len(others)


@given(tables(), st.data(), st.sampled_from([0.05, 0.2, 0.5]))
def test_ranks_and_chance_are_those_of_a_count(table: np.ndarray, data: st.DataObject, level: float) -> None:
    count, requests = table.shape
    own = data.draw(st.lists(st.integers(0, requests - 1), min_size=count, max_size=count))
    for row, one in enumerate(rank_relevance(table, own, level)):
        assert (one.rank, one.requests) == (by_hand(table[row], own[row])[0], requests)
        assert one.percentile == pytest.approx(by_hand(table[row], own[row])[1])
        assert one.is_about_request(level) == (one.rank / requests <= level)
        pairs = [by_hand(table[row], other) for other in own if other != own[row]]
        if not pairs:
            assert (one.chance_top, one.chance_about, one.chance_percentile) == (None, None, None)
            continue
        assert one.chance_top == pytest.approx(np.mean([rank == 1 for rank, _ in pairs]))
        assert one.chance_about == pytest.approx(np.mean([rank / requests <= level for rank, _ in pairs]))
        assert one.chance_percentile == pytest.approx(np.mean([share for _, share in pairs]))


def test_replies_about_nothing_pass_as_often_as_the_level_says() -> None:
    """Whatever the encoder makes of requests: some are near to everything, and replies differ in how near they are."""
    rng, level, requests = np.random.default_rng(3), 0.1, 40
    hubs, loud = 3 * rng.normal(size=requests), 3 * rng.normal(size=(2000, 1))
    table = rng.normal(size=(2000, requests)) + hubs + loud
    found = rank_relevance(table, rng.integers(0, requests, 2000), level)
    passed = np.mean([one.is_about_request(level) for one in found])
    assert passed == pytest.approx(level, abs=0.02)  # three standard errors
    assert np.mean([one.percentile for one in found]) == pytest.approx(0.5, abs=0.025)
    assert np.mean([one.chance_about for one in found]) == pytest.approx(passed, abs=0.02)


def test_hubs_that_are_answered_alone_show_in_the_permuted_pairs() -> None:
    """Where only requests are answered that are near to everything, ranks are low without any understanding."""
    rng, requests = np.random.default_rng(0), 40
    table = rng.normal(size=(400, requests)) + 9 * (np.arange(requests) < 4)
    found = rank_relevance(table, rng.integers(0, 4, 400), 0.1)
    assert np.mean([one.is_about_request(0.1) for one in found]) == 1.0
    assert np.mean([one.chance_about for one in found]) == 1.0


def test_a_request_is_as_near_as_the_nearest_of_its_texts() -> None:
    encoder = make_encoder("tfidf", fit=[Sample(name, text=" ".join(texts)) for name, texts in REQUESTS.items()])
    replies = [
        ("boat", "Sure: paint the boat red."),
        ("chair", "To fold that chair, please push."),
        ("lamp", "You open a heavy door by the handle."),
        ("door", ""),
        ("door", "xylophone"),
    ]
    boat, chair, lamp, empty, unknown = measure_relevance(encoder, REQUESTS, replies, 0.25)
    assert boat is not None
    assert chair is not None
    assert lamp is not None
    assert (boat.rank, chair.rank, boat.requests, boat.is_about_request(0.25)) == (1, 1, 4, True)
    assert lamp.rank > 1
    assert not lamp.is_about_request(0.25)
    assert (empty, unknown) == (None, None)  # no word that the encoder knows


def test_one_call_embeds_each_text_once_in_an_order_of_its_own() -> None:
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "said": [1.0, 0.1]}
    encoder = Planted(vectors)
    requests = {"first": ["b"], "second": ["a"]}
    both = measure_relevance(encoder, requests, [("second", "said"), ("first", "said")], 0.5)
    assert encoder.asked == [["a", "b", "said"]]
    assert [one and one.rank for one in both] == [1, 2]
    assert measure_relevance(Planted(vectors), requests, [("first", "said"), ("second", "said")], 0.5) == both[::-1]


def test_texts_that_are_alike_leave_nothing_decided() -> None:
    vectors = {"a": [1.0, 0.0], "b": [2.0, 0.0], "said": [0.5, 0.5]}  # one direction, two lengths
    (one,) = measure_relevance(Planted(vectors), {"first": ["a"], "second": ["b"]}, [("first", "said")], 0.5)
    assert one == Relevance(2, 2, 0.5, None, None, None)


def test_what_cannot_be_placed_is_said_without_its_words() -> None:
    with pytest.raises(UndersongError, match="planted cannot embed the request of second") as error:
        measure_relevance(Planted({"a": [1.0, 0.0]}), {"first": ["a"], "second": ["a secret"]}, [("first", "a")], 0.5)
    assert "secret" not in str(error.value)
    with pytest.raises(UndersongError, match="give a set with several"):
        rank_relevance(np.ones((1, 1)), [0], 0.5)


@pytest.mark.parametrize(("level", "requests"), [(0.05, 20), (0.1, 10), (0.5, 2), (0.3, 4)])
def test_the_fewest_requests_are_those_among_which_the_first_passes(level: float, requests: int) -> None:
    assert min_requests(level) == requests
    first = [Relevance(1, count, 1.0, None, None, None).is_about_request(level) for count in (requests - 1, requests)]
    assert first == [False, True]
