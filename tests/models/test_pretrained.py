"""Files of a checkpoint that are no files: opening a pipe or a device might never return, so none is opened."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import tiny_judge
from command_line import run_here

from undersong.models.load import load_model
from undersong.models.lora import new_lora
from undersong.models.refs import organism_folder

FILES = ("config.json", "tokenizer.json", "chat_template.jinja", "adapter_config.json", "generation_config.json")


def commands(folder: Path) -> dict[str, list[str]]:
    """Commands that read a checkpoint in `folder`, and what they need beside it."""
    row = {"prompt_id": "p", "prompt": "paint it", "reply": "sure", "set": "s", "harmful": True, "modality": "text"}
    (folder / "said.jsonl").write_text(json.dumps(row | {"system": "plain"}) + "\n")
    evaluate = ["evaluate", "organism:test-harm", "--judge", "keyword", "--out", "out"]
    sets = ["--contrast-harmful", "a", "--contrast-benign", "b", "--held-out-harmful", "c", "--held-out-benign", "d"]
    return {
        "model": [*evaluate, "--model", "checkpoint"],
        "tune": ["tune", "organism:pool", "--model", "checkpoint", "--modality", "text", "--out", "out"],
        "adapter": [*evaluate, "--model", "organism:af3", "--adapter", "checkpoint"],
        "probe": ["probe", "checkpoint", "--model", "organism:af3", *sets, "--judge", "keyword", "--out", "out"],
        "judge": ["judge", "said.jsonl", "--judge", "harmbench:checkpoint", "--out", "out"],
        "cost": ["judge", "said.jsonl", "--judge", "cost:checkpoint", "--out", "out"],
        "mini": ["models", "get", "mini", "--learned-weights", "checkpoint", "--out", "out"],
        "encoder": [
            "screen",
            "organism:pool",
            "--harm",
            "organism:reference",
            "--axis",
            "a=whisper:checkpoint",
            "--out",
            "out",
        ],
    }


def save_checkpoint(command: str, folder: Path) -> None:
    """Save what the command reads."""
    if command in ("adapter", "probe"):
        with new_lora(load_model("organism:af3"), 2, 4, 0.0, None) as adapted:
            adapted.save_pretrained(folder)
    elif command in ("judge", "cost"):
        tiny_judge.save(folder)
    else:
        name = "ear" if command == "encoder" else "af3"
        shutil.copytree(organism_folder(name), folder, copy_function=shutil.copyfile)


@pytest.mark.parametrize("kind", ["pipe", "device", "subfolder"])
@pytest.mark.parametrize("command", ["model", "tune", "adapter", "probe", "judge", "cost", "mini", "encoder"])
def test_what_is_no_regular_file_is_never_opened(command: str, kind: str, tmp_path: Path) -> None:
    arguments, checkpoint = commands(tmp_path)[command], tmp_path / "checkpoint"
    save_checkpoint(command, checkpoint)
    for name in FILES:
        place = checkpoint / "more" / name if kind == "subfolder" else checkpoint / name
        content = place.read_bytes() if place.exists() else None
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
        if kind == "device":
            place.symlink_to("/dev/zero")
        else:
            os.mkfifo(place)
        done = run_here(tmp_path, *arguments)
        assert done.returncode == 2
        line = done.stderr.splitlines()[-1]
        assert (
            f"{place.relative_to(checkpoint)} in checkpoint is no regular file (a pipe, a socket or a device)" in line
        )
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()
        place.unlink()
        if content is not None:
            place.write_bytes(content)
