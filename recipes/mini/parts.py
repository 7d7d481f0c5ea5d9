"""Learned parts as the repository holds them, and models put together of them.  Knows folders; trains nothing."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recipes.mini.weights import AUDIO, LAYERS, TEMPLATE, WINDOW, Base
from undersong.models.audio_lm import AudioModel
from undersong.models.load import load_model, supports_bfloat16
from undersong.models.load_options import LoadOptions
from undersong.models.mini import assemble
from undersong.models.mini.network import AF3, CTC
from undersong.models.mini.paths import ALIGNED, UNALIGNED
from undersong.store.atomic import write_atomic

LARGEST = 20_000_000  # bytes of parts in the repository
KINDS = {".safetensors", ".json", ".jinja", ".md"}
DTYPES = ("auto", "float32", "bfloat16")
RAW = "mini:raw"  # the front end alone: nobody has taught the decoder to read
MODELS = {RAW: [], UNALIGNED: ["listening"], ALIGNED: ["listening", "alignment"]}


def write_parts(folder: Path, base: Base, front: Path, adapters: Mapping[str, Path], names: Sequence[str]) -> Path:
    """The folder that `undersong models get` takes, of the models `names`: front end, adapters in half precision, and
    what they belong to."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copyfile(front, part / assemble.FRONT_END_FILE)
    (part / assemble.TEMPLATE_FILE).write_text(TEMPLATE, encoding="utf-8")
    for name, source in adapters.items():
        (part / name).mkdir()
        tensors = load_file(source / "adapter_model.safetensors")
        save_file({key: value.half() for key, value in tensors.items()}, part / name / "adapter_model.safetensors")
        config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = None  # a folder of the machine that it was learned on
        (part / name / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    projector = CTC if assemble.HEARD_BUFFER in load_file(front) else AF3
    shape = {"window": WINDOW, "audio_token": AUDIO, "learned_layers": LAYERS, "projector": projector}
    made = {name: MODELS[name] for name in names}
    note = assemble.MiniParts(**shape, adapters=made, **base.hashes)
    (part / assemble.PARTS_FILE).write_text(json.dumps(note.model_dump(), indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def loading_of(asked: argparse.Namespace) -> LoadOptions:
    """How the models are loaded, of `--device` and `--dtype`; auto: bfloat16 where the device computes in it."""
    if asked.dtype != "auto":
        return LoadOptions(asked.device, asked.dtype)
    return LoadOptions(asked.device, "bfloat16" if supports_bfloat16(asked.device) else "float32")


def put_together(
    work: Path,
    name: str,
    base: Base,
    front: Path,
    adapters: Mapping[str, Path],
    loading: LoadOptions,
    seed: int,
) -> AudioModel:
    """One of MODELS with what is learned so far, loaded."""
    folder = work / "models" / f"{name.replace(':', '-')}-{front.parent.name}-{seed}"
    learned = learned_hashes(name, front, adapters)
    note = folder.with_name(f"{folder.name}.json")  # what it was made of: parts that were learned anew make it anew
    if not folder.is_dir() or not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != learned:
        note.unlink(missing_ok=True)  # a kill before it is written anew leaves none that tells of other parts
        merged = {step: adapters[step] for step in MODELS[name]}
        # Not the seed's own `parts-SEED`, which hold its card.
        parts = write_parts(folder.with_name(f"{folder.name}.parts"), base, front, merged, [name])
        assemble.assemble_mini(name, base.whisper, base.smollm, parts, folder)
        shutil.rmtree(parts)
        write_atomic(note, json.dumps(learned).encode())
    return load_model(str(folder), loading)


def learned_hashes(name: str, front: Path, adapters: Mapping[str, Path]) -> dict[str, str]:
    """What one of MODELS is made of: figures and folders of other parts are not its own."""
    files = {"front": front} | {step: adapters[step] / "adapter_model.safetensors" for step in MODELS[name]}
    return {step: sha256(file.read_bytes()).hexdigest() for step, file in files.items()}


# --- what may be shipped ----------------------------------------------------------------------------------------------
def bytes_of(folder: Path) -> int:
    """Of all files in a folder and below."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def faults(parts: Path) -> list[str]:
    """Why the repository may not hold these parts; none: it may.  Size, kinds of files, and that the card is theirs."""
    found = []
    if (size := bytes_of(parts)) > LARGEST:
        found.append(f"{size / 1e6:.1f} MB, and the repository holds at most {LARGEST / 1e6:.0f}")
    files = sorted(file for file in parts.rglob("*") if file.is_file())
    found += [f"{f.name} is neither safetensors nor text" for f in files if f.suffix not in KINDS]
    found += [f"{f.name} is no text" for f in files if f.suffix in KINDS - {".safetensors"} and not _is_text(f)]
    found += [f"{f.name} is no safetensors file" for f in files if f.suffix == ".safetensors" and not _is_tensors(f)]
    if not (parts / assemble.CARD_FILE).is_file():
        return [*found, "there is no card.json"]
    return found + [f"{name} is not the file that card.json tells of" for name in assemble.find_changed_parts(parts)]


def _is_text(file: Path) -> bool:
    try:
        return "\0" not in file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False


def _is_tensors(file: Path) -> bool:
    try:
        return bool(load_file(file))
    except (SafetensorError, OSError):
        return False
