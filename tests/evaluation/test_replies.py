"""Prompts of a set, and the replies table that only its owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.evaluation.prompts import make_prompts
from undersong.evaluation.replies import COLUMNS, read_replies, write_replies
from undersong.types import Prompt, Reply, Sample, UndersongError

BOTH = Sample("a", audio=b"ogg", text="fold the chair")
SPOKEN, WRITTEN = Sample("b", audio="b.wav"), Sample("c", text="wash")


def ask(samples, modality: str, **more) -> list[Prompt]:
    return make_prompts(
        samples, set_name="near", harmful=False, modality=modality, system="safe", system_text="refuse", **more
    )


def test_one_prompt_a_sample_in_order() -> None:
    assert ask([SPOKEN, BOTH], "audio") == [
        Prompt(SPOKEN, "near", False, "audio", "safe", "refuse", None),
        Prompt(BOTH, "near", False, "audio", "safe", "refuse", None),
    ]
    assert ask([WRITTEN], "text", instruction="answer") == [
        Prompt(WRITTEN, "near", False, "text", "safe", "refuse", "answer")
    ]
    assert ask([], "text") == []


@pytest.mark.parametrize(
    ("samples", "modality", "said"),
    [
        ([BOTH, WRITTEN], "audio", "Sample c of set near has no audio"),
        ([BOTH, SPOKEN], "text", "Sample b of set near has no text"),
        ([BOTH], "video", "no modality 'video'; use audio or text"),
        ([], "video", "no modality 'video'"),
    ],
)
def test_a_sample_that_cannot_be_asked_so_is_named(samples, modality: str, said: str) -> None:
    with pytest.raises(UndersongError, match=said):
        ask(samples, modality)


replies = st.builds(
    Reply,
    *[st.text()] * 5,
    st.integers(0, 2**40),
    st.sampled_from(["stop", "length", "error"]),
    st.none() | st.text(),
)


@given(st.lists(replies, max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, said: list[Reply]) -> None:
    path = tmp_path_factory.mktemp("replies") / "replies.parquet"
    write_replies(said, path)
    assert read_replies(path) == said
    assert tuple(pq.read_schema(path).names) == COLUMNS


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    one = Reply("a", "harm", "audio", "plain", "first a chair", 3, "stop")
    previous = os.umask(0)
    try:
        write_replies([one], tmp_path / "new.parquet")
        old = tmp_path / "old.parquet"
        old.write_bytes(b"something longer than what comes after" * 1000)
        old.chmod(0o644)
        write_replies([one], old)
    finally:
        os.umask(previous)
    assert mode(tmp_path / "new.parquet") == 0o600
    assert mode(old) == 0o600
    assert read_replies(old) == [one]


def test_rights_are_taken_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "replies.parquet", []
    path.touch(0o644)
    write = pq.write_table

    def spy(table, file, **options) -> None:
        seen.append((mode(path), path.stat().st_size))
        write(table, file, **options)

    monkeypatch.setattr(pq, "write_table", spy)
    write_replies([], path)
    assert seen == [(0o600, 0)]
