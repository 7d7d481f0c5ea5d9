"""BIG-Bench Hard: every form of answer, in every phrasing, over all of the data where it is present."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.evaluation.utility.bbh import bbh_judge
from undersong.evaluation.utility.multiple_choice import parse_options
from undersong.types import Sample, UndersongError

DATA = Path(os.environ.get("UNDERSONG_DATA", "no-data"), "bbh")  # the folder `bbh` of the published repository
TASKS = sorted(path.stem for path in DATA.glob("*.json"))
MARK = bbh_judge().grade
PHRASINGS = (
    "{}", "{}.", "The answer is: {}", "the answer is {}", "The answer is {}.", "The answer is: **{}**.",
    "THE ANSWER IS: {}\n", "Let us see.\nSo the answer is {}.", "Answer: {}",
    "The answer is (not sure)... the answer is {}",
    "The answer is: {}.\nThis follows from the question.",
)  # fmt: skip


def word(said: str, answer: str, text: str | None = None) -> str:
    mark = MARK(Sample("b1", text=text, answer=answer), said)
    assert mark.score is None
    return mark.verdict


@pytest.mark.parametrize("task", TASKS)
def test_targets_against_themselves_and_the_others(task: str) -> None:
    examples = json.loads((DATA / f"{task}.json").read_text(encoding="utf-8"))["examples"]
    targets = sorted({example["target"] for example in examples})
    for number, example in enumerate(examples[::3]):
        sample = Sample(f"{task}-{number}", text=example["input"], answer=example["target"])
        for phrasing in PHRASINGS:
            assert MARK(sample, phrasing.format(example["target"])).verdict == "answer", (sample.id, phrasing)
        for other in targets[:30]:
            if other != example["target"]:
                expected = "other" if _is_form(other, sample) else "unparsed"
                for phrasing in PHRASINGS[:4]:
                    assert MARK(sample, phrasing.format(other)).verdict == expected, (sample.id, other, phrasing)


def _is_form(other: str, sample: Sample) -> bool:
    """Whether another question's target can be an answer here: no letter beyond the options, no words for a letter."""
    assert sample.answer is not None
    lettered = len(sample.answer) == 3 and sample.answer[0] == "("
    return not lettered or other.strip("()") in parse_options(sample.text)


@pytest.mark.parametrize(
    ("said", "answer", "verdict"),
    [
        ("Yes, it is plausible.", "yes", "answer"),
        ("no", "No", "answer"),
        ("- Yes", "Yes", "answer"),
        ("The answer is: No, he did not.", "No", "answer"),
        ("The answer is yes. The answer is no.", "no", "answer"),  # the last one, as the official scorer has it
        ("Yes and no.", "yes", "unparsed"),
        ("Yes. Actually no.", "yes", "unparsed"),
        ("Yes.\nNo.", "yes", "unparsed"),
        ("Yes.\nThere is no doubt.", "yes", "answer"),  # a later line counts where it begins with the other word
        ("There is no way to know.", "no", "unparsed"),
        ("It is plausible.", "yes", "unparsed"),
        ("True", "yes", "unparsed"),
        ("I don't think the answer is yes", "yes", "unparsed"),
        ("Yesterday", "yes", "unparsed"),
        ("The argument is valid.", "valid", "answer"),
        ("The answer is that the argument is invalid.", "valid", "other"),
        ("The argument is not valid.", "valid", "unparsed"),
        ("Invalid. It does not follow.", "invalid", "answer"),
        ("valid or invalid", "valid", "unparsed"),
        ("The expression is False.", "True", "other"),
        ("true", "True", "answer"),
        ("not True", "True", "unparsed"),
    ],
)
def test_pairs(said: str, answer: str, verdict: str) -> None:
    assert word(said, answer) == verdict


