"""Adapters go on and come off without a trace, and none reaches outside the decoder's blocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_af3 import CLIPS, spoken, typed

from undersong.models.audio_lm import AudioModel
from undersong.models.lora import check_targets, new_lora, use_adapter
from undersong.types import UndersongError

ASKED = [spoken(0), typed("paint the boat")]


def snapshot(model: AudioModel) -> dict[str, Any]:
    """Everything of the base that an adapter could leave changed."""
    base = model.model
    return {
        "tensors": {name: value.clone() for name, value in base.state_dict().items()},
        "trainable": {name: parameter.requires_grad for name, parameter in base.named_parameters()},
        "modules": {name: (id(module), module.training) for name, module in base.named_modules()},
        "extras": sorted(vars(base)),
        "states": model.hidden_states(ASKED),
    }


def assert_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    assert all(now[key] == before[key] for key in ("trainable", "modules", "extras"))
    assert now["tensors"].keys() == before["tensors"].keys()
    assert all(torch.equal(value, before["tensors"][name]) for name, value in now["tensors"].items())
    np.testing.assert_array_equal(now["states"], before["states"])


@pytest.fixture
def base(tiny: AudioModel) -> AudioModel:
    """With gradient flags that are not all alike, as a user's model may have them."""
    for number, parameter in enumerate(tiny.model.parameters()):
        parameter.requires_grad_(number % 3 > 0)
    return tiny


@pytest.fixture
def folder(tiny: AudioModel, tmp_path: Path) -> Path:
    """A saved LoRA that does something."""
    return saved(tiny, tmp_path / "saved", 0)


def saved(model: AudioModel, path: Path, seed: int, targets: list[str] | None = None) -> Path:
    torch.manual_seed(seed)
    with new_lora(model, 4, 8, 0.0, targets) as peft_model:
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        peft_model.save_pretrained(path)
    return path


def edit(folder: Path, **settings: Any) -> Path:
    """A copy of a PEFT folder with other settings."""
    other = shutil.copytree(folder, folder.with_name("edited"))
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    return other


def test_a_fresh_adapter_changes_nothing_until_it_is_trained_and_comes_off(base: AudioModel) -> None:
    before = snapshot(base)
    with new_lora(base, 4, 8, 0.0, None) as peft_model:
        assert base.model is peft_model
        np.testing.assert_array_equal(base.hidden_states(ASKED), before["states"])
        trainable = {name for name, parameter in peft_model.named_parameters() if parameter.requires_grad}
        assert trainable == {name for name, _ in peft_model.named_parameters() if "lora_" in name}
        assert len(trainable) == 2 * 14  # A and B of seven linear layers in each of two blocks
        assert all("language_model.layers" in name for name in trainable)
        for parameter in peft_model.parameters():
            if parameter.requires_grad:
                torch.nn.init.ones_(parameter)
        assert np.abs(base.hidden_states(ASKED) - before["states"]).max() > 0.1
        peft_model.train()  # as a trainer leaves it
    assert_same(snapshot(base), before)


