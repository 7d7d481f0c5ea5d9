"""A checkpoint that cannot be used: one sentence on stderr that names the file, exit code 2, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from command_line import Undersong, undersong_in
from safetensors.torch import load_file, save_file
from transformers.utils import logging

HEAD = "language_model.lm_head.weight"


@pytest.fixture
def undersong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Undersong:
    """The command line in a folder of its own -> exit code, stdout, stderr."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    return undersong_in(tmp_path / "work")


@pytest.fixture(autouse=True)
def no_bars() -> Iterator[None]:
    """As a process of its own, in which the command line switches them off before transformers is imported."""
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder to damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def config(folder: Path, **settings: object) -> None:
    stored = json.loads((folder / "config.json").read_text()) | settings
    kept = {name: value for name, value in stored.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def reshape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {HEAD: torch.zeros(2, 3)}, folder / "model.safetensors", metadata={"format": "pt"})


def negative_window(folder: Path) -> None:
    stored = json.loads((folder / "processor_config.json").read_text())
    stored["feature_extractor"]["chunk_length"] = -1
    (folder / "processor_config.json").write_text(json.dumps(stored))


FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), ("config.json",)),
    "an unknown family": (
        lambda folder: config(folder, model_type="qwen2_audi0"),
        ("config.json", "nearest family here is Qwen2-Audio"),
    ),
    "an unknown architecture": (
        lambda folder: config(folder, model_type=None, architectures=["VoxtralForCausalLM"]),
        ("config.json", "nearest family here is Voxtral"),
    ),
    "code of its own alone": (
        lambda folder: config(folder, model_type=None, architectures=None, auto_map={"AutoModel": "evil.M"}),
        ("config.json", "auto_map", "give a model of Audio Flamingo 3"),
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ("tokenizer.json",)),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ("model.safetensors",)),
    "a pipe": (lambda folder: os.mkfifo(folder / "pipe"), ("pipe in", "is no regular file (a pipe, a socket or")),
    "a config that is null": (
        lambda folder: (folder / "config.json").write_text("null"),
        ("config.json of", "holds null, not a JSON object"),
    ),
    "an empty config": (lambda folder: (folder / "config.json").write_text(""), ("config.json of", "is empty")),
    "no model_type": (
        lambda folder: config(folder, model_type=None),
        ("config.json of", 'has no model_type; add "model_type": "audioflamingo3", which belongs to its architecture'),
    ),
    "a tokenizer that is null": (
        lambda folder: (folder / "tokenizer.json").write_text("null"),
        ("tokenizer.json of", "holds null, not a JSON object"),
    ),
    "a window of -1 s": (negative_window, ("processor_config.json of", "the chunk_length -1, which is no positive")),
    "a text config that is a number": (
        lambda folder: config(folder, text_config=3),
        ("config.json of", "makes no Audio Flamingo 3 (the text_config 3 does not fit)"),
    ),
    "another shape": (reshape, ("model.safetensors", "lm_head.weight", "AudioFlamingo3")),
}
LINES_OF_CHECK = (
    "no tokenizer",
    "no weights",
    "another shape",
    "a tokenizer that is null",
    "a window of -1 s",
    "a text config that is a number",
)  # which `models check` reports as lines


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_cannot_be_used(undersong: Undersong, folder: Path, fault: str) -> None:
    damage, expected = FAULTS[fault]
    damage(folder)
    prompts = folder.parent / "prompts.jsonl"
    prompts.write_text('{"id": "q0", "text": "paint the boat"}\n{"id": "q1", "text": "wash the boat"}\n')
    commands = {
        "doctor": ["doctor", str(folder)],
        "check": ["models", "check", str(folder)],
        "evaluate": ["evaluate", str(prompts), "--model", str(folder), "--modality", "text", "--judge", "keyword"],
    }
    for command, arguments in commands.items():
        code, out, err = undersong(*arguments, *(["--out", "results"] if command == "evaluate" else []))
        if command == "check" and fault in LINES_OF_CHECK:
            assert (code, err) == (1, "")
            (failed,) = (line for line in out.splitlines() if line.startswith("FAIL"))
        else:
            assert (code, out) == (2, ""), (command, out, err)
            *_, failed = err.splitlines()  # after what is done
        assert all(text in failed for text in expected), (command, failed)
        assert list(Path.cwd().rglob("*")) == [], command


def test_a_whole_checkpoint_has_a_line_each(undersong: Undersong, tiny_folder: Path) -> None:
    code, out, err = undersong("models", "check", str(tiny_folder))
    assert (code, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()} == {"ok"}
    lines = json.loads(undersong("models", "check", str(tiny_folder), "--json")[1])
    printed = [f"{line['status']:<8}{line['name']}: {line['detail']}" for line in lines]
    assert printed == [line.replace("\\n", "\n") for line in out.splitlines()]


def test_doctor_names_a_broken_template_in_one_line(undersong: Undersong, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for %}<sound>")
    code, out, err = undersong("doctor", str(folder))
    assert (code, err) == (1, "")
    lines = out.splitlines()
    (failed,) = (line for line in lines if line.startswith("no "))
    assert failed.startswith("no  prompt: The chat template of ")
    left_out = [line for line in lines if line.endswith("not checked, because the check 'prompt' failed")]
    assert all(line.startswith("-   ") for line in left_out)
    assert len(left_out) == len(lines) - 4  # loads, prompt, stops, LoRA
    assert "encode its corpus first" not in out
