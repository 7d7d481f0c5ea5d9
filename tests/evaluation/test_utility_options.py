"""The options that a question lists, and their texts said in a reply."""

from __future__ import annotations

import pytest

from undersong.evaluation.utility.multiple_choice import parse_choice, parse_options


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which? A. Paris B. London C. Rome", {"A": "Paris", "B": "London", "C": "Rome"}),
        ("Which?\nOptions:\n(A) one\n(B) two words", {"A": "one", "B": "two words"}),
        ("Which? Options: (A) x (B) y.", {"A": "x", "B": "y"}),
        ("Which?\n A) x\n B) y\nSay a letter.", {"A": "x", "B": "y"}),
        ("Which poem did A. B. Smith write? A. one B. two C. three", {"A": "one", "B": "two", "C": "three"}),
        ("Which? A. this B. C. elegans C. that", {"A": "this", "B": "", "C": "elegans C. that"}),
        ("Which of A. and B. is it? A. one B. two", {"A": "one", "B": "two"}),
        ("Which is A. B. Smith's?\n(A) x\n(B) y", {"A": "x", "B": "y"}),
        ("No options: A. Lincoln", {}),
        ("B. x C. y", {}),
        ("", {}),
        (None, {}),
    ],
)
def test_listed_options(question: str | None, options: dict[str, str]) -> None:
    assert parse_options(question) == options


def test_options_that_contain_each_other_or_look_like_numbers() -> None:
    cities = parse_options("Where?\nA. Paris\nB. Paris, Texas\nC. 3\nD. -3\nE. one\nF. One")
    assert parse_choice("Paris, Texas", cities) == "B"
    assert parse_choice("The answer is Paris.", cities) == "A"
    assert [parse_choice(said, cities) for said in ("3", "-3", "3.5", "The answer is 3.5", "13")] == [
        "C",
        "D",
        None,
        None,
        None,
    ]
    assert parse_choice("one", cities) is None  # the text of two
    numbers = parse_options("How many?\nA. 3\nB. some 3.5\nC. 5")
    assert [parse_choice(said, numbers) for said in ("-3", "The answer is -3", "B. 3.5", "B. 3")] == [
        None,
        None,
        "B",
        None,
    ]
