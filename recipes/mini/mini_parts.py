"""Learned parts as the repository holds them, and models put together of them.  Knows folders; trains nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mini_weights import AUDIO, TEMPLATE, WINDOW, Base
from safetensors.torch import load_file, save_file

from undersong.models.adapter import AudioModel
from undersong.models.load import load_model
from undersong.models.loading import Loading
from undersong.models.mini import assemble
from undersong.models.mini.place import ALIGNED, UNALIGNED

RAW = "mini:raw"  # the front end alone: nobody has taught the decoder to read
MODELS = {RAW: [], UNALIGNED: ["listening"], ALIGNED: ["listening", "alignment"]}


def write_parts(folder: Path, base: Base, front: Path, adapters: Mapping[str, Path]) -> Path:
    """The folder that `undersong models get` takes: front end, adapters in half precision, and what they belong to."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copyfile(front, part / assemble.FRONT)
    (part / assemble.TEMPLATE).write_text(TEMPLATE, encoding="utf-8")
    for name, source in adapters.items():
        (part / name).mkdir()
        tensors = load_file(source / "adapter_model.safetensors")
        save_file({key: value.half() for key, value in tensors.items()}, part / name / "adapter_model.safetensors")
        shutil.copyfile(source / "adapter_config.json", part / name / "adapter_config.json")
    made = {name: merged for name, merged in MODELS.items() if set(merged) <= set(adapters)}
    note = assemble.Parts(window=WINDOW, audio_token=AUDIO, adapters=made, **base.hashes())
    (part / assemble.NOTE).write_text(json.dumps(note.model_dump(), indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def put_together(
    work: Path, name: str, base: Base, front: Path, adapters: Mapping[str, Path], asked: tuple[str, str, str], seed: int
) -> AudioModel:
    """One of MODELS with what is learned so far, loaded; `asked`: Whisper, SmolLM, device."""
    whisper, smollm, device = asked
    folder = work / "models" / f"{name.replace(':', '-')}-{front.parent.name}-{seed}"
    if not folder.is_dir():
        parts = write_parts(work / f"parts-{seed}", base, front, {step: adapters[step] for step in MODELS[name]})
        assemble.assemble(name, whisper, smollm, parts, folder)
    return load_model(str(folder), Loading(device))


def bytes_of(folder: Path, leave: Sequence[str] = ()) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name not in leave)
