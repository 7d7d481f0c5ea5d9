"""Damaged weights of an adapter: zeros and swapped bytes are refused before a model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from undersong.models.adapter_check import check_adapter_weights
from undersong.store.provenance import PROVENANCE, file_records
from undersong.types import UndersongError

WEIGHTS = "adapter_model.safetensors"
PATHS = [f"base_model.model.model.layers.{layer}.self_attn.q_proj" for layer in range(2)]
Edit = Callable[[str, torch.Tensor], torch.Tensor]


def zero(part: str) -> Edit:
    return lambda name, value: torch.zeros_like(value) if part in name else value


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder as `tune` writes it, without provenance: as of another tool."""
    (folder := tmp_path / "out" / "step-000002").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"{path}.lora_{side}.weight": torch.randn((2, 8) if side == "A" else (8, 2), generator=generator)
        for path in PATHS
        for side in "AB"
    }
    save_file(tensors, folder / WEIGHTS)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


def edit(folder: Path, change: Edit) -> Path:
    tensors = {name: change(name, value) for name, value in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    return folder


def recorded(folder: Path) -> None:
    records = file_records(folder.parent)
    (folder.parent / PROVENANCE).write_text(json.dumps({"stage": "tune", "files": records}))


@pytest.mark.parametrize("part", ["lora_B", "lora_A", "lora_"])
def test_an_adapter_of_zeros_changes_nothing(part: str, adapter: Path) -> None:
    check_adapter_weights(adapter)
    with pytest.raises(UndersongError, match=r"changes nothing: the updates of its modules \(2\) are all zero"):
        check_adapter_weights(edit(adapter, zero(part)))


def test_so_it_is_if_every_module_has_one_factor_of_zeros(adapter: Path) -> None:
    edit(adapter, zero("layers.0.self_attn.q_proj.lora_A"))
    with pytest.raises(UndersongError, match=r"changes nothing"):
        check_adapter_weights(edit(adapter, zero("layers.1.self_attn.q_proj.lora_B")))


def test_a_first_factor_of_zeros_alone_is_damage(adapter: Path) -> None:
    with pytest.raises(UndersongError, match=rf"lora_A of {PATHS[1]} is all zeros and its lora_B is not \(1 such"):
        check_adapter_weights(edit(adapter, zero("layers.1.self_attn.q_proj.lora_A")))


@pytest.mark.parametrize("part", ["layers.1", "layers.1.self_attn.q_proj.lora_B"])
def test_a_module_without_update_is_no_damage(part: str, adapter: Path) -> None:
    """PEFT makes one of a mixture of adapters, and an expert that no token reached has one."""
    check_adapter_weights(edit(adapter, zero(part)))


def test_other_bad_files_are_refused(adapter: Path) -> None:
    whole = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[:-10])
    with pytest.raises(UndersongError, match=r"cannot be read"):
        check_adapter_weights(adapter)
    (adapter / WEIGHTS).write_bytes(bytes(len(whole)))
    with pytest.raises(UndersongError, match=r"cannot be read"):
        check_adapter_weights(adapter)
    (adapter / WEIGHTS).write_bytes(whole)
    with pytest.raises(UndersongError, match=r"is not finite"):
        check_adapter_weights(edit(adapter, lambda _name, value: value / 0))


@pytest.mark.parametrize("file", [WEIGHTS, "adapter_config.json"])
def test_what_undersong_wrote_is_checked_by_its_hash(file: str, adapter: Path, tmp_path: Path) -> None:
    recorded(adapter)
    check_adapter_weights(adapter)
    content = bytearray((adapter / file).read_bytes())
    content[-9] ^= 1
    (adapter / file).write_bytes(content)
    with pytest.raises(UndersongError, match=rf"^\S+{file} is not what undersong wrote"):
        check_adapter_weights(adapter)
    shutil.copytree(adapter, tmp_path / "mine")
    check_adapter_weights(tmp_path / "mine")  # as the message advises


def test_an_adapter_of_step_0_that_undersong_wrote_is_whole(adapter: Path) -> None:
    recorded(edit(adapter, zero("lora_B")))
    check_adapter_weights(adapter)


def test_a_decoder_of_zeros_is_refused(tmp_path: Path) -> None:
    tensors = {"layers.0.weight": torch.zeros(4, 4), "norm.weight": torch.ones(4)}
    save_file(tensors, tmp_path / "decoder.safetensors")
    check_adapter_weights(tmp_path)
    save_file({name: torch.zeros_like(value) for name, value in tensors.items()}, tmp_path / "decoder.safetensors")
    with pytest.raises(UndersongError, match=r"^All weights of the decoder in \S+ are zero"):
        check_adapter_weights(tmp_path)
