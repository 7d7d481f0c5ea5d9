"""Fault 6: LoRA targets `q_proj`, `k_proj`, `v_proj` also match the audio tower: the frozen encoder was not frozen."""

from __future__ import annotations

import pytest

from undersong.models.load import load_model
from undersong.models.lora import new_lora
from undersong.models.weights import module_hashes
from undersong.types import UndersongError


@pytest.mark.parametrize("organism", ["af3", "qwen", "kimi"])
def test_targets_are_full_paths_inside_the_decoder(organism: str) -> None:
    model = load_model(f"organism:{organism}")
    towers = tuple(model.frozen_modules)
    in_towers = [name for name, _ in model.base.named_modules() if name.startswith(towers) and name.endswith("q_proj")]
    before = module_hashes(model.frozen_modules)
    with new_lora(model, 4, 8, 0.0, None) as peft_model:
        adapted = [name for name, _ in peft_model.named_modules() if name.endswith(".lora_A")]
        assert adapted
        for tower in towers:
            assert not any(f"base_model.model.{tower}." in name for name in adapted), tower
    assert module_hashes(model.frozen_modules) == before
    if organism == "af3":
        assert in_towers  # the trap is there: bare names would match


def test_a_target_in_the_encoder_is_refused() -> None:
    model = load_model("organism:af3")
    inside = next(name for name, _ in model.base.named_modules() if "tower" in name and name.endswith("q_proj"))
    with pytest.raises(UndersongError), new_lora(model, 4, 8, 0.0, [inside]):
        pass
