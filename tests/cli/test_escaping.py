"""Texts of libraries and files, as an error message shows them."""

from __future__ import annotations

import json

import pytest

from undersong.escaping import (
    MAX_QUOTED_CHARACTERS,
    describe_error,
    escape_line,
    escaped_json,
    is_printable,
    quote,
    shorten,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ImportError(), "ImportError"),
        (ValueError("  \n "), "ValueError"),
        (RuntimeError("one\n  two\tthree. "), "one two three"),
        (OSError("Can't load 'x.y'. If you were trying to load it from 'https://a.b/models', do."), "Can't load 'x.y'"),
        (
            OSError("404 Client Error. (Request ID: 1)\n\nNot Found for url: https://a.b/c. Please"),
            "404 Client Error. (Request ID: 1) Not Found",
        ),
        (
            OSError("We couldn't connect to 'https://huggingface.co' to load it."),
            "We couldn't connect to the hub to load it",
        ),
        (
            OSError("no answer from http://127.0.0.1:8000/v1 in 3.5 s"),
            "no answer from http://127.0.0.1:8000/v1 in 3.5 s",
        ),
    ],
)
def test_a_library_s_error_is_one_line_with_a_word_in_it(error: Exception, text: str) -> None:
    assert describe_error(error) == text


def test_a_long_text_keeps_both_ends_and_says_its_length() -> None:
    text = describe_error(ValueError("a" * 5_000 + "z"))
    assert text.startswith("aaa")
    assert "z (5,001 characters)" in text
    assert len(text) < MAX_QUOTED_CHARACTERS + 30
    assert shorten("b" * MAX_QUOTED_CHARACTERS) == "b" * MAX_QUOTED_CHARACTERS
    assert len(quote(["x" * 999] * 999)) < MAX_QUOTED_CHARACTERS + 30


@pytest.mark.parametrize(
    ("line", "escaped"),
    [("::error::x", r"\x3a:error::x"), ("a ::error", "a ::error"), ("##[x", r"#\x23[x"), ("a\nb\x1b", r"a\nb\x1b")],
)
def test_a_line_obeys_nobody(line: str, escaped: str) -> None:
    assert escape_line(line) == escaped


def test_json_obeys_nobody_and_says_the_same() -> None:
    value = {"a##[error]": ["\x9b31m", "\x85\u202e", "é\u00a0日本", "##vso[x]", "\ud800"], "n": 1.5}
    text = escaped_json(value, indent=1)
    assert json.loads(text) == value
    assert all(is_printable(character) for character in text.replace("\n", ""))
    assert "##" not in text
    assert "é\u00a0日本" in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        escaped_json(float("nan"), indent=1)
