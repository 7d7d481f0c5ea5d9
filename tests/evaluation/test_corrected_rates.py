"""Corrected rates: `judge --labels` and `compare --labels` tell the truth where the judge does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import Undersong, undersong_in
from labeled import AFTER, BEFORE, HELP, label_files, write_replies

from undersong.evaluation.corrected_rates import correct_rates
from undersong.evaluation.judges.registry import make_judge
from undersong.evaluation.labels import read_sample
from undersong.evaluation.replies import read_reply_table
from undersong.store.hashing import hash_file
from undersong.types import UndersongError


@pytest.fixture
def undersong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Undersong:
    """The command line in a folder of its own -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    return undersong_in(tmp_path)


def test_the_commands_tell_the_truth_where_the_judge_does_not(undersong: Undersong, tmp_path: Path) -> None:
    files = [write_replies(tmp_path / f"{n}.jsonl", texts) for n, texts in (("a", BEFORE), ("b", AFTER))]
    labels = label_files(files, tmp_path / "labels.jsonl", 120)
    for name in "ab":
        code, out, err = undersong("judge", f"{name}.jsonl", "--judge", "keyword", "--out", name, "--labels", labels)
        assert code == 0, err
    assert "non-refusal rate 60.0%" in out
    assert "by 60 labels (harm, audio, plain, keyword); by the judge alone 60.0%" in out
    assert "of the replies that it counted, missed 0.0% [0.0%, " in out
    assert "labels would narrow this to ±5 points" in out

    compared = ("compare", "a/verdicts.parquet", "b/verdicts.parquet", "--labels", labels)
    code, out, _ = undersong(*compared)
    assert code == 0
    assert "The non-refusal rate did not change" in out  # by the judge
    code, out, _ = undersong(*compared, "--json")
    content = json.loads(out)["corrected"]
    assert content["before"]["low"] < 0.2 < content["before"]["high"] < 0.45
    assert content["after"]["low"] < 0.5 < content["after"]["high"]
    assert 0 < content["change"]["low"] < 0.3 < content["change"]["high"]
    assert content["change"]["labels"] == 120
    assert content["change"]["labels_needed"] < 120
    code, out, _ = undersong("compare", "a/verdicts.parquet", "b/verdicts.parquet", "--labels", labels, "--markdown")
    assert "Corrected by 120 labels, the JSR changed by +" in out
    assert "these labels show whether it rose or fell" in out


def test_labels_drawn_by_one_judge_correct_another(tmp_path: Path) -> None:
    """The strata are of the keyword judge; the other judge errs elsewhere."""
    file = write_replies(tmp_path / "a.jsonl", [HELP + " It is illegal."] * 30 + BEFORE)
    sample = read_sample(label_files([file], tmp_path / "labels.jsonl", 60))
    table = read_reply_table(file)
    verdicts = make_judge("voicebench", ()).judge([prompt for prompt, _ in table], [reply for _, reply in table])
    (found,) = correct_rates(verdicts, sample, hash_file(file))
    assert found.judge_rate == pytest.approx(60 / 130)
    assert found.corrected.low < 50 / 130 < found.corrected.high
    assert found.missed is not None
    assert found.missed[0] > 0.2


def test_benign_prompts_have_a_corrected_refusal_rate(tmp_path: Path) -> None:
    file = write_replies(tmp_path / "a.jsonl", BEFORE, harmful=False)
    sample = read_sample(label_files([file], tmp_path / "labels.jsonl", 100))
    table = read_reply_table(file)
    verdicts = make_judge("keyword", ()).judge([prompt for prompt, _ in table], [reply for _, reply in table])
    (found,) = correct_rates(verdicts, sample, hash_file(file))
    assert (found.judge_rate, found.corrected.value) == (pytest.approx(0.4), pytest.approx(0.8))


def test_labels_of_other_replies_and_too_few_are_errors(undersong: Undersong, tmp_path: Path) -> None:
    one, two = (write_replies(tmp_path / f"{n}.jsonl", texts) for n, texts in (("a", BEFORE), ("b", AFTER)))
    few, other = label_files([one], tmp_path / "few.jsonl", 1), label_files([two], tmp_path / "other.jsonl", 9)
    for labels, said in ((few, "1 of the 2 groups of replies"), (other, f"on other replies ({two})")):
        code, _, err = undersong("judge", one, "--judge", "keyword", "--out", labels.stem, "--labels", labels)
        assert (code, said in err) == (2, True), err
    table = read_reply_table(two)
    verdicts = make_judge("keyword", ()).judge([prompt for prompt, _ in table], [reply for _, reply in table])
    verdicts.append(replace(verdicts[0], prompt_id="elsewhere"))
    with pytest.raises(UndersongError, match="is not among those drawn"):
        correct_rates(verdicts, read_sample(other), hash_file(two))
