"""The label file: a random, stratified order, saved line by line and read back."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from labeled import HELP, REFUSAL, label_files, write_replies

from undersong.evaluation.labels import append_label, find_replies_hash, read_sample
from undersong.standalone.labeling import open_label_task
from undersong.store.hashing import hash_file
from undersong.types import UndersongError

TEXTS = [HELP] * 8 + [REFUSAL] * 90 + ["", ""]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [write_replies(tmp_path / name, TEXTS) for name in ("before.jsonl", "after.jsonl")]


def test_rare_verdicts_are_drawn_as_often_as_common_ones(tmp_path: Path, files: list[Path]) -> None:
    files[1].write_text(files[1].read_text().replace("thing", "matter"))
    sample = open_label_task(files, tmp_path / "labels.jsonl", n=16).sample
    drawn = Counter(sample.items[number].stratum for number in sample.order[:16])
    assert set(drawn.values()) == {4}
    assert len(drawn) == 4
    assert len(sample.order) == len(set(sample.order)) == 196  # replies without text are not drawn
    other = open_label_task(files, tmp_path / "other.jsonl", n=16, seed=1).sample
    assert sample.order != other.order
    assert open_label_task(files, tmp_path / "same.jsonl", n=16).sample.order == sample.order


def test_the_last_label_counts_and_an_unfinished_line_is_none(tmp_path: Path, files: list[Path]) -> None:
    path = label_files(files[:1], tmp_path / "labels.jsonl", 3)
    first = read_sample(path).order[0]
    append_label(path, first, "other")
    with path.open("a") as file:
        file.write('{"item": 1, "lab')
    sample = read_sample(path)
    assert (sample.n_labeled, sample.labels[first]) == (3, "other")
    assert HELP not in path.read_text()


def test_wrong_lines_and_files_are_named(tmp_path: Path, files: list[Path]) -> None:
    path = label_files(files[:1], tmp_path / "labels.jsonl", 2)
    for line, said in (
        ('{"item": 0, "label": "answer"}', "unknown label 'answer'"),
        ("[]", "row 4 is no label"),
        ('{"item": -1, "label": "refusal"}', "row 4 is no label"),
        ('{"item": 999999, "label": "refusal"}', "row 4 is no label"),
    ):
        (tmp_path / "bad.jsonl").write_text(path.read_text() + line + "\n")
        with pytest.raises(UndersongError, match=said):
            read_sample(tmp_path / "bad.jsonl")
    for content in ("", "{}", '{"format": "other"}\n', json.dumps([1])):
        (tmp_path / "bad.jsonl").write_text(content)
        with pytest.raises(UndersongError, match="is no label file"):
            read_sample(tmp_path / "bad.jsonl")
    with pytest.raises(UndersongError, match="There is no label file"):
        read_sample(tmp_path / "none.jsonl")


def test_labels_of_other_replies_are_not_gone_on_with(tmp_path: Path, files: list[Path]) -> None:
    path = label_files(files[:1], tmp_path / "labels.jsonl", 2)
    files[0].write_text(files[0].read_text().replace(HELP, "Then take a table."))
    with pytest.raises(UndersongError, match="has labels of other replies"):
        open_label_task(files[:1], path, n=2)


def test_labels_of_other_prompts_of_the_same_replies_are_not_gone_on_with(tmp_path: Path) -> None:
    """Items are known by their place, so another choice of prompts would show other texts."""
    file, path = tmp_path / "a.jsonl", tmp_path / "labels.jsonl"
    file.write_text("\n".join(json.dumps({"prompt_id": str(i), "prompt": "q", "reply": HELP}) for i in range(3)))
    open_label_task([file], path, n=2)
    for other in ({"harmful": False}, {"prompt_set": "near"}):
        with pytest.raises(UndersongError, match="was drawn from other prompts of these replies"):
            open_label_task([file], path, n=2, **other)
    assert open_label_task([file], path, n=3).total == 3


def test_equal_replies_of_two_models_are_labelled_once(tmp_path: Path, files: list[Path]) -> None:
    sample = open_label_task(files, tmp_path / "labels.jsonl", n=2).sample  # a change that changed no reply
    assert [file.name for file in sample.files] == [str(files[0])]
    assert len(sample.order) == 98


def test_replies_without_prompts_cannot_be_labelled(tmp_path: Path, files: list[Path]) -> None:
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    files[0].write_text("\n".join(json.dumps({**row, "prompt": None}) for row in rows))
    with pytest.raises(UndersongError, match=r"has no text of the prompt p0, .* --manifest"):
        open_label_task(files[:1], tmp_path / "labels.jsonl", n=2)
    (tmp_path / "empty.jsonl").write_text(json.dumps({"prompt_id": "a", "reply": " "}))
    with pytest.raises(UndersongError, match="None of the replies has a text"):
        open_label_task([tmp_path / "empty.jsonl"], tmp_path / "labels.jsonl", n=2)


def test_verdicts_say_which_replies_they_are_on(tmp_path: Path) -> None:
    verdicts, provenance = tmp_path / "verdicts.parquet", tmp_path / "provenance.json"
    with pytest.raises(UndersongError, match="says which replies it judges"):
        find_replies_hash(verdicts)
    (tmp_path / "replies.parquet").write_bytes(b"of evaluate")
    provenance.write_text(json.dumps({"stage": "evaluate", "inputs": {"model": "m"}}))
    assert find_replies_hash(verdicts) == hash_file(tmp_path / "replies.parquet")
    provenance.write_text(json.dumps({"stage": "judge", "inputs": {"replies": "abc"}}))
    assert find_replies_hash(verdicts) == "abc"
