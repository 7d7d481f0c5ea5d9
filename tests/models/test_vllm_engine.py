"""Replies by vLLM: the job that its program gets, the comparison of prompts, and (slow) vLLM itself.

The slow tests need a Python with vLLM at UNDERSONG_VLLM_PYTHON. We ran them with vLLM 0.32.0 for CPUs, in float32.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import zoo
import zoo_models
from command_line import run_here
from random_adapter import save_random_adapter

from undersong.encoders.batching import Progress
from undersong.evaluation.partial_replies import keep_replies
from undersong.models import vllm_worker
from undersong.models.adapter_export import export_adapter
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.models.load_options import LoadOptions
from undersong.models.lora import use_adapter
from undersong.models.vllm_engine import ADAPTED_FAMILIES, PYTHON_VARIABLE, SERVED_FAMILIES, VllmModel
from undersong.types import Prompt, Reply, Sample, UndersongError

# A program in vLLM's place: it answers with the ids in ECHO, and returns the prompt with the placeholder repeated.
STANDIN = """#!{python}
import json, os, sys
job = json.load(open(sys.argv[2]))
json.dump(job, open({seen!r}, "w"))
open(job["progress"], "ab").write(b".")
with open(sys.argv[3], "w") as file:
    for prompt in job["prompts"]:
        count = {placeholders} if prompt["audio"] else 0
        ids = [i for j in prompt["ids"] for i in ([j] * count if j == {audio} else [j])]
        file.write(json.dumps({{"prompt_ids": ids, "ids": {reply} + job["stops"][:1], "finish": "stop"}}) + chr(10))
"""


def write_wave(folder: Path, seconds: float, seed: int) -> Sample:
    import soundfile

    path = folder / f"clip{seed}.wav"
    soundfile.write(path, zoo.wave(seconds, seed), 16_000, subtype="FLOAT")
    return Sample(f"clip{seed}", audio=str(path))


def prompts_of(folder: Path) -> list[Prompt]:
    spoken = [write_wave(folder, seconds, seed) for seed, seconds in enumerate((0.6, 1.3), start=1)]
    return [
        *(Prompt(sample, "s", True, "audio", "plain", None, "tell me") for sample in spoken),
        *(Prompt(Sample(t, text=t), "s", True, "text", "plain") for t in ("paint the red boat", "wash")),
    ]


def use_standin(monkeypatch: pytest.MonkeyPatch, folder: Path, model: VllmModel | None, **values: Any) -> Path:
    """Put a program at UNDERSONG_VLLM_PYTHON; returns the file in which it keeps the job that it got."""
    program, seen = folder / "python", folder / "seen.json"
    audio = -1 if model is None else model.model.processor.audio_token_id
    program.write_text(STANDIN.format(python=sys.executable, seen=str(seen), audio=audio, **values))
    program.chmod(0o755)
    monkeypatch.setenv(PYTHON_VARIABLE, str(program))
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return zoo.save("audioflamingo3", tmp_path / "model")


def test_vllm_gets_one_placeholder_a_clip_and_its_prompts_must_be_ours(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = load_model(str(folder))
    prompts = prompts_of(tmp_path)[:1] + prompts_of(tmp_path)[2:]
    cache_audio_features(local, [prompts[0].sample])
    placeholders = len(local.features_of(prompts[0].sample))
    words = local.tokenizer("paint wash", add_special_tokens=False)["input_ids"]
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    model = VllmModel(str(folder), LoadOptions(dtype="bfloat16"))
    seen = use_standin(monkeypatch, tmp_path, model, placeholders=placeholders, reply=words)
    model.python = os.environ[PYTHON_VARIABLE]
    replies = model.generate(prompts, 7)
    assert replies == [Reply(*prompt.key, "paint wash", len(words), "stop") for prompt in prompts]
    job = json.loads(seen.read_text())
    assert (job["model"], job["revision"], job["dtype"], job["limit"]) == (str(folder), None, "bfloat16", 7)
    assert job["stops"] == local.end_ids
    assert [prompt["ids"].count(model.model.processor.audio_token_id) for prompt in job["prompts"]] == [1, 0, 0]
    assert job["prompts"][1]["ids"] == local.prompt_ids(prompts[1])

    answers = [False, True]  # looked at once more after the end, when the program has counted one reply
    monkeypatch.setattr(
        "undersong.models.vllm_engine._is_running", lambda process: process.wait() is not None and answers.pop()
    )
    counted: list[Progress] = []
    with keep_replies(model, tmp_path / "kept", len(prompts), counted.append):
        assert model.generate(prompts, 7) == replies
    assert [(progress.done, progress.total) for progress in counted] == [(1, 3), (3, 3)]
    seen.unlink()
    with keep_replies(model, tmp_path / "kept", len(prompts)):
        assert model.generate(prompts, 7) == replies
    assert not seen.exists()  # vLLM is not started for what is kept
    monkeypatch.undo()

    use_standin(monkeypatch, tmp_path, model, placeholders=placeholders + 1, reply=words)
    with pytest.raises(UndersongError, match="vLLM reads another prompt for sample clip1"):
        model.generate(prompts, 7)


def test_an_adapter_gets_the_names_that_vllm_knows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = load_model(str(folder))
    own = save_random_adapter(local.base, local.linear_paths(), tmp_path / "own")
    expected = export_adapter(local, own, tmp_path / "exported")
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    copy = VllmModel(str(folder), LoadOptions(), own)._export_adapter(own, tmp_path / "copy")
    assert json.loads((copy / "adapter_config.json").read_text())["target_modules"] == expected
    exported = tmp_path / "exported" / "adapter_model.safetensors"
    assert (copy / "adapter_model.safetensors").read_bytes() == exported.read_bytes()


def test_what_vllm_does_not_take_is_refused_before_anything_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "harm.jsonl").write_text(json.dumps({"id": "a", "text": "paint the boat"}) + "\n")
    command = ["evaluate", "harm.jsonl", "--modality", "text", "--judge", "keyword", "--out", "o", "--engine"]

    def refused(*arguments: str) -> str:
        process = run_here(tmp_path, *command, *arguments)
        assert (process.returncode, process.stdout) == (2, ""), process.stderr
        assert not (tmp_path / "o").exists()
        return process.stderr

    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    assert "vLLM is not installed here" in refused("vllm", "--model", str(folder))
    assert "no engine 'vlm'" in refused("vlm", "--model", str(folder))
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "nowhere"))
    assert "nowhere, which is no file" in refused("vllm", "--model", str(folder))
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    assert "vLLM transcribes with Kimi-Audio" in refused("vllm", "--model", "organism:kimi")
    assert "takes neither --quantize" in refused("vllm", "--model", str(folder), "--quantize", "4")
    monkeypatch.setenv(PYTHON_VARIABLE, str(Path("/bin/false")))
    assert "vLLM stopped with" in refused("vllm", "--model", str(folder))


def wide_instance(family: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model with heads of 32 dimensions and windows of 30 seconds, which vLLM asks for."""
    monkeypatch.setattr(zoo_models, "DIM", 128)
    monkeypatch.setitem(zoo_models.DECODER, "hidden_size", 128)
    monkeypatch.setitem(zoo_models.DECODER, "intermediate_size", 256)
    monkeypatch.setitem(zoo_models.MROPE, "mrope_section", [8, 4, 4])
    for module in (zoo, zoo_models):
        monkeypatch.setattr(module, "WINDOW", 30)
    monkeypatch.setattr(zoo_models, "POSITIONS", 1500)
    return zoo.save(family, folder)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["audioflamingo3", "qwen2_audio", "qwen2_5_omni"])
