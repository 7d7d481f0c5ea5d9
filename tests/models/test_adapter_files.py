"""An adapter's small files with wrong values: one sentence that names file and key, before PEFT sees them."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from random_adapter import save_random_adapter

from undersong.models.adapter_export import export_adapter
from undersong.models.audio_lm import AudioModel
from undersong.models.lora import new_lora, save_adapter, use_adapter
from undersong.types import UndersongError


@pytest.fixture(scope="module")
def saved(module_tiny: AudioModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with all files, as `tune` saves it."""
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    with new_lora(module_tiny, 2, 4, 0.0, None):
        save_adapter(module_tiny, folder)
    return folder


def changed(saved: Path, folder: Path, **settings: Any) -> Path:
    shutil.copytree(saved, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    return folder


def assert_refused(model: AudioModel, folder: Path, words: str) -> None:
    with (
        warnings.catch_warnings(action="error", category=UserWarning),
        pytest.raises(UndersongError, match=words) as raised,
        use_adapter(model, folder),
    ):
        pass
    assert "\n" not in str(raised.value)
    assert model.model is model.base


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", "x"), ("r", True), ("r", 0), ("r", None), ("lora_alpha", None), ("lora_alpha", "x"),
        ("lora_alpha", float("nan")), ("lora_dropout", "x"), ("lora_dropout", 1.5), ("target_modules", 3),
        ("target_modules", "["), ("exclude_modules", 3), ("layers_to_transform", "x"), ("auto_mapping", 3),
        ("rank_pattern", 3), ("alpha_pattern", {"q_proj": "x"}), ("peft_type", None),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_with_its_key(
    module_tiny: AudioModel, saved: Path, tmp_path: Path, key: str, value: Any
) -> None:
    folder = changed(saved, tmp_path / "adapter", **{key: value})
    assert_refused(module_tiny, folder, rf"adapter_config\.json has a bad value \({key}: ")


@pytest.mark.parametrize(("name", "needed"), [("adapter_config.json", True), ("made_for.json", False)])
@pytest.mark.parametrize("text", ["", "[]", "{", "3", "{}", "[" * 100_000])
def test_a_file_that_is_no_object_is_named(
    module_tiny: AudioModel, saved: Path, tmp_path: Path, name: str, needed: bool, text: str
) -> None:
    folder = changed(saved, tmp_path / "adapter")
    (folder / name).write_text(text)
    assert_refused(module_tiny, folder, rf"{name.replace('.', '[.]')} (has a bad value|is no JSON) \(")
    (folder / name).unlink()
    if needed:
        assert_refused(module_tiny, folder, f"holds no {name}")
    else:
        with use_adapter(module_tiny, folder):
            pass  # as another tool saves it


def test_a_missing_tensor_and_another_kind_are_one_sentence_without_warnings(
    module_tiny: AudioModel, saved: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = changed(saved, tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.popitem()
    save_file(tensors, folder / "adapter_model.safetensors")
    assert_refused(module_tiny, folder, "is on one side only")
    assert_refused(
        module_tiny, changed(saved, tmp_path / "ia3", peft_type="IA3"), "an adapter of the kind IA3; give a LoRA"
    )


def test_an_export_refuses_what_it_cannot_translate(module_tiny: AudioModel, saved: Path, tmp_path: Path) -> None:
    folder = changed(saved, tmp_path / "adapter", alpha_pattern={".*layers.0.*": 400})
    with pytest.raises(UndersongError, match="separate ranks or scales for modules"):
        export_adapter(module_tiny, folder, tmp_path / "out")
    own = save_random_adapter(module_tiny.base, module_tiny.linear_paths(), tmp_path / "own")
    with pytest.raises(UndersongError, match="lies in the adapter's own folder"):
        export_adapter(module_tiny, own, own / "copy")
    assert not (tmp_path / "out").exists()
    assert not (own / "copy").exists()
