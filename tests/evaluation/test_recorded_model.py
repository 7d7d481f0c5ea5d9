"""Replies from a file as a model: every prompt has exactly one, or the file is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from undersong.evaluation.replies import write_replies
from undersong.evaluation.serving.recorded_model import recorded_model
from undersong.types import Prompt, Reply, Sample, UndersongError


def prompt(id: str, modality: str = "text", system: str = "plain") -> Prompt:
    return Prompt(Sample(id, text="x", audio="x.wav"), "harm", True, modality, system)


def lines(folder: Path, *rows: Any) -> str:
    path = folder / "said.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return f"recorded:{path}"


def test_what_evaluate_wrote_comes_back(tmp_path: Path) -> None:
    replies = [
        Reply("a", "harm", "text", "plain", "one", 3, "stop"),
        Reply("a", "harm", "audio", "plain", "two", 4, "length"),
        Reply("a", "harm", "text", "guarded", "three\nlines", 5, "stop"),
        Reply("b", "harm", "text", "plain", "", 0, "error", "HTTP 500"),
    ]
    write_replies(replies, tmp_path / "replies.parquet")
    prompts = [prompt(reply.prompt_id, reply.modality, reply.system) for reply in reversed(replies)]
    for place in (tmp_path, tmp_path / "replies.parquet"):
        model = recorded_model(f"recorded:{place}")
        assert model.generate(prompts, 1) == replies[::-1]
        assert model.name == f"recorded:{place.name}"
        assert model.fingerprint == hashlib.sha256((tmp_path / "replies.parquet").read_bytes()).hexdigest()


def test_what_a_line_leaves_out_fits_all(tmp_path: Path) -> None:
    ref = lines(
        tmp_path,
        "\ufeff" + json.dumps({"prompt_id": "a", "reply": "any"}),
        "",
        {"prompt_id": "b", "reply": "heard", "modality": "audio", "tokens": 2, "set": "another"},
        {"prompt_id": "b", "reply": "read", "modality": "text", "system": None},
        {"prompt_id": "c", "error": "it hung up"},
        {"prompt_id": "d", "reply": "a\ud800b", "finish": "length"},
    )
    model = recorded_model(ref)
    found = model.generate(
        [prompt("b", "text", "x"), prompt("a", "audio", "y"), prompt("b", "audio"), prompt("c"), prompt("d")], 9
    )
    assert found == [
        Reply("b", "harm", "text", "x", "read", 0, "stop"),
        Reply("a", "harm", "audio", "y", "any", 0, "stop"),
        Reply("b", "harm", "audio", "plain", "heard", 2, "stop"),
        Reply("c", "harm", "text", "plain", "", 0, "error", "it hung up"),
        Reply("d", "harm", "text", "plain", "a?b", 0, "length"),
    ]


def test_a_prompt_without_a_reply_or_with_several_is_an_error(tmp_path: Path) -> None:
    ref = lines(
        tmp_path,
        {"prompt_id": "a", "reply": "x", "modality": "audio"},
        {"prompt_id": "b", "reply": "x"},
        {"prompt_id": "b", "reply": "x", "modality": "text"},
    )
    with pytest.raises(UndersongError, match=r"no reply to prompt z \(text, system plain\)"):
        recorded_model(ref).generate([prompt("z")], 1)
    with pytest.raises(UndersongError, match="no reply to prompt a "):
        recorded_model(ref).generate([prompt("a")], 1)
    with pytest.raises(UndersongError, match="2 replies to prompt b "):
        recorded_model(ref).generate([prompt("b")], 1)
    twice = lines(tmp_path, {"prompt_id": "a", "reply": "x"}, {"prompt_id": "a", "reply": "y", "set": "other"})
    with pytest.raises(UndersongError, match="line 2 answers prompt a as line 1 does"):
        recorded_model(twice).generate([prompt("a")], 1)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"prompt_id": "a", "reply": ', "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ("[1]", "line 1 is not an object"),
        ({"reply": "x"}, "line 1 has no prompt_id"),
        ({"prompt_id": "a"}, "line 1 has no reply"),
        ({"prompt_id": "a", "reply": None}, "line 1 has no reply"),
        ({"prompt_id": 7, "reply": "x"}, "prompt_id of line 1 is not a string"),
        ({"prompt_id": "a", "reply": ["x"]}, "reply of line 1 is not a string"),
        ({"prompt_id": "a", "reply": "x", "tokens": "3"}, "tokens of line 1 is not a whole number"),
        ({"prompt_id": "a", "reply": "x", "tokens": True}, "tokens of line 1 is not a whole number"),
        ({"prompt_id": "a", "reply": "x", "finish": "done"}, "finish of line 1 is not one of"),
        ({"prompt_id": "a", "reply": "x", "modalty": "audio"}, "line 1 has the unknown column 'modalty'"),
    ],
)
def test_what_is_no_reply_is_refused(tmp_path: Path, row: Any, says: str) -> None:
    with pytest.raises(UndersongError, match=says):
        recorded_model(lines(tmp_path, row)).generate([prompt("a")], 1)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(UndersongError, match="cannot be read"):
            recorded_model(f"recorded:{place}").generate([prompt("a")], 1)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UndersongError, match="damaged parquet"):
        recorded_model(f"recorded:{tmp_path / 'cut.parquet'}").generate([prompt("a")], 1)
    with pytest.raises(UndersongError, match="names no file"):
        recorded_model("recorded:")


def test_it_loads_no_torch(tmp_path: Path) -> None:
    write_replies([Reply("a", "harm", "text", "plain", "one", 3, "stop")], tmp_path / "replies.parquet")
    code = f"""
import sys
from undersong.evaluation.serving.recorded_model import recorded_model
from undersong.types import Prompt, Sample
said = recorded_model({str(tmp_path)!r}).generate([Prompt(Sample("a", text="x"), "harm", True, "text", "plain")], 1)
print(said[0].reply, {{"torch", "transformers", "openai"}} & set(sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=True)
    assert ran.stdout == "one set()\n"
