"""A served audio LLM: what it is sent of a prompt, and what its answers become."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_server import TinyServer, choice, plain_environment, status, user_text  # noqa: F401

from undersong.evaluation.serving.client import ChatClient
from undersong.evaluation.serving.served_model import ServedModel, encode_wav, openai_messages, served_model
from undersong.models.chat import chat_messages
from undersong.standalone.evaluate import evaluate_manifest
from undersong.standalone.judge import judge_file
from undersong.standalone.options import EvaluationOptions, JudgeOptions
from undersong.types import Clip, Prompt, Reply, Sample, UndersongError


@pytest.fixture
def server() -> Iterator[TinyServer]:
    with TinyServer(lambda body: f"to {user_text(body)}") as tiny:
        yield tiny


def tone(folder: Path, rate: int = 16_000) -> str:
    times = np.arange(rate // 2) / rate
    path = folder / f"tone{rate}.wav"
    soundfile.write(path, (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32), rate, subtype="FLOAT")
    return str(path)


def spoken(audio: str, **fields: Any) -> Prompt:
    return Prompt(Sample("s1", audio=audio, text="what is said"), "harm", True, "audio", "plain", **fields)


def written(i: int, **fields: Any) -> Prompt:
    return Prompt(Sample(f"w{i}", text=f"ask {i}"), "near", False, "text", "given", **fields)


def test_a_spoken_prompt_is_the_audio_then_the_instruction_under_the_system_text(tmp_path: Path) -> None:
    system, user = openai_messages(spoken(tone(tmp_path), system_text="Be safe.", instruction="Answer."))
    assert system == {"role": "system", "content": "Be safe."}
    heard, said = user["content"]
    assert user["role"] == "user"
    assert said == {"type": "text", "text": "Answer."}
    assert heard["type"] == "input_audio"
    assert heard["input_audio"]["format"] == "wav"
    data = base64.b64decode(heard["input_audio"]["data"], validate=True)
    assert soundfile.info(io.BytesIO(data)).subtype == "PCM_16"
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    original, _ = soundfile.read(tone(tmp_path), dtype="float32")
    assert rate == 16_000
    assert np.abs(samples - original).max() <= 2**-15
    # The transcript of what is spoken is never sent beside it, nor is an id.
    (alone,) = openai_messages(spoken(tone(tmp_path)))
    assert [part["type"] for part in alone["content"]] == ["input_audio"]


def test_clips_of_other_rates_are_sent_at_16_khz_and_loud_ones_do_not_wrap(tmp_path: Path) -> None:
    (user,) = openai_messages(spoken(tone(tmp_path, 44_100)))
    data = base64.b64decode(user["content"][0]["input_audio"]["data"])
    assert soundfile.info(io.BytesIO(data)).samplerate == 16_000
    loud, rate = soundfile.read(io.BytesIO(encode_wav(Clip("c", np.array([1.5, -1.5, 0.0], np.float32), 8000))))
    assert rate == 8000
    assert loud[0] > 0.99
    assert loud[1] < -0.99


def test_a_written_prompt_is_text_and_the_instruction_after_it() -> None:
    assert openai_messages(written(1, instruction="a\ud800b"))[0]["content"] == "ask 1\na?b"
    assert openai_messages(written(1)) == [{"role": "user", "content": "ask 1"}]
    assert openai_messages(written(1, instruction="Now.", system_text="S")) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "ask 1\nNow."},
    ]


def test_it_is_asked_in_the_order_of_the_local_adapter(shared_tiny: Any, tmp_path: Path) -> None:
    for prompt in (spoken(tone(tmp_path), instruction="Answer."), written(1, instruction="Now.", system_text="S")):
        local = chat_messages(prompt, shared_tiny.family)[-1]["content"]
        sent = openai_messages(prompt)[-1]["content"]
        parts = [{"type": "text", "text": sent}] if isinstance(sent, str) else sent
        texts = [part.get("text") for part in local if part["type"] == "text"]
        assert [part["text"] for part in parts if part["type"] == "text"] == [text for text in texts if text != "S\n"]
        assert (parts[0]["type"] == "text") == (prompt.modality == "text")


def test_replies_keep_their_prompts_and_failures_are_errors(server: TinyServer, tmp_path: Path) -> None:
    server.mishaps = [status(500, "down"), choice(message={"content": "ha"}, finish_reason="length")]
    prompts = [written(0), written(1), spoken(tone(tmp_path), instruction="hm"), written(2)]
    model = served_model(f"served:{server.ref}")
    model.client.retries, model.client.max_parallel = 0, 1
    assert model.generate(prompts, 9) == [
        Reply("w0", "near", "text", "given", "", 0, "error", "HTTP 500: down"),
        Reply("w1", "near", "text", "given", "ha", 0, "length"),
        Reply("s1", "harm", "audio", "plain", "to hm", 2, "stop"),
        Reply("w2", "near", "text", "given", "to ask 2", 3, "stop"),
    ]
    assert {body["max_tokens"] for body in server.asked} == {9}
    assert "near" not in str(server.asked)  # names of sets stay here
    assert model.name == "served:tiny"
    assert model.facts == {"served": "tiny", "url": server.url}


def test_a_prompt_that_cannot_be_asked_is_an_error(server: TinyServer, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFFnothing")
    model = ServedModel(ChatClient(served_model(server.ref).client.endpoint, retries=0))
    with pytest.raises(UndersongError, match="Clip s1 cannot be sent: the audio is damaged"):
        model.generate([spoken(str(tmp_path / "bad.wav"))], 4)
    empty = Prompt(Sample("e", text=None, audio="x.wav"), "near", False, "text", "plain")
    with pytest.raises(UndersongError, match="Sample e of set near has no text to send"):
        model.generate([empty], 4)
    assert not server.asked


def test_asking_loads_no_torch(server: TinyServer, tmp_path: Path) -> None:
    code = f"""
