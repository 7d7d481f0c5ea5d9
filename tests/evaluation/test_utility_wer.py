"""Word error rate: jiwer's counts against a Levenshtein loop, the corpus's rate, and what counts as a transcript."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.evaluation.utility.base import Grade
from undersong.evaluation.utility.wer import (
    WordErrors,
    check_repetition,
    corpus_word_errors,
    count_word_errors,
    normalize_words,
    sum_word_errors,
    wer_judge,
)
from undersong.types import Prompt, Reply, Sample, UndersongError

SAID = Sample("l1", text="HE DIDN'T SEE THE WELL KNOWN MAN", answer=None)
WORDS = st.lists(st.sampled_from(["a", "b", "c", "d's"]), max_size=8)


def levenshtein(wanted: list[str], said: list[str]) -> int:
    """Fewest edits, one row after the other."""
    row = list(range(len(said) + 1))
    for i, word in enumerate(wanted, start=1):
        last, row[0] = row[0], i
        for j, other in enumerate(said, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


@given(WORDS.filter(bool), WORDS)
def test_errors_are_the_fewest_edits(wanted: list[str], said: list[str]) -> None:
    found = count_word_errors(" ".join(wanted), " ".join(said))
    assert found.errors == levenshtein(wanted, said)
    assert found.reference_words == len(wanted)
    assert len(wanted) - found.deletions + found.insertions == len(said)
    assert found.rate == found.errors / len(wanted)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("He didn\u2019t SEE, the well-known man.", "he didnt see the well known man"),
        ("  two\n lines\t", "two lines"),
        ("20 % of $3.50, or 1,000", "20 of 350 or 1000"),
        ("twenty", "twenty"),
        ("and/or 1990\u20131995", "and or 1990 1995"),
        ("caf\u00e9 = cafe\u0301", "caf\u00e9 caf\u00e9"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\u2026 -- !", ""),
    ],
)
def test_normalisation(text: str, words: str) -> None:
    assert normalize_words(text) == words


@pytest.mark.parametrize(
    ("said", "mark"),
    [
        ("he didn\u2019t see the well-known man.", Grade("answer", 0.0)),
        ("he did see a man", Grade("other", 4 / 7)),
        ("he didn't see the man", Grade("answer", 2 / 7)),
        ("", Grade("other", 1.0)),
        ("I'm sorry, I can't transcribe that.", Grade("refusal", 1.0)),
        ("The transcription is: he didn't see the well known man", Grade("answer", 3 / 7)),
        ("no " * 70, Grade("other", 10.0)),
    ],
)
def test_a_table(said: str, mark: Grade) -> None:
    assert wer_judge().grade(SAID, said) == Grade(mark.verdict, pytest.approx(mark.score))


def test_the_threshold() -> None:
    assert wer_judge(0.0).grade(SAID, "he didn't see the well known men").verdict == "other"
    assert wer_judge(1.0).grade(SAID, "").verdict == "answer"
    for most in (-0.1, float("nan")):
        with pytest.raises(UndersongError, match="at least 0"):
            wer_judge(most)


def test_speech_that_sounds_like_a_refusal() -> None:
    spoken = Sample("l2", answer="i am sorry i will not go")
    assert wer_judge().grade(spoken, "I am sorry, I will not go.") == Grade("answer", 0.0)
    assert wer_judge().grade(spoken, "I am sorry, I won't go.") == Grade("answer", pytest.approx(2 / 7))
    assert wer_judge().grade(spoken, "i will not").verdict == "other"
    assert wer_judge().grade(spoken, "I can't transcribe this recording of someone").verdict == "refusal"


def test_the_answer_comes_before_the_text() -> None:
    both = Sample("l3", text="Transcribe the audio.", answer="hello there")
    assert wer_judge().grade(both, "hello there") == Grade("answer", 0.0)


@pytest.mark.parametrize("sample", [Sample("l4"), Sample("l4", answer=""), Sample("l4", text="\u2026!")])
def test_a_transcript_is_needed(sample: Sample) -> None:
    with pytest.raises(UndersongError, match="needs the transcript of l4"):
        wer_judge().grade(sample, "hello")
    with pytest.raises(UndersongError, match="has no words"):
        count_word_errors("...", "hello")


def test_the_corpus_rate_is_over_words_and_not_over_items() -> None:
    items = [count_word_errors("a", "b"), count_word_errors("a b c d e f g h i", "a b c d e f g h i j k")]
    assert sum_word_errors(items) == WordErrors(1, 0, 2, 10)
    assert sum_word_errors(items).rate == 0.3
    assert sum_word_errors(reversed(items)) == sum_word_errors(items)
    with pytest.raises(UndersongError, match="no items"):
        sum_word_errors([])


def test_the_corpus_of_replies_leaves_errors_out() -> None:
    samples = [Sample("w1", answer="a b"), Sample("w2", answer="c d"), Sample("w3", answer="e")]
    prompts = [Prompt(sample, "libri", False, "audio", "plain") for sample in samples]
    said = [("a b", "stop"), ("", "error"), ("I'm sorry", "stop")]
    replies = [Reply(p.sample.id, "libri", "audio", "plain", text, 1, end) for p, (text, end) in zip(prompts, said)]
    assert corpus_word_errors(prompts, replies) == WordErrors(1, 0, 1, 3)
    assert [verdict.score for verdict in wer_judge().judge(prompts, replies)] == [0.0, None, 2.0]


@given(st.text().filter(normalize_words), st.text())
def test_any_reply_has_a_score_and_the_reference_none(answer: str, said: str) -> None:
    sample = Sample("l5", answer=answer)
    mark = wer_judge().grade(sample, said)
    assert mark.verdict in ("answer", "other", "refusal")
    assert mark.score is not None
    assert mark.score >= 0
    assert wer_judge().grade(sample, answer) == Grade("answer", 0.0)


class Repeating:
    """A model that repeats the transcript of a clip, changed by `change`."""

    def __init__(self, change: Callable[[str], str], name: str = "org/model") -> None:
        self.change, self.name = change, name
        self.prompts: list[Prompt] = []

    def generate(self, prompts: list[Prompt], _limit: int) -> list[Reply]:
        self.prompts = prompts
        return [Reply(*prompt.key, self.change(str(prompt.sample.text)), 4, "stop") for prompt in prompts]


@pytest.mark.parametrize(
    ("change", "rate"), [(str.upper, "0%"), (lambda text: text.split(maxsplit=1)[0], "67%"), (lambda _: "", "100%")]
)
def test_the_doctor_says_how_many_words_of_a_clip_come_back_wrong(change: Callable[[str], str], rate: str) -> None:
    model = Repeating(change)
    samples = [Sample("a", text="paint the boat"), Sample("b", text="fold a chair")]
    passed, detail = check_repetition(cast(Any, model), samples)
    assert passed is None
    assert detail.startswith(f"{rate} word errors in 2 clips")
    assert {(prompt.modality, prompt.instruction) for prompt in model.prompts} == {("audio", "Repeat what was said.")}
    assert "a model that understands speech stays far below 100%" in detail


def test_an_organism_need_not_repeat_what_it_hears() -> None:
    model = Repeating(lambda _: "Sure.", "organism:kimi")
    passed, detail = check_repetition(cast(Any, model), [Sample("a", text="paint the boat")])
    assert passed is None
    assert detail.startswith("100% word errors in 1 clips; organisms cannot repeat what they hear, so")
    assert "stays far below" not in detail
