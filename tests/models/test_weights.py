"""The fingerprint of frozen modules feels every bit of every parameter and buffer."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from undersong.models.audio_lm import AudioModel
from undersong.models.lora import new_lora
from undersong.models.weights import module_hashes


def module(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).to(dtype)


@given(st.data(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_one_bit_is_felt(data: st.DataObject, dtype: torch.dtype) -> None:
    plain, changed = module(dtype), module(dtype)
    before = module_hashes({"tower": plain})
    assert module_hashes({"tower": changed}) == before
    kind = data.draw(st.sampled_from(["parameters", "buffers"]))
    tensors = dict(getattr(changed, f"named_{kind}")())
    tensor = tensors[data.draw(st.sampled_from(sorted(tensors)))]
    raw = tensor.detach().reshape(-1).view(torch.uint8)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    after = module_hashes({"tower": changed})
    assert {name for name in before if before[name] != after[name]} == {f"tower/{kind}"}


def test_names_and_shapes_and_types_are_part_of_it() -> None:
    def of(**parameters: torch.Tensor) -> str:
        holder = nn.Module()
        for name, value in parameters.items():
            holder.register_parameter(name, nn.Parameter(value))
        return module_hashes({"x": holder})["x/parameters"]

    zeros = torch.zeros(6)
    hashes = [of(a=zeros), of(b=zeros), of(a=zeros.reshape(2, 3)), of(a=zeros.reshape(3, 2)), of(a=zeros.half())]
    hashes += [of(a=torch.zeros(3), b=torch.zeros(3)), of(a=torch.zeros(12, dtype=torch.float16))]
    assert len(set(hashes)) == len(hashes)
    assert of(a=zeros, b=zeros) == of(b=zeros, a=zeros)  # not of the order in which they were made


def test_batch_norm_in_training_mode_is_caught() -> None:
    """Frozen weights, drifting statistics: what a hash of parameters alone would miss."""
    net = module().requires_grad_(False)
    before = module_hashes({"tower": net})
    net.train()
    net(torch.randn(8, 3))
    after = module_hashes({"tower": net})
    assert before["tower/parameters"] == after["tower/parameters"]
    assert before["tower/buffers"] != after["tower/buffers"]


def test_the_frozen_modules_are_encoder_and_projector(tiny: AudioModel) -> None:
    assert set(tiny.frozen_modules) == {"model.audio_tower", "model.multi_modal_projector"}
    before = module_hashes(tiny.frozen_modules)
    assert {name.rpartition("/")[2] for name in before} == {"parameters", "buffers"}
    with new_lora(tiny, 2, 4, 0.0, None):
        assert module_hashes(tiny.frozen_modules) == before  # the same names and bits under an adapter
    with torch.no_grad():
        tiny.base.model.multi_modal_projector.linear_1.bias[0] += 1e-6
    after = module_hashes(tiny.frozen_modules)
    assert {name for name in before if before[name] != after[name]} == {"model.multi_modal_projector/parameters"}


@pytest.mark.parametrize("path", ["model.audio_tower.layers.1.fc1.weight", "model.audio_tower.embed_positions.weight"])
def test_every_part_of_the_tower_counts(tiny: AudioModel, path: str) -> None:
    before = module_hashes(tiny.frozen_modules)
    holder, _, name = path.rpartition(".")
    parameter = getattr(tiny.base.get_submodule(holder), name)
    original = copy.deepcopy(parameter.data)
    parameter.data[0, 0] += 1
    assert module_hashes(tiny.frozen_modules) != before
    parameter.data.copy_(original)
    assert module_hashes(tiny.frozen_modules) == before
