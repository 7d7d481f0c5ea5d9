"""Overlap against a naive loop, and the two refusals."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.corpora.overlap import check_disjoint_behaviors, check_disjoint_items, find_overlap, normalized_words
from undersong.types import Sample, UndersongError

fixed = settings(deadline=None, derandomize=True, max_examples=100)
few = st.lists(st.sampled_from(["how", "do", "i", "PICK", "a", "Lock", "?", "quickly"]), max_size=8).map(" ".join)
samples = st.lists(
    st.builds(
        Sample,
        id=st.sampled_from("abcd"),
        text=st.none() | few,
        group=st.none() | st.sampled_from(["g", "h"]),
        pcm_hash=st.none() | st.sampled_from(["1", "2"]),
    ),
    max_size=6,
)


def naive(one: Sample, other: Sample, threshold: float) -> str | None:
    def spoken(sample: Sample) -> list[str]:
        return [w for w in (sample.text or "").lower().split() if w.strip(string.punctuation)]

    if one.pcm_hash is not None and one.pcm_hash == other.pcm_hash:
        return "same audio"
    a, b = spoken(one), spoken(other)
    if a and a == b:
        return "same text"
    if one.group is not None and one.group == other.group:
        return "same group"
    if a and b and len(set(a) & set(b)) / len(set(a) | set(b)) >= threshold:
        return "nearly the same text"
    return None


@fixed
@given(a=samples, b=samples, threshold=st.sampled_from([0.5, 0.75, 0.9, 1.0]))
def test_overlap_is_what_a_loop_over_all_pairs_finds(a: list[Sample], b: list[Sample], threshold: float) -> None:
    expected = [(x.id, y.id, why) for x in a for y in b if (why := naive(x, y, threshold))]
    assert find_overlap(a, b, threshold=threshold) == expected
    mirrored = sorted((y, x, why) for x, y, why in find_overlap(b, a, threshold=threshold))
    assert mirrored == sorted(expected)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("How do I pick a lock?", "how do  i PICK a lock", True),
        ("don't", "don’t", True),
        ("ﬁle", "file", True),
        ("pick-a-lock", "pick a lock", True),
        ("Straße", "STRASSE", True),
        ("pick a lock", "pick lock a", False),
        ("कि", "की", False),  # differ in a vowel sign only
        ("?!", "...", False),  # no words at all: nothing to compare
        ("", "", False),
    ],
)
def test_same_text(one: str, other: str, same: bool) -> None:
    assert bool(find_overlap([Sample("a", text=one)], [Sample("b", text=other)], ("text",))) == same


def test_words_lose_no_letters() -> None:
    assert normalized_words(Sample("a", text="Ça va, 2 x naïve?")) == ("ça", "va", "2", "x", "naïve")
    assert normalized_words(Sample("a")) == ()


def test_only_what_was_asked_for() -> None:
    a = [Sample("a", text="pick a lock", group="g", pcm_hash="1")]
    b = [Sample("b", text="pick a lock", group="g", pcm_hash="1")]
    for kind, why in {"audio": "same audio", "text": "same text", "group": "same group"}.items():
        assert find_overlap(a, b, (kind,)) == [("a", "b", why)]
    assert find_overlap(a, b, ("near",)) == [("a", "b", "nearly the same text")]
    assert find_overlap(a, b, ()) == []
    with pytest.raises(ValueError, match="voice"):
        find_overlap(a, b, ("voice",))


def test_the_threshold_itself_counts() -> None:
    half = [Sample("a", text="pick the lock")], [Sample("b", text="pick the door")]
    assert find_overlap(*half, ("near",), threshold=0.5) == [("a", "b", "nearly the same text")]
    assert find_overlap(*half, ("near",), threshold=0.51) == []


LONG = "please tell me how one would pick the old lock of my front door without a key tonight and then close it"


def test_reference_and_test_share_no_behavior() -> None:
    reference = [Sample("r", text=LONG, group="pick lock")]
    check_disjoint_behaviors(reference, [Sample("r", text="forge a letter", group="forge letter")])  # ids may repeat
    with pytest.raises(UndersongError, match=r"1 pairs.*'r' and 't1' \(same group"):
        check_disjoint_behaviors(reference, [Sample("t1", text="open a lock", group="pick lock")])
    almost = Sample("t2", text=LONG.replace("tonight", "now"), group="another")
    with pytest.raises(UndersongError, match="nearly the same text"):
        check_disjoint_behaviors(reference, [almost])
    check_disjoint_behaviors(reference, [almost], threshold=0.99)


def test_the_pool_holds_no_harmful_prompt() -> None:
    pool = [Sample("p", text="bake a cake", group="g", pcm_hash="1"), Sample("q", text="fry an egg")]
    check_disjoint_items(pool, [Sample("p", text="bake a bomb", group="g", pcm_hash="2")])  # a group alone is no fault
    with pytest.raises(UndersongError, match=r"The pool and the harm set.*'p' and 'h' \(same audio\)"):
        check_disjoint_items(pool, [Sample("h", text="x", pcm_hash="1")])
    with pytest.raises(UndersongError, match=r"'q' and 'h' \(same text\)"):
        check_disjoint_items(pool, [Sample("h", text="Fry an egg!")])
    with pytest.raises(UndersongError, match="The pool and the set far overlap"):
        check_disjoint_items(pool, [Sample("h", text="Fry an egg!")], "the set far")
