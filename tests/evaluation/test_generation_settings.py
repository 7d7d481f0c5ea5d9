"""Replies that were generated in different ways are told apart by every command that compares two models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import run_here

from undersong import compare
from undersong.evaluation.generation_settings import (
    UNKNOWN_SETTINGS,
    read_generation_settings,
    setting_notes,
    token_limit_note,
)
from undersong.evaluation.verdicts import read_verdicts, write_verdicts
from undersong.types import UndersongError, Verdict

ENDED = [Verdict(f"p{i}", "harm", True, f"p{i}", "audio", "plain", "exact", "refusal", finish="stop") for i in range(9)]
CUT = [replace(ENDED[0], finish="length"), *ENDED[1:]]
CONFIG = {"max_new_tokens": 256, "system_prompt": None, "instruction": None, "engine": "transformers",
          "loading": {"dtype": "float32", "attention": None, "quantize": None}}  # fmt: skip
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a folder as `evaluate` does; `config` None: as another program does."""

    def write_folder(
        name: str, verdicts: list[Verdict], config: dict[str, Any] | None = CONFIG, **changes: Any
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_verdicts(verdicts, folder / "verdicts.parquet")
        if config is not None:
            content = {"stage": "evaluate", "config": config | changes, "notes": {"model": changes.pop("model", "m")}}
            (folder / "provenance.json").write_text(json.dumps(content))
        return folder

    return write_folder


def notes(before: Path, after: Path) -> list[str]:
    return list(compare(before, after).arms[0].comparison.notes)


def test_replies_cut_at_different_limits_are_no_comparison(write: Write, tmp_path: Path) -> None:
    write("long", ENDED), write("short", CUT, max_new_tokens=12)
    message = "1 reply of short/verdicts.parquet may have been cut, so their rates cannot be compared"
    for command in (["compare", "long", "short"], ["card", "short", "--before", "long"]):
        done = run_here(tmp_path, *command)
        assert done.returncode == 2
        assert message in done.stderr
    with pytest.raises(UndersongError, match=r"of at most 256 new tokens and .* of at most 12, and 1 reply"):
        compare(tmp_path / "long", tmp_path / "short")


def test_different_limits_that_cut_nothing_are_told(write: Write, tmp_path: Path) -> None:
    write("long", CUT), write("short", ENDED, max_new_tokens=12)
    told = "eplies have at most 256 new tokens before and 12 after; none was cut at the smaller limit"
    assert told in run_here(tmp_path, "compare", "long", "short").stdout
    assert told in json.loads(run_here(tmp_path, "compare", "long", "short", "--json").stdout)["notes"][-1]
    assert told in run_here(tmp_path, "compare", "long", "short", "--markdown").stdout
    assert told in run_here(tmp_path, "card", "short", "--before", "long").stdout
    others = run_here(tmp_path, "compare", "long", "short", str(write("same", [*ENDED]))).stdout
    assert others.count("eplies have at most") == 1


def test_other_prompts_and_decoding_are_part_of_the_change(write: Write, tmp_path: Path) -> None:
    given = [replace(verdict, system="given") for verdict in ENDED]
    before = write("before", given, system_prompt="Be kind.")
    loading = {"dtype": "bfloat16", "attention": None, "quantize": "8bit"}
    after = write("after", given, system_prompt="Refuse harm.", instruction="Answer.", loading=loading)
    expected = [
        "The system prompt is 'Be kind.' before and 'Refuse harm.' after, which counts as part of the change.",
        "The instruction is none before and 'Answer.' after, which counts as part of the change.",
        "The number format is 'float32' before and 'bfloat16' after, which counts as part of the change.",
        "The quantization is none before and '8bit' after, which counts as part of the change.",
    ]
    assert notes(before, after)[: len(expected)] == expected
    page, decision = tmp_path / "page.html", tmp_path / "gate.json"
    done = run_here(tmp_path, "gate", "--before", "before", "--after", "after", "--max-jsr-rise", 0.9,
                    "--page", page.name, "--json", decision.name)  # fmt: skip
    for sentence in expected:
        said = f"Note: {sentence[0].lower()}{sentence[1:]}"
        assert said in " ".join(done.stdout.split())
        assert said in json.loads(decision.read_text())["notes"]
        assert sentence[1:].split("'")[0] in page.read_text()
    plain = write("plain", ENDED)
    assert [note for note in notes(plain, before) if "system" in note] == [
        "The sides differ in system ('plain' before, 'given' after)."
    ]


def test_an_unknown_limit_is_told_only_where_replies_were_cut(write: Write) -> None:
    known, cut, foreign = write("known", ENDED), write("cut", CUT), write("foreign", CUT, None)
    quiet, silent = write("quiet", ENDED, None), write("silent", [replace(v, finish=None) for v in ENDED], None)
    for pair in ((known, quiet), (quiet, silent), (known, cut), (known, silent)):
        assert not any("new token" in note for note in notes(*pair))
    said = "Nothing says how many new tokens the replies {} could have, and {} cut, so another limit alone may change"
    assert any(note.startswith(said.format("before", "1 reply was")) for note in notes(foreign, known))
    assert any(note.startswith(said.format("before and after", "1 reply was")) for note in notes(quiet, foreign))
    recorded = write("recorded", CUT, model="recorded:replies.jsonl")
    assert read_generation_settings(recorded) == UNKNOWN_SETTINGS  # replies of any limit


def test_settings_follow_the_replies_into_judge_and_out_of_watch(write: Write, tmp_path: Path) -> None:
    from undersong.evaluation.replies import write_replies
    from undersong.types import Reply

    for name, limit in (("short", 12), ("long", 256)):
        folder = write(name, ENDED, max_new_tokens=limit)
        write_replies([Reply(v.prompt_id, "harm", "audio", "plain", "no", 1, "length") for v in ENDED],
                      folder / "replies.parquet")  # fmt: skip
        done = run_here(tmp_path, "judge", f"{name}/replies.parquet", "--out", f"{name}-judged", "--judge", "keyword")
        assert done.returncode == 0, done.stderr
    assert "9 replies of short-judged/verdicts.parquet may have been" in run_here(
        tmp_path, "compare", "short-judged", "long-judged"
    ).stderr  # fmt: skip

    (tmp_path / "audit" / "verdicts").mkdir(parents=True)
    key = {"max_new_tokens": 12, "prompt": ["text", None, "Be kind.", None], "loading": CONFIG["loading"]}
    (tmp_path / "audit" / "watch.jsonl").write_text(json.dumps({"checkpoint": "base", "key": key}) + "\n")
    verdicts = tmp_path / "audit" / "verdicts" / "base.parquet"
    write_verdicts(CUT, verdicts)
    assert read_generation_settings(verdicts).max_new_tokens == 12
    pair = verdicts, tmp_path / "long"
    with pytest.raises(UndersongError, match=r"of at most 12 new tokens and .* of at most 256"):
        token_limit_note(pair, (CUT, ENDED))
    assert setting_notes(pair, (CUT, ENDED)) == [
        "the system prompt is 'Be kind.' before and none after, which counts as part of the change."
    ]
    assert read_verdicts(verdicts) == CUT
