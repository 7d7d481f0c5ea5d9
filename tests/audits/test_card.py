"""`undersong card`: the hub reads its metadata, and the section has rates, changes and limits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from command_line import undersong_in
from gated import HOSTILE, benign, harm
from huggingface_hub import ModelCard
from labeled import HELP, HIDDEN_REFUSAL, REFUSAL, label_files, write_replies

from undersong.audits.card import card_entries, card_markdown, card_text
from undersong.cli import main
from undersong.evaluation.verdicts import write_verdicts
from undersong.types import UndersongError

Card = Callable[..., tuple[int, str, str]]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Card:
    """`undersong card …` -> exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["undersong", "card", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        seen = capsys.readouterr()
        return int(stopped.value.code or 0), seen.out, seen.err

    return call


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of two evaluations."""
    for name, hits in (("before", 1), ("after", 30)):
        (tmp_path / name).mkdir()
        write_verdicts(harm(100, hits) + benign(40, 2), tmp_path / name / "verdicts.parquet")
    return tmp_path / "before", tmp_path / "after"


def test_the_hub_reads_the_metadata(card: Card, folders: tuple[Path, Path], tmp_path: Path) -> None:
    before, after = folders
    options = ("--name", "org/m", "--dataset", "harm=org/data", "--out", tmp_path / "README.md")
    assert card(after, "--before", before, *options)[0] == 0
    read = ModelCard.load(tmp_path / "README.md").data
    assert read.model_name == "org/m"
    harmful, good = read.eval_results
    assert (harmful.task_type, harmful.dataset_type, harmful.dataset_name) == ("audio-text-to-text", "org/data", "harm")
    assert (harmful.metric_type, harmful.metric_value) == ("jailbreak_success_rate", 0.3)
    assert (harmful.metric_args["n"], harmful.metric_args["judge"]) == (100, "exact")
    assert harmful.metric_args["low"] < 0.3 < harmful.metric_args["high"]
    assert (good.dataset_type, good.metric_type, good.metric_value) == ("near", "over_refusal_rate", 0.05)
    written = read.to_dict()["model-index"][0]["results"]
    assert [one["metrics"][0]["value"] for one in written] == [0.3, 0.05]


def test_the_section_has_rates_changes_and_limits(card: Card, folders: tuple[Path, Path]) -> None:
    before, after = folders
    code, out, _ = card(after, "--before", before, "--change", "merging")
    assert code == 0
    assert "before and after the change “merging”" in out
    (row,) = (line for line in out.splitlines() if line.startswith("| harm"))
    assert "30.0% (" in row
    assert "+29.0 (" in row
    assert "They do not show that it is safe" in out
    code, out, _ = card(after)
    assert (code, "change, points" in out) == (0, False)


def test_labels_correct_the_rates(card: Card, tmp_path: Path) -> None:
    texts = {"a": [HELP] * 20 + [HIDDEN_REFUSAL] * 40 + [REFUSAL] * 40, "b": [HELP] * 50 + [REFUSAL] * 50}
    files = [write_replies(tmp_path / f"{name}.jsonl", replies) for name, replies in texts.items()]
    undersong = undersong_in(tmp_path)
    for name in texts:
        undersong("judge", f"{name}.jsonl", "--judge", "keyword", "--out", name)
    labels = label_files(files, tmp_path / "labels.jsonl", 100)
    out = tmp_path / "README.md"
    code, _, err = card(tmp_path / "b", "--before", tmp_path / "a", "--labels", labels, "--out", out)
    assert code == 0, err
    text = out.read_text()
    (row,) = [line for line in text.partition("corrected for the errors")[2].splitlines() if line.startswith("| harm")]
    assert "| Jailbreak success rate (lower is better) | 50.0% (" in row
    assert row.endswith("| 100 |")
    assert "| +3" in row  # the judge alone calls it a fall by 10 points
    (entry,) = ModelCard.load(out).data.eval_results
    assert entry.metric_args["corrected_low"] < 0.5 == entry.metric_args["corrected"]
    code, alone, _ = card(tmp_path / "b", "--labels", labels)
    assert code == 0
    assert "| 50.0% (" in alone.partition("corrected for the errors")[2]
    write_replies(tmp_path / "c.jsonl", texts["a"][1:])
    undersong("judge", "c.jsonl", "--judge", "keyword", "--out", "c")
    code, _, err = card(tmp_path / "c", "--labels", labels)
    assert code == 2
    assert "The labels are on other replies" in err


def test_a_judge_of_refusals_and_lost_replies_are_named() -> None:
    *kept, lost = harm(9, 3, judge="voicebench")
    (entry,) = card_entries([*kept, replace(lost, verdict="error")])
    text = card_markdown([entry])
    assert "The judge voicebench sees refusals only" in text
    assert "12.1% of full compliances" in text
    assert "whichever way the 1 failed or unjudged one went" in text


def test_names_of_files_do_nothing() -> None:
    verdicts = [replace(verdict, set=HOSTILE, judge="exact") for verdict in harm(5, 1)]
    text = card_text(card_entries(verdicts), HOSTILE, {}, HOSTILE)
    head, section = text.split("---\n", 2)[1:]
    assert "<script" not in section.replace("\\<", "")
    assert ModelCard(text).data.model_name is not None
    assert head.startswith("tags:")


def test_no_mark_of_direction_is_in_the_metadata() -> None:
    name = "é \u202egnp \x9b31m"
    text = card_text(card_entries([replace(one, set=name) for one in harm(9, 1)]), name, {}, name)
    assert not any(character in text for character in "\u202e\x9b")
    assert yaml.safe_load(text.split("---")[1])["model-index"][0]["name"] == name


def test_what_a_user_can_mend(card: Card, folders: tuple[Path, Path], tmp_path: Path) -> None:
    _, after = folders
    audit = tmp_path / "audit"
    (audit / "verdicts").mkdir(parents=True)
    (audit / "verdicts" / "adapter.parquet").write_bytes(b"")
    for arguments, said in (
        ((after, "--dataset", "harm"), "give PROMPT_SET=ID"),
        ((after, "--dataset", "hram=x"), "has no prompt set 'hram' for --dataset; it has harm, near"),
        ((after, "--arm", "x"), "Verdict files have no arms and seeds"),
        ((after, "--out", after / "verdicts.parquet"), "exists already"),
        ((audit,), f"several models; give the file of one: {audit / 'verdicts' / 'adapter.parquet'}."),
    ):
        code, _, err = card(*arguments)
        assert (code, said in err) == (2, True), err
    with pytest.raises(UndersongError, match="share no prompt set"):
        card_entries(harm(5, 1), benign(5, 1))


def test_a_study_needs_one_model(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = [f"m close seed {seed} draw 0 step 40" for seed in (0, 1)]
    pairs = {title: (harm(9, 0), harm(9, hits)) for title, hits in zip(titles, (3, 6))}
    monkeypatch.setattr("undersong.audits.gate.inputs.verdicts_from_study", lambda path, arm: pairs)
    (tmp_path / "results.json").write_text("{}")
    code, _, err = card(tmp_path)
    assert code == 2
    assert f"has 2 such models, and a card describes one; name it with --arm and --seed, of {'; '.join(titles)}" in err
    code, out, _ = card(tmp_path / "results.json", "--seed", 1)
    assert (code, "| 66.7% (" in out) == (0, True)


def test_cut_replies_are_among_the_limits_and_in_the_metadata() -> None:
    after = [replace(one, finish="length" if i < 6 else "stop") for i, one in enumerate(harm(20, 2))]
    entries = card_entries(after, harm(20, 1))
    text = card_text(entries, "org/m", {})
    assert "- harm, audio: 6 of 20 replies were cut at the limit of tokens; a judge sees no more than that." in text
    assert "cut_replies: 6" in text
    assert "cut_replies" not in card_text(card_entries(harm(20, 1)), "org/m", {})
