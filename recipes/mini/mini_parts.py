"""Learned parts as the repository holds them, and models put together of them.  Knows folders; trains nothing."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mini_weights import AUDIO, LAYERS, TEMPLATE, WINDOW, Base
from safetensors.torch import load_file, save_file

from undersong.models.adapter import AudioModel
from undersong.models.load import load_model
from undersong.models.loading import Loading
from undersong.models.mini import assemble
from undersong.models.mini.place import ALIGNED, UNALIGNED

DTYPES = ("auto", "float32", "bfloat16")
IN_HARDWARE = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # torch's names: Intel, AMD and Intel, Arm twice
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
    shape = {"window": WINDOW, "audio_token": AUDIO, "learned_layers": LAYERS}
    note = assemble.Parts(**shape, adapters=made, **base.hashes())
    (part / assemble.NOTE).write_text(json.dumps(note.model_dump(), indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def loading_of(asked: argparse.Namespace) -> Loading:
    """How the models are loaded, of `--device` and `--dtype`; auto: bfloat16 where the device computes in it."""
    if asked.dtype != "auto":
        return Loading(asked.device, asked.dtype)
    if asked.device == "cpu":
        can: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not every torch says
        fast = any(can.get(name) for name in IN_HARDWARE)
    else:
        fast = asked.device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return Loading(asked.device, "bfloat16" if fast else "float32")


def put_together(
    work: Path,
    name: str,
    base: Base,
    front: Path,
    adapters: Mapping[str, Path],
    bases: tuple[str, str],
    loading: Loading,
    seed: int,
) -> AudioModel:
    """One of MODELS with what is learned so far, loaded; `bases`: where Whisper and SmolLM are."""
    folder = work / "models" / f"{name.replace(':', '-')}-{front.parent.name}-{seed}"
    if not folder.is_dir():
        parts = write_parts(work / f"parts-{seed}", base, front, {step: adapters[step] for step in MODELS[name]})
        assemble.assemble(name, *bases, parts, folder)
    return load_model(str(folder), loading)


def bytes_of(folder: Path, leave: Sequence[str] = ()) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name not in leave)
