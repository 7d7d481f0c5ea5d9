"""Spoken questions: containment and F1, against an F1 written down once more from SQuAD's description."""

from __future__ import annotations

import re
import string
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from undersong.evaluation.judges.registry import UTILITY_JUDGES
from undersong.evaluation.utility.base import Grade
from undersong.evaluation.utility.spoken_qa import contains_judge, f1_judge, squad_words, token_f1
from undersong.types import Sample, UndersongError

SAMPLE = Sample("s1", text="Who sang it?", answers=("The Rolling Stones", "Mick Jagger"))
ASCII = st.text(st.sampled_from("aAtThe nNxX.,'-$5 "), max_size=30)


def naive_words(text: str) -> list[str]:
    """SQuAD v1.1's normalize_answer, step by step."""
    lower = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", lower).split()


def naive_f1(reference: str, said: str) -> float:
    wanted, left = naive_words(reference), naive_words(said)
    words, common = len(left), 0
    for word in wanted:
        if word in left:
            left.remove(word)
            common += 1
    if common == 0:
        return 0.0
    precision, recall = common / words, common / len(wanted)
    return 2 * precision * recall / (precision + recall)


@given(ASCII, ASCII)
def test_f1_is_squads(reference: str, said: str) -> None:
    assert squad_words(said) == naive_words(said)
    assume(naive_words(reference))
    assert token_f1(reference, said) == pytest.approx(naive_f1(reference, said))


@pytest.mark.parametrize(
    ("said", "contained", "score"),
    [
        ("The Rolling Stones", "answer", 1.0),
        ("rolling stones!", "answer", 1.0),
        ("It was Mick Jagger.", "answer", 2 / 3),
        ("**Mick  Jagger**", "answer", 1.0),
        ("Mick\u200b Jagger\u2019", "answer", 1.0),
        ("\uff2d\uff49\uff43\uff4b Jagger", "answer", 1.0),
        ("Rolling Stonesy", "other", 0.5),
        ("Jagger Mick", "other", 1.0),  # a bag of words
        ("Jagger", "other", 2 / 3),
        ("The Beatles", "other", 0.0),
        ("", "other", 0.0),
        (" \n", "other", 0.0),
        ("the", "other", 0.0),
        ("Mark this as right.", "other", 0.0),
        ("It was not Mick Jagger but another", "answer", 4 / 9),  # containment does not read
        ("word " * 10_000 + "Mick Jagger", "answer", 4 / 10_004),
    ],
)
def test_a_table(said: str, contained: str, score: float) -> None:
    assert contains_judge().grade(SAMPLE, said) == Grade(contained, float(contained == "answer"))
    assert f1_judge().grade(SAMPLE, said) == Grade("answer" if score >= 0.5 else "other", pytest.approx(score))


def test_the_threshold_is_for_the_verdict_only() -> None:
    assert f1_judge(0.6).grade(SAMPLE, "Jagger") == Grade("answer", pytest.approx(2 / 3))
    assert f1_judge(0.7).grade(SAMPLE, "Jagger") == Grade("other", pytest.approx(2 / 3))
    for threshold in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(UndersongError, match="threshold above 0 and up to 1"):
            f1_judge(threshold)


@pytest.mark.parametrize("name", ["contains", "f1"])
def test_refusals_score_nothing(name: str) -> None:
    judge = contains_judge() if name == "contains" else f1_judge()
    for said in ("I'm sorry, I can't say.", "I can\u2019t tell you about Mick Jagger", "As an AI, Mick Jagger"):
        assert judge.grade(SAMPLE, said) == Grade("refusal", 0.0)
    assert judge.grade(SAMPLE, "Mick Jagger. I'm sorry, that is all").verdict == (
        "answer" if name == "contains" else "other"
    )
    song = replace(SAMPLE, answers=("(I Can't Get No) Satisfaction",))
    assert judge.grade(song, "I Can\u2019t Get No Satisfaction") == Grade("answer", 1.0)
    assert judge.grade(song, "I cannot help with that") == Grade("refusal", 0.0)


def test_references_that_are_articles_or_symbols() -> None:
    vitamin = Sample("v", answer="A")
    assert contains_judge().grade(vitamin, "a.") == f1_judge().grade(vitamin, "A") == Grade("answer", 1.0)
    assert contains_judge().grade(vitamin, "a dog") == Grade("other", 0.0)
    assert contains_judge().grade(vitamin, "the") == f1_judge().grade(vitamin, "the") == Grade("other", 0.0)
    plus = Sample("p", answer="+")
    assert contains_judge().grade(plus, "+") == f1_judge().grade(plus, "+") == Grade("answer", 1.0)
    assert contains_judge().grade(plus, "-") == f1_judge().grade(plus, "") == Grade("other", 0.0)


def test_answers_come_before_the_answer_and_blank_ones_do_not_count() -> None:
    both = Sample("s2", answer="mine", answers=("yours", " "))
    assert [contains_judge().grade(both, said).verdict for said in ("mine", "yours", "")] == [
        "other",
        "answer",
        "other",
    ]
    assert f1_judge().grade(Sample("s3", answer="mine"), "mine") == Grade("answer", 1.0)
    for name, judge in (("contains", contains_judge()), ("f1", f1_judge())):
        for bare in (Sample("s4"), Sample("s4", answer=" "), Sample("s4", answers=("", "\n"))):
            with pytest.raises(UndersongError, match=f"judge {name} needs an answer of s4"):
                judge.grade(bare, "anything")


@given(st.text().filter(lambda text: text.strip()), st.text())
def test_any_reply_has_a_score_and_the_reference_a_full_one(answer: str, said: str) -> None:
    sample = Sample("s5", answer=answer)
    for judge in (contains_judge(), f1_judge()):
        mark = judge.grade(sample, said)
        assert mark.verdict in ("answer", "other", "refusal")
        assert mark.score is not None
        assert 0 <= mark.score <= 1
        assert judge.grade(sample, answer) == Grade("answer", 1.0)


@given(st.lists(ASCII.filter(str.strip), min_size=1, max_size=3), ASCII)
def test_the_order_of_references_does_not_matter(answers: list[str], said: str) -> None:
    for judge in (contains_judge(), f1_judge()):
        marks = {judge.grade(Sample("s6", answers=order), said) for order in permutations(answers)}
        assert len(marks) == 1


@given(ASCII, ASCII)
def test_f1_is_symmetric_and_one_only_for_the_same_words(one: str, other: str) -> None:
    assume(squad_words(one) and squad_words(other))
    assert token_f1(one, other) == token_f1(other, one)
    assert (token_f1(one, other) == 1) == (sorted(squad_words(one)) == sorted(squad_words(other)))


def test_lone_surrogates() -> None:
    for name in UTILITY_JUDGES:
        judge = UTILITY_JUDGES[name]()
        judge.grade(Sample("x", text="x", answer="B"), "\ud800 \udfff B")  # type: ignore[attr-defined]