def test_a_saved_adapter_comes_off(base: AudioModel, folder: Path) -> None:
    before = snapshot(base)
    with use_adapter(base, folder) as tuned:
        assert tuned is base
        assert np.abs(tuned.hidden_states(ASKED) - before["states"]).max() > 0.1
        np.testing.assert_array_equal(
            tuned.hidden_states(ASKED)[0], before["states"][0]
        )  # not in what goes into the decoder
        for heard, clip in zip(tuned.embed(CLIPS), CLIPS):
            np.testing.assert_array_equal(heard, tuned.audio_features[clip.id].valid_vectors())
    assert_same(snapshot(base), before)
    with use_adapter(base, None) as untouched:
        assert_same(snapshot(untouched), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_worn_in_its_bases_own_dtype(tiny: AudioModel, folder: Path, dtype: torch.dtype) -> None:
    """In float32 on a half-precision base it would cost more than the base; the replies' numbers are the base's."""
    tiny.model.to(dtype)
    with use_adapter(tiny, folder) as worn:
        adapted = {p.dtype for name, p in worn.model.named_parameters() if "lora_" in name}
        assert adapted == {dtype}
        assert len(worn.generate(ASKED[1:], 4)) == 1


def test_the_base_is_restored_after_an_exception(base: AudioModel, folder: Path) -> None:
    before = snapshot(base)
    for worn in (lambda: new_lora(base, 4, 8, 0.1, None), lambda: use_adapter(base, folder)):
        with pytest.raises(ZeroDivisionError), worn():
            _ = 1 / 0
        assert_same(snapshot(base), before)


def test_two_arms_in_sequence_do_not_leak(base: AudioModel, tmp_path: Path) -> None:
    one, other = saved(base, tmp_path / "one", 1), saved(base, tmp_path / "other", 2)

    def states(folder: Path | None) -> np.ndarray:
        with use_adapter(base, folder) as tuned:
            return tuned.hidden_states(ASKED)

    first, second, plain = states(one), states(other), states(None)
    assert np.abs(first - second).max() > 0.1
    for folder, expected in ((other, second), (one, first), (None, plain), (one, first)):
        np.testing.assert_array_equal(states(folder), expected)


def test_one_adapter_at_a_time(base: AudioModel, folder: Path) -> None:
    before = snapshot(base)
    with (
        use_adapter(base, folder),
        pytest.raises(UndersongError, match="has an adapter on already"),
        use_adapter(base, folder),
    ):
        pass
    assert_same(snapshot(base), before)


def test_default_targets_are_the_linear_layers_of_the_blocks(tiny: AudioModel) -> None:
    paths = tiny.linear_paths()
    attention = [f"self_attn.{name}_proj" for name in "qkvo"]
    assert sorted(paths) == sorted(
        f"model.language_model.layers.{layer}.{name}"
        for layer in range(2)
        for name in (*attention, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    )
    assert all(isinstance(tiny.model.get_submodule(path), torch.nn.Linear) for path in paths)


def test_chosen_targets_are_all_that_is_adapted_and_saved_as_full_paths(tiny: AudioModel, tmp_path: Path) -> None:
    chosen = ["model.language_model.layers.1.self_attn.v_proj", "model.language_model.layers.0.mlp.up_proj"]
    folder = saved(tiny, tmp_path / "chosen", 0, chosen)
    assert json.loads((folder / "adapter_config.json").read_text())["target_modules"] == sorted(chosen)
    assert len(load_file(folder / "adapter_model.safetensors")) == 4
    whole = saved(tiny, tmp_path / "whole", 0)
    assert json.loads((whole / "adapter_config.json").read_text())["target_modules"] == sorted(tiny.linear_paths())


def test_long_lists_of_targets_are_not_widened(
    tiny: AudioModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From 20 paths on PEFT looks for suffixes that hit the same; should they hit more, that is refused."""
    monkeypatch.setattr("peft.tuners.tuners_utils.MIN_TARGET_MODULES_FOR_OPTIMIZATION", 2)
    folder = saved(tiny, tmp_path / "whole", 0)
    assert json.loads((folder / "adapter_config.json").read_text())["target_modules"] == sorted(tiny.linear_paths())
    monkeypatch.setattr("peft.tuners.tuners_utils._find_minimal_target_modules", lambda *_: {"q_proj"})
    before = snapshot(tiny)
    with pytest.raises(UndersongError, match="audio_tower"), new_lora(tiny, 4, 8, 0.0, None):
        pass
    assert_same(snapshot(tiny), before)


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("model.audio_tower.layers.0.self_attn.q_proj", "lies in model.audio_tower;"),
        ("model.multi_modal_projector.linear_1", "lies in model.multi_modal_projector;"),
        ("lm_head", "lies in a module outside the decoder's blocks;"),
        ("model.language_model.layers.0.self_attn.nothing", "lies in a module outside the decoder's blocks;"),
        ("q_proj", "lies in a module outside the decoder's blocks;"),
    ],
)
def test_a_fresh_adapter_outside_the_decoder_is_refused(tiny: AudioModel, target: str, place: str) -> None:
    before = snapshot(tiny)
    targets = [*tiny.linear_paths(), target]
    with pytest.raises(UndersongError, match=rf"trains {target} .*{place}"), new_lora(tiny, 4, 8, 0.0, targets):
        pass
    assert_same(snapshot(tiny), before)


def test_an_adapter_of_nothing_is_refused(tiny: AudioModel) -> None:
    with pytest.raises(UndersongError, match="names no module"):
        check_targets(tiny, [], tiny.linear_paths())


def by_peft(model: AudioModel, path: Path, **settings: Any) -> Path:
    """A folder as any user of PEFT would write it, without our checks."""
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(model.model, LoraConfig(r=2, **settings))
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(path)
    model.model = wrapped.unload()
    return path


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (["q_proj"], r"model\.audio_tower\.layers\.0\.self_attn\.q_proj"),  # a suffix, as in the published code
        (r".*self_attn\.(k|v)_proj", r"model\.audio_tower\.layers\.0\.self_attn\.k_proj"),
        (["model.multi_modal_projector.linear_2"], r"model\.multi_modal_projector\.linear_2"),
        (["model.language_model.layers.0.mlp.up_proj", "lm_head"], "lm_head"),
    ],
)
def test_a_saved_adapter_outside_the_decoder_is_refused(tiny: AudioModel, tmp_path: Path, targets, named: str) -> None:
    folder = by_peft(tiny, tmp_path / "wide", target_modules=targets)
    before = snapshot(tiny)
    with pytest.raises(UndersongError, match=f"trains {named} "), use_adapter(tiny, folder):
        pass
    assert_same(snapshot(tiny), before)


def test_a_decoder_adapter_written_by_peft_alone_is_taken(tiny: AudioModel, tmp_path: Path) -> None:
    """With a task type too, for which PEFT wraps `forward` and `generate` in its own."""
    folder = by_peft(tiny, tmp_path / "plain", target_modules=r".*language_model\.layers\.\d+\.self_attn\.(q|v)_proj")
    before, found = snapshot(tiny), []
    for kind in (folder, edit(folder, task_type="CAUSAL_LM")):
        with use_adapter(tiny, kind) as tuned:
            found.append((tuned.hidden_states(ASKED), tuned.generate(ASKED, 6)))
        assert_same(snapshot(tiny), before)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert np.abs(found[0][0] - before["states"]).max() > 0.01
    assert found[0][1] == found[1][1]
    assert found[0][1][0].tokens > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"modules_to_save": ["multi_modal_projector"]}, "modules_to_save"),
        ({"bias": "all"}, "bias: all"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: pissa"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"peft_type": "IA3"}, "an adapter of the kind IA3; give a LoRA"),
        ({"peft_type": "NOTHING"}, "an adapter of the kind NOTHING; give a LoRA"),
    ],
)
def test_what_could_not_be_taken_off_is_refused(tiny: AudioModel, folder: Path, settings: dict, said: str) -> None:
    before = snapshot(tiny)
    with pytest.raises(UndersongError, match=said), use_adapter(tiny, edit(folder, **settings)):
        pass
    assert_same(snapshot(tiny), before)


def test_an_adapter_of_another_base_is_refused(tiny: AudioModel, folder: Path) -> None:
    """PEFT would only warn, and go on with random weights."""
    file = folder / "adapter_model.safetensors"
    tensors, before = load_file(file), snapshot(tiny)
    first, second = sorted(tensors)[:2]

    def refused(match: str, changed: dict[str, torch.Tensor]) -> None:
        save_file(changed, file)
        with pytest.raises(UndersongError, match=match), use_adapter(tiny, folder):
            pass
        assert_same(snapshot(tiny), before)

    rest = {name: value for name, value in tensors.items() if name != first}
    refused(rf"{first} is on one side only \(1 such", rest)
    refused(r"is on one side only \(2 such", {**rest, first.replace("layers.0", "layers.7"): tensors[first]})
    refused("does not fit .*size mismatch", {**tensors, second: torch.zeros(3, 5)})


def test_an_adapter_that_is_cut_off_or_not_finite_is_refused(tiny: AudioModel, folder: Path) -> None:
    """Under a NaN the model says nothing, which would be measured as no harm."""
    file, before = folder / "adapter_model.safetensors", snapshot(tiny)
    whole, tensors = file.read_bytes(), load_file(file)
    name = sorted(tensors)[3]
    save_file({**tensors, name: tensors[name].clone().fill_(float("nan"))}, file)
    with pytest.raises(UndersongError, match=rf"^{name} in {folder} is not finite.*"), use_adapter(tiny, folder):
        pass
    for there in (whole[:-10], whole[:4], b""):
        file.write_bytes(there)
        with (
            pytest.raises(UndersongError, match=rf"^{file.name} in {folder} cannot be read \(.*train it again\.$"),
            use_adapter(tiny, folder),
        ):
            pass
    assert_same(snapshot(tiny), before)


def test_target_modules_that_are_not_there_are_refused(tiny: AudioModel, folder: Path) -> None:
    before = snapshot(tiny)
    other = edit(folder, target_modules=["transformer.h.0.attn"])
    with pytest.raises(UndersongError, match=r"does not fit .*take its own base"), use_adapter(tiny, other):
        pass
    assert_same(snapshot(tiny), before)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_folder_that_is_no_adapter(tiny: AudioModel, folder: Path, name: str) -> None:
    (folder / name).rename(folder / "adapter_model.bin")  # a pickle is never read
    with pytest.raises(UndersongError, match=f"holds no {name}"), use_adapter(tiny, folder):
        pass
