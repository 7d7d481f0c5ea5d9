"""Patterns in an adapter's config: matched as PEFT matches them, and never for longer than a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_af3 import spoken, typed

from undersong.models import adapter_patterns
from undersong.models.adapter_check import check_adapter_config
from undersong.models.adapter_patterns import resolve_patterns
from undersong.models.audio_lm import AudioModel
from undersong.models.lora import use_adapter
from undersong.types import UndersongError

ASKED = [spoken(0), typed("paint the boat")]
ENDLESS = r"([a-z_.0-9]+)+!"  # for `re`, which PEFT uses
SLOW = r"([a-z_.0-9]|[a-z])*[!?]"  # for `regex` too
SWIFT = r"^(model\.language_model(?=\.).*\.(q_proj|v_proj))$"  # as ms-swift writes it


def write_adapter(model: AudioModel, path: Path, **settings: Any) -> Path:
    """Write a LoRA by PEFT alone, with the settings given."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    wrapped = get_peft_model(model.model, LoraConfig(r=2, init_lora_weights=False, **settings))
    wrapped.save_pretrained(path)
    model.model = wrapped.unload()
    return path


def edit(folder: Path, **settings: Any) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def changed_weights(model: AudioModel, folder: Path) -> dict[str, torch.Tensor]:
    """What the adapter adds to each layer, as it is applied."""
    with use_adapter(model, folder) as tuned:
        return {
            path: module.get_delta_weight("default")
            for path, module in tuned.base.named_modules()
            if hasattr(module, "get_delta_weight")
        }


def peft_weights(model: AudioModel, folder: Path) -> dict[str, torch.Tensor]:
    """What PEFT makes of the folder by itself."""
    from peft import PeftModel

    wrapped = PeftModel.from_pretrained(model.model, folder)
    weights = {
        path: module.get_delta_weight("default")
        for path, module in wrapped.base_model.model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    model.model = wrapped.unload()
    return weights


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": SWIFT},
        {"target_modules": r".*language_model.*\.(q_proj|up_proj)", "exclude_modules": r".*\.1\..*"},
        {"target_modules": SWIFT, "rank_pattern": {r"layers\.1\..*": 3, "q_proj": 1}, "alpha_pattern": {".*v_proj": 5}},
        {"target_modules": SWIFT, "rank_pattern": {r".*\.1\..*": 3, "q_proj": 1}, "alpha_pattern": {"no.*where": 5}},
    ],
    ids=["target", "exclude", "ranks", "order"],
)
def test_a_pattern_means_what_it_means_to_peft(tiny: AudioModel, tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write_adapter(tiny, tmp_path / "a", **settings)
    expected = peft_weights(tiny, folder)
    found = changed_weights(tiny, folder)
    assert found.keys() == expected.keys()
    assert len(found) > 1
    assert all(torch.equal(found[path], expected[path]) for path in found)


@pytest.mark.parametrize("setting", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"])
def test_a_pattern_without_end_is_refused_or_answered(tiny: AudioModel, tmp_path: Path, setting: str) -> None:
    """`re` would take longer than the universe for the first name."""
    folder = write_adapter(tiny, tmp_path / "a", target_modules=SWIFT)
    edit(folder, **{setting: {ENDLESS: 4} if setting.endswith("_pattern") else ENDLESS})
    if setting == "target_modules":  # it matches no module
        with pytest.raises(UndersongError, match="does not fit"), use_adapter(tiny, folder):
            pass
    else:
        assert changed_weights(tiny, folder)


@pytest.mark.parametrize("setting", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"])
def test_a_pattern_that_takes_too_long_is_refused(
    tiny: AudioModel, tmp_path: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_patterns, "MATCH_SECONDS", 0.02)
    folder = write_adapter(tiny, tmp_path / "a", target_modules=["q_proj"])
    edit(folder, **{setting: {SLOW: 4} if setting.endswith("_pattern") else SLOW})
    with (
        pytest.raises(UndersongError, match=rf"has the {setting} .* takes too long to match"),
        use_adapter(tiny, folder),
    ):
        pass
    assert tiny.model is tiny.base


def test_the_check_before_loading_does_not_hang(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not looked at")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "target_modules": ENDLESS}))
    check_adapter_config(str(tiny_folder), tmp_path, allow_outside_decoder=False)  # it names no module at all
    edit(tmp_path, target_modules=["q_proj"], exclude_modules=ENDLESS)
    with pytest.raises(UndersongError, match=r"changes model\.audio_tower"):
        check_adapter_config(str(tiny_folder), tmp_path, allow_outside_decoder=False)


def test_a_pattern_of_layers_is_a_plain_name(tiny: AudioModel, tmp_path: Path) -> None:
    targets = {"target_modules": ["up_proj"], "layers_to_transform": [0]}
    folder = write_adapter(tiny, tmp_path / "a", **targets, layers_pattern="layers")
    assert changed_weights(tiny, folder).keys() == peft_weights(tiny, folder).keys()
    edit(folder, layers_pattern=[r"(\w+)+!"])
    with (
        pytest.raises(UndersongError, match=r"has the layers_pattern .* which is no plain name"),
        use_adapter(tiny, folder),
    ):
        pass


def test_missing_tensors_of_a_pattern_are_still_an_error(tiny: AudioModel, tmp_path: Path) -> None:
    folder = write_adapter(tiny, tmp_path / "a", target_modules=SWIFT)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: value for name, value in tensors.items() if ".layers.1.self_attn.q_proj" not in name}, file)
    with pytest.raises(UndersongError, match=r"is on one side only \(2 such"), use_adapter(tiny, folder):
        pass


def test_paths_of_many_modules_make_one_key(tmp_path: Path) -> None:
    """PEFT compiles every key for every module, so the paths of a pattern must not become a key each."""
    from peft import LoraConfig

    paths = [f"model.layers.{i}.q_proj" for i in range(600)]
    config = LoraConfig(r=2, target_modules=["q_proj"], rank_pattern={r"layers\.\d+\.q_proj": 4})
    resolve_patterns(config, paths, tmp_path)
    assert list(config.rank_pattern.values()) == [4]
    assert np.all([path.replace(".", r"\.") in next(iter(config.rank_pattern)) for path in paths])
