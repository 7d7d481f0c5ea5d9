"""Adapters projected after training, against the formulas written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from undersong.research.defenses.lora_updates import (
    LoraUpdate,
    _lora_updates,
    project_off_direction,
    project_safe_lora,
    rewrite_adapter,
    update_cosine,
    zero_layers,
)
from undersong.types import UndersongError

DIM, RANK = 6, 2
PATHS = [f"model.layers.{i}.{name}" for i in (0, 1) for name in ("self_attn.q_proj", "mlp.down_proj")]


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def read_lora_updates(folder: Path) -> list[LoraUpdate]:
    return _lora_updates(load_file(folder / "adapter_model.safetensors"), folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = {}
    for i, path in enumerate(PATHS):
        tensors[f"base_model.model.{path}.lora_A.weight"] = numbers(i, RANK, 4)
        tensors[f"base_model.model.{path}.lora_B.weight"] = numbers(10 + i, DIM, RANK)
    (tmp_path / "in").mkdir()
    save_file(tensors, tmp_path / "in" / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "in" / "adapter_config.json").write_text("{}")
    return tmp_path / "in"


def weights(seed: int):
    return lambda path: numbers(100 * seed + PATHS.index(path), DIM, 4)


def test_safe_lora_is_the_published_formula(folder: Path, tmp_path: Path) -> None:
    changed = rewrite_adapter(
        folder, tmp_path / "out", project_safe_lora(weights(1), weights(2), 2.0)
    )  # nothing is above 2
    assert changed == sorted(PATHS)
    for before, after in zip(read_lora_updates(folder), read_lora_updates(tmp_path / "out")):
        v = (weights(1)(before.path) - weights(2)(before.path)).double()
        c = v @ v.T / torch.linalg.norm(v)
        np.testing.assert_allclose(after.b @ after.a, c @ before.b.double() @ before.a.double(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(after.a, before.a)
    assert (tmp_path / "out" / "adapter_config.json").read_text() == "{}"


def test_only_what_is_unlike_its_projection_is_projected(folder: Path, tmp_path: Path) -> None:
    likeness = {}
    for update in read_lora_updates(folder):
        v = weights(1)(update.path) - weights(2)(update.path)
        whole = (v @ v.T / torch.linalg.norm(v)) @ update.b @ update.a
        own = update.b @ update.a
        likeness[update.path] = float((whole * own).sum() / whole.norm() / own.norm())
    threshold = sorted(likeness.values())[1]
    changed = rewrite_adapter(folder, tmp_path / "out", project_safe_lora(weights(1), weights(2), threshold + 1e-5))
    assert changed == sorted(path for path, value in likeness.items() if value <= threshold + 1e-5)
    assert len(changed) == 2


def test_what_alignment_left_alone_has_an_empty_subspace(folder: Path, tmp_path: Path) -> None:
    rewrite_adapter(folder, tmp_path / "out", project_safe_lora(weights(1), weights(1), 0.5))
    assert all(not update.b.any() for update in read_lora_updates(tmp_path / "out"))


def test_the_cosine_of_nothing_is_nothing() -> None:
    a, b = numbers(0, RANK, 4), numbers(1, DIM, RANK)
    assert update_cosine(b, b, a) == pytest.approx(1)
    assert update_cosine(-b, b, a) == pytest.approx(-1)
    assert update_cosine(torch.zeros_like(b), b, a) == 0


def test_nothing_is_written_along_the_direction(folder: Path, tmp_path: Path) -> None:
    unit = np.random.default_rng(0).normal(size=(3, DIM))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    unit[2] = np.nan  # the second layer's place has none
    assert rewrite_adapter(folder, tmp_path / "out", project_off_direction(unit)) == ["model.layers.0.mlp.down_proj"]
    for before, after in zip(read_lora_updates(folder), read_lora_updates(tmp_path / "out")):
        if before.path == "model.layers.0.mlp.down_proj":
            along = torch.from_numpy(unit[1]).float()
            torch.testing.assert_close(along @ after.b, torch.zeros(RANK), atol=1e-6, rtol=0)
            rest = torch.eye(DIM) - torch.outer(along, along)
            torch.testing.assert_close(after.b, rest @ before.b)
        else:
            torch.testing.assert_close(after.b, before.b)


def test_layers_taken_out_add_nothing(folder: Path, tmp_path: Path) -> None:
    rewrite_adapter(folder, tmp_path / "out", zero_layers({1}))
    assert [bool(update.b.any()) for update in read_lora_updates(tmp_path / "out")] == [True, True, False, False]


def test_what_cannot_be_projected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="in the aligned model and"):
        rewrite_adapter(folder, tmp_path / "out", project_safe_lora(weights(1), lambda _: numbers(0, 3, 3), 0.5))
    with pytest.raises(UndersongError, match="the direction has 2"):
        rewrite_adapter(folder, tmp_path / "out2", project_off_direction(np.ones((3, 2))))
    with pytest.raises(UndersongError, match="in no layer of the decoder"):
        _ = LoraUpdate("lm_head", numbers(0, 1, 1), numbers(0, 1, 1)).layer
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {**tensors, "base_model.model.x.lora_magnitude_vector": numbers(0, 2)}, folder / "adapter_model.safetensors"
    )
    with pytest.raises(UndersongError, match="not part of a plain LoRA"):
        read_lora_updates(folder)