import sys
from undersong.evaluation.serving.served_model import served_model
from undersong.types import Prompt, Sample
prompt = Prompt(Sample("a", audio={tone(tmp_path)!r}), "harm", True, "audio", "plain")
model = served_model({server.ref!r})
assert "openai" not in sys.modules
print(model.generate([prompt], 3)[0].finish, {{"torch", "transformers"}} & set(sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=True)
    assert ran.stdout == "stop set()\n"


def test_an_evaluation_that_gives_up_asks_only_for_the_missing_answers(server: TinyServer, tmp_path: Path) -> None:
    manifest = tmp_path / "prompts.jsonl"
    manifest.write_text("".join(f'{{"id": "{i}", "text": "prompt {i}"}}\n' for i in range(40)))
    options = EvaluationOptions(modality="text", judge="keyword", max_new_tokens=8)
    model, left = f"served:{server.ref}", [14]

    def answer_some(_: Any) -> Any:
        with server.lock:
            left[0] -= 1
            return "no" if left[0] >= 0 else {"finish_reason": "broken"}

    server.reply = answer_some
    with pytest.raises(UndersongError, match=r"in a row .*answers are kept") as error:
        evaluate_manifest(manifest, model, tmp_path / "out", options=options)
    kept = int(re.search(r"\((\d+) answers", str(error.value))[1])  # type: ignore[index]
    assert kept > 0
    assert not (tmp_path / "out").exists()
    asked_before, server.reply = len(server.asked), lambda _: "no"
    assert evaluate_manifest(manifest, model, tmp_path / "out", options=options).rate.n == 40
    assert len(set(server.texts()[asked_before:])) <= 40 - kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "prompts.jsonl"]


def test_a_judge_that_gives_up_asks_only_for_the_missing_answers(server: TinyServer, tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    rows = [{"prompt_id": str(i), "prompt": f"do {i}", "reply": f"no {i}", "set": "h"} for i in range(40)]
    replies.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options, left = JudgeOptions(judge=f"llm:{server.ref}"), [14]

    def answer_some(_: Any) -> Any:
        with server.lock:
            left[0] -= 1
            return "no" if left[0] >= 0 else {"finish_reason": "broken"}

    server.reply = answer_some
    with pytest.raises(UndersongError, match=r"in a row .*answers are kept") as error:
        judge_file(replies, tmp_path / "out", options)
    kept = int(re.search(r"\((\d+) answers", str(error.value))[1])  # type: ignore[index]
    assert kept > 0
    asked_before, server.reply = len(server.asked), lambda _: "no"
    judge_file(replies, tmp_path / "out", options)
    assert len(set(server.texts()[asked_before:])) <= 40 - kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "replies.jsonl"]
