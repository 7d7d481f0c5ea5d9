"""An adapter is looked at by its config alone, before any weight of the model is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from undersong.models.adapter_check import check_adapter_config
from undersong.research.probing.options import ProbeOptions
from undersong.research.probing.run import run_probe
from undersong.standalone.evaluate import evaluate_manifest
from undersong.standalone.options import EvaluationOptions
from undersong.types import UndersongError

BLOCKS = r".*language_model\.layers\.\d+\.self_attn\.(q|v)_proj"


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was read")

    monkeypatch.setattr("undersong.models.load.load_model", load)


def adapter(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "target_modules": BLOCKS, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"not looked at")
    return folder


def test_an_adapter_of_the_blocks_passes_and_one_of_the_encoder_only_where_that_is_allowed(
    tiny_folder: Path, tmp_path: Path
) -> None:
    check_adapter_config(str(tiny_folder), adapter(tmp_path / "blocks"), allow_outside_decoder=False)
    wide = adapter(tmp_path / "wide", target_modules=["q_proj", "v_proj"])
    check_adapter_config(str(tiny_folder), wide, allow_outside_decoder=True)
    with pytest.raises(UndersongError, match=r"changes model\.audio_tower\..* \(4 such modules\), which lies in"):
        check_adapter_config(str(tiny_folder), wide, allow_outside_decoder=False)


def test_an_adapter_of_another_class_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    other = adapter(tmp_path / "other", auto_mapping={"base_model_class": "OtherForCausalLM", "parent_library": "x"})
    with pytest.raises(UndersongError, match="was made for the class OtherForCausalLM"):
        check_adapter_config(str(tiny_folder), other, allow_outside_decoder=True)


@pytest.mark.usefixtures("no_weights")
def test_evaluate_and_probe_look_before_they_read_the_model(tiny_folder: Path, tmp_path: Path) -> None:
    """D15 of the trial: faults that the config tells were found after the weights, by `probe` after all prompts."""
    saved = adapter(tmp_path / "saved", modules_to_save=["multi_modal_projector"])
    with pytest.raises(UndersongError, match="modules_to_save"):
        evaluate_manifest(
            "organism:test-harm", str(tiny_folder), tmp_path / "out", saved, EvaluationOptions(modality="text")
        )
    sets = dict.fromkeys(("contrast_harmful", "contrast_benign"), "organism:test-harm")
    sets |= dict.fromkeys(("held_out_harmful", "held_out_benign"), "organism:test-near")
    for folder, said in (
        (saved, "modules_to_save"),
        (adapter(tmp_path / "wide", target_modules=["q_proj"]), "lies in"),
    ):
        with pytest.raises(UndersongError, match=said):
            run_probe(ProbeOptions(model=str(tiny_folder), adapter=folder, **sets), tmp_path / "probed")