def test_vllm_replies_as_the_local_engine_does(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if PYTHON_VARIABLE not in os.environ:
        pytest.skip(f"{PYTHON_VARIABLE} names no Python with vLLM")
    folder = wide_instance(family, tmp_path / "model", monkeypatch)
    local = load_model(str(folder))
    assert local.family.name in SERVED_FAMILIES
    prompts = prompts_of(tmp_path)
    cache_audio_features(local, [prompt.sample for prompt in prompts if prompt.modality == "audio"])
    expected = local.generate(prompts, 12)
    assert VllmModel(str(folder), LoadOptions()).generate(prompts, 12) == expected
    if local.family.name not in ADAPTED_FAMILIES:
        return
    own = save_random_adapter(local.base, local.linear_paths(), tmp_path / "own")
    with use_adapter(local, own) as tuned:
        tuned_replies = tuned.generate(prompts, 12)
    assert tuned_replies != expected
    assert VllmModel(str(folder), LoadOptions(), own).generate(prompts, 12) == tuned_replies


def test_the_worker_counts_replies_and_not_the_preparation_of_prompts(tmp_path: Path) -> None:
    """As vLLM 0.32 calls the bars that it is given."""
    bar = vllm_worker.counting_bar(str(tmp_path / "progress"))
    assert list(bar([1, 2, 3], desc="Rendering prompts")) == [1, 2, 3]
    assert not (tmp_path / "progress").exists()
    with bar(total=3, desc="Processed prompts", dynamic_ncols=True, postfix="est. speed") as processed:
        for n in (1, 2):
            processed.update(n)
    assert (tmp_path / "progress").stat().st_size == 3