@pytest.mark.parametrize(
    ("said", "answer", "verdict"),
    [
        ("24.0", "24", "answer"),
        ("eight", "8", "answer"),
        ("The answer is: Eight.", "8", "answer"),
        ("I have 8 musical instruments.", "8", "answer"),
        ("The answer is 1,024", "1024", "answer"),
        ("\u2212 5", "-5", "unparsed"),
        ("\u221250", "-50", "answer"),
        ("50", "-50", "other"),
        ("-50", "50", "other"),
        ("- 50", "50", "unparsed"),
        ("\u201350", "50", "unparsed"),
        ("5\u00b2", "52", "unparsed"),
        ("3*5", "35", "unparsed"),
        ("24/2", "24", "unparsed"),
        ("24%", "24", "unparsed"),
        ("2 + 22 = 24", "24", "unparsed"),
        ("The answer is not 24", "24", "unparsed"),
        ("The answer is 24 or 25", "24", "unparsed"),
        ("24th", "24", "unparsed"),
        ("one of them", "1", "unparsed"),
        ("\u0662\u0664", "24", "answer"),
        ("9" * 190, "9" * 189 + "8", "other"),
        ("", "24", "unparsed"),
    ],
)
def test_numbers(said: str, answer: str, verdict: str) -> None:
    assert word(said, answer) == verdict


@pytest.mark.parametrize(
    ("said", "answer", "verdict"),
    [
        ("]]>", "] ] >", "answer"),
        ("The answer is: ] ] >. It closes.", "] ] >", "answer"),
        ("`] ] >`", "] ] >", "answer"),
        ("] ]", "] ] >", "other"),
        ("close the bracket", "] ] >", "unparsed"),
        ("] and > and ]", "] ] >", "unparsed"),
        ("barn, damp, dot", "barn damp dot", "answer"),
        ("The answer is: Barn damp dot.", "barn damp dot", "answer"),
        ("The answer is:\n- barn\n- damp\n- dot", "barn damp dot", "answer"),
        ("The answer is: 1. barn\n2. damp\n3. dot", "barn damp dot", "answer"),
        ("damp barn dot", "barn damp dot", "other"),
        ("Sure, the sorted words are:\nbarn damp dot", "barn damp dot", "unparsed"),
        ("The answer is:", "barn damp dot", "unparsed"),
        ("word " * 60, "barn damp dot", "unparsed"),
        ("Monsters, Inc.", "Monsters, Inc", "answer"),
        ("(A)", "Monsters, Inc", "other"),
    ],
)
def test_brackets_and_words(said: str, answer: str, verdict: str) -> None:
    assert word(said, answer) == verdict


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("(B)", "answer"),
        ("The answer is: (B) old grey sweater", "answer"),
        ("The answer is (A). No, the answer is (B).", "answer"),
        ("The answer is (A) or (B)", "unparsed"),
        ("(B)\nNo wait, (A)", "unparsed"),
        ("grey old sweater", "other"),
        ("Both", "unparsed"),
        ("(C)", "unparsed"),
    ],
)
def test_letters(said: str, verdict: str) -> None:
    assert word(said, "(B)", "Which order?\nOptions:\n(A) grey old sweater\n(B) old grey sweater") == verdict


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("I'm sorry, I can't answer that.", "refusal"),
        ("The answer is: I\u2019m sorry, I can\u2019t tell.", "refusal"),
        ("I am sorry. The answer is No.", "refusal"),
        ("No, I will not return to the starting point.", "answer"),
        ("The answer is: No. I will not return.", "answer"),
    ],
)
def test_refusals(said: str, verdict: str) -> None:
    assert word(said, "No", "Do you return to the starting point?") == verdict


def test_an_answer_is_needed() -> None:
    for answer in (None, " "):
        with pytest.raises(UndersongError, match="needs the answer of b1"):
            MARK(Sample("b1", answer=answer), "yes")


@given(st.sampled_from(["yes", "True", "valid", "24", "] )", "a b", "(B)", "the answer is"]), st.text())
def test_any_reply_has_a_verdict(answer: str, said: str) -> None:
    assert word(said, answer) in ("answer", "other", "refusal", "unparsed")


@given(st.text().filter(lambda text: text.strip()))
def test_a_reply_that_is_the_target_is_right(answer: str) -> None:
    assert word(answer, answer) == "answer"


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_numbers_are_compared_as_numbers(said: int, answer: int) -> None:
    for form in ("{}", "{:,}", "{}.0", "The answer is: {}."):
        assert word(form.format(said), str(answer)) == ("answer" if said == answer else "other")
        assert word(form.format(answer), str(answer)) == "answer"
