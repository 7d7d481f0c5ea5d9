"""The doctor says yes to a model that is taken rightly, and names what is wrong with one that is not."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import instances
import pytest
import torch

from undersong.models import doctor, families
from undersong.models.audio_lm import AudioModel
from undersong.models.doctor import diagnose_model
from undersong.models.families import AUDIO_FLAMINGO_3, FAMILIES, QWEN2_5_OMNI
from undersong.models.refs import organism_folder
from undersong.types import Prompt, Sample, UndersongError


def verdicts(folder: Path) -> dict[str, bool | None]:
    return {check.name: check.passed for check in diagnose_model(str(folder))}


@pytest.mark.parametrize("kind", instances.KINDS)
def test_every_family_passes(kind: str, tmp_path: Path) -> None:
    checks = list(diagnose_model(str(instances.save(kind, tmp_path))))
    assert [f"{check.name}: {check.detail}" for check in checks if check.passed is False] == []
    assert [check.name for check in checks] == ["loads", *doctor.MODEL_CHECKS]
    assert [check.name for check in checks if check.passed is None] == ["prompt", "reply"]
    details = {check.name: check.detail for check in checks}
    family = next(family for family in FAMILIES if kind in family.model_types)
    assert details["prompt"].count(family.audio_token) == 1
    assert "; the checkpoint's own: " in details["stops"]
    assert re.fullmatch(r"to '.+', spoken: '.*', (ended by itself|cut at 32 tokens)", details["reply"], re.DOTALL)


def test_a_model_that_does_not_load_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match=r"has no config\.json"):
        next(diagnose_model(str(tmp_path)))


def test_stops_of_another_checkpoint_are_found(tmp_path: Path) -> None:
    folder = instances.save("qwen2_audio", tmp_path)
    (folder / "generation_config.json").write_text('{"eos_token_id": [7]}')
    (line,) = (check for check in diagnose_model(str(folder)) if check.name == "stops")
    assert not line.passed
    assert re.search(r"^<\|im_end\|> \(2\), .* \(7\); the checkpoint's own: \S+ \(7\)$", line.detail)


def spec(monkeypatch: pytest.MonkeyPatch, family, **changed) -> None:
    others = tuple(f for f in FAMILIES if f is not family)
    monkeypatch.setattr(families, "FAMILIES", (*others, dataclasses.replace(family, **changed)))


def test_a_wrong_formula_is_found_where_the_model_runs_silently_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = instances.save("qwen2_5_omni", tmp_path)
    right = QWEN2_5_OMNI.audio_tokens
    spec(monkeypatch, QWEN2_5_OMNI, audio_tokens=lambda frames: right(frames) - 1)
    (line,) = (check for check in diagnose_model(str(folder)) if check.name == "placeholders")
    assert not line.passed
    assert "its feature extractor does not fit its weights" in line.detail


def test_a_wrong_feature_mask_is_found(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mute(extractor, wave):
        sound = AUDIO_FLAMINGO_3.prepare(extractor, wave)
        silent = {k: torch.zeros_like(v) if k == "input_features" else v for k, v in sound.tensors.items()}
        return dataclasses.replace(sound, tensors=silent)

    assert verdicts(tiny_folder)["embedding = decoder input"]
    hear = AudioModel.encode_audio
    monkeypatch.setattr(AudioModel, "encode_audio", lambda self, clips: hear(_as(self, mute), clips))
    assert verdicts(tiny_folder)["embedding = decoder input"] is False


def _as(model: AudioModel, prepare) -> AudioModel:
    other = AudioModel(model.model, model.processor, dataclasses.replace(model.family, prepare=prepare), "it", "")
    return other


def test_a_batch_that_does_not_mask_its_padding_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = instances.save("qwen2_audio", tmp_path)
    batch = AudioModel.batch

    def unmasked(self, prompts, replies=None):
        made = batch(self, prompts, replies)
        return made | {"attention_mask": torch.ones_like(made["attention_mask"])}

    monkeypatch.setattr(AudioModel, "batch", unmasked)
    assert verdicts(folder)["batch = single"] is False


def test_a_lora_that_reaches_the_encoder_is_found(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = AudioModel.linear_paths
    tower = "model.audio_tower.layers.0.self_attn.q_proj"
    monkeypatch.setattr(AudioModel, "linear_paths", lambda self: [*paths(self), tower])
    assert verdicts(tiny_folder)["LoRA in the decoder only"] is False


def _needs_clips(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    return bool(model.batch([Prompt(samples[0], "doctor", False, "audio", "plain")])), ""


@pytest.mark.parametrize(
    "template", ["{% for %}", "{{ messages[7].content }}{{ raise_exception('no') }}", "no placeholder at all"]
)
def test_a_broken_template_has_one_line(template: str, tmp_path: Path) -> None:
    folder = shutil.copytree(organism_folder("af3"), tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    checks = {check.name: check for check in diagnose_model(str(folder), more_checks={"more": _needs_clips})}
    assert [name for name, check in checks.items() if check.passed is False] == ["prompt"]
    assert "The chat template of" in checks["prompt"].detail
    assert [name for name, check in checks.items() if check.passed] == ["loads", "stops", "LoRA in the decoder only"]
    others = {check.detail for check in checks.values() if check.passed is None}
    assert others == {"not checked, because the check 'prompt' failed"}


def test_clips_that_cannot_be_encoded_have_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(extractor, waveform):
        raise ValueError("no features")

    spec(monkeypatch, AUDIO_FLAMINGO_3, prepare=fail)
    checks = list(diagnose_model("organism:af3", more_checks={"more": _needs_clips}))
    (failed,) = (check for check in checks if check.passed is False)
    assert failed.name == "placeholders"
    assert "cannot take clip" in failed.detail
    unchecked = [
        check.name for check in checks if check.detail == "not checked, because the check 'placeholders' failed"
    ]
    assert unchecked == [
        "embedding = decoder input", "batch = single", "system text", "adapter off = base", "generates", "reply",
        "more",
    ]  # fmt: skip
