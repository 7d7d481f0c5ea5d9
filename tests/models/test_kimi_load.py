"""Kimi-Audio from a folder laid out as its release, with what a release holds besides, and what can lack in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_kimi
import torch
from safetensors.torch import load_file, save_file
from tiny_kimi import LAYERS, MELS

from undersong.models.kimi.load import (
    TOKENIZER_FOLDER,
    TOKENIZER_ID,
    WHISPER_FOLDER,
    kimi_extractor,
    kimi_skeleton,
    load_kimi,
    save_kimi,
)
from undersong.models.kimi.network import KimiAudioConfig, KimiAudioForCausalLM
from undersong.models.kimi.processing import kimi_audio_inputs
from undersong.types import UndersongError

WHOLE = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_kimi.save(tmp_path / "kimi", speech=True)


def change(folder: Path, drop: tuple[str, ...] = (), **more: torch.Tensor) -> None:
    """Rewrites a part's weights without some of them, and with others."""
    file = folder / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(file).items() if name not in drop}
    save_file({**weights, **more}, file, metadata={"format": "pt"})


def configure(folder: Path, drop: tuple[str, ...] = (), **more: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**{k: v for k, v in config.items() if k not in drop}, **more}))


def as_released(folder: Path) -> None:
    """What the published files hold besides: frequencies, the rest of both Whispers, the codebook's averages."""
    names = [f"model.layers.{i}" for i in range(LAYERS)] + ["model.mimo_layers.0"]
    change(folder, **{f"{name}.self_attn.rotary_emb.inv_freq": torch.ones(4) for name in names})
    decoder = {"model.decoder.embed_tokens.weight": torch.ones(3, 3), "model.decoder.layers.0.fc1.bias": torch.ones(3)}
    change(folder / WHISPER_FOLDER, **decoder, **{"proj_out.weight": torch.ones(3, 3)})
    rest = {"layers.2.fc1.bias": torch.ones(3), "layers.31.fc1.bias": torch.ones(3), "layer_norm.weight": torch.ones(3)}
    rest |= {"ema_count": torch.ones(3), "ema_weight": torch.ones(3, 3)}
    change(folder / TOKENIZER_FOLDER, **{f"model.encoder.{name}": tensor for name, tensor in rest.items()})
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    configure(
        folder,
        drop=("rope_parameters", "dtype", "layer_types", "kimia_text_blank", "kimia_text_eos", "transformers_version"),
        architectures=["MoonshotKimiaForCausalLM"],
        auto_map={"AutoModelForCausalLM": "modeling_moonshot_kimia.MoonshotKimiaForCausalLM"},
        rope_theta=1000000.0,
        rope_scaling=None,
        torch_dtype="bfloat16",
        eos_token_ids=[1, 2],
        num_audio_special_tokens=512,
    )


@torch.no_grad()
def test_what_was_saved_is_loaded_and_answers_the_same(folder, tmp_path):
    model, info = load_kimi(folder, "float32", speech=True)
    assert info == WHOLE
    assert not model.training
    saved, loaded = tiny_kimi.build(speech=True).state_dict(), model.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    inputs, (tokens,) = kimi_audio_inputs(tiny_kimi.wave(1.3), kimi_extractor(folder))
    ids = torch.tensor([[40, *[tiny_kimi.OFFSET] * tokens, 41]])
    assert torch.equal(
        model(input_ids=ids, **inputs).logits, tiny_kimi.build(speech=True)(input_ids=ids, **inputs).logits
    )
    again = save_kimi(model, tmp_path / "again", kimi_extractor(folder))
    for part in ("", WHISPER_FOLDER, TOKENIZER_FOLDER):
        one, two = (load_file(place / part / "model.safetensors") for place in (folder, again))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_names_on_disk_are_the_releases(folder):
    names = set(load_file(folder / "model.safetensors"))
    assert {name.split(".")[0] for name in names} == {"model", "lm_head", "mimo_output"}
    assert {"model.vq_adaptor.layers.4.bias", "model.mimo_norm.weight", "model.embed_tokens.weight"} <= names
    for part in (WHISPER_FOLDER, TOKENIZER_FOLDER):
        assert all(name.startswith("model.encoder.") for name in load_file(folder / part / "model.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    assert "model_type" not in config
    assert config["architectures"] == ["MoonshotKimiaForCausalLM"]


@torch.no_grad()
def test_a_release_with_its_frequencies_and_speaking_layers_loads_whole_and_drops_them(folder):
    expected, _ = load_kimi(folder, "float32")
    blank, end = expected.config.kimia_text_blank, expected.config.kimia_text_eos
    as_released(folder)
    configure(folder, kimia_text_blank=blank, kimia_text_eos=end)  # the release's numbers are for its own ranks
    model, info = load_kimi(folder, "float32")
    assert info == WHOLE
    assert model.config.rope_parameters["rope_theta"] == 1e6
    assert model.config.tie_word_embeddings is False
    assert model.generation_config.eos_token_id == end
    loaded = model.state_dict()
    assert not any("mimo" in name or "inv_freq" in name for name in loaded)
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in expected.state_dict().items())
    _, info = load_kimi(folder, "float32", speech=True)
    assert info == WHOLE


def test_the_releases_config_gets_the_releases_special_ids(folder):
    as_released(folder)
    config = KimiAudioConfig.from_pretrained(folder)
    assert (config.kimia_text_blank, config.kimia_text_eos) == (151666, 151667)
    assert config.layer_types == ["full_attention"] * LAYERS


def test_the_language_model_and_tower_are_loaded_in_the_wanted_precision_and_codes_in_full(folder):
    model, _ = load_kimi(folder, "bfloat16")
    assert {p.dtype for p in model.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.audio_tower.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.audio_tokenizer.parameters()} == {torch.float32}


def test_a_skeleton_has_every_tensor_and_no_weights(folder):
    skeleton = kimi_skeleton(folder)
    shapes = {name: tensor.shape for name, tensor in load_kimi(folder, "float32")[0].state_dict().items()}
    assert {name: tensor.shape for name, tensor in skeleton.state_dict().items()} == shapes
    assert all(tensor.is_meta for tensor in skeleton.state_dict().values())


@pytest.mark.parametrize(
    ("part", "name", "prefix"),
    [
        ("", "model.vq_adaptor.layers.0.bias", ""),
        (WHISPER_FOLDER, "model.encoder.layers.1.fc1.bias", "audio_tower."),
        (TOKENIZER_FOLDER, "model.encoder.codebook.weight", "audio_tokenizer."),
    ],
)
def test_a_tensor_that_lacks_is_too_much_or_of_another_shape_is_told_of_any_part(folder, part, name, prefix):
    here = prefix + name.removeprefix("model.encoder.")
    tensor = load_file(folder / part / "model.safetensors")[name]
    change(folder / part, drop=(name,))
    assert load_kimi(folder, "float32")[1] == {**WHOLE, "missing_keys": [here]}
    change(folder / part, **{name: tensor, "model.encoder.strange": torch.ones(1)})
    strange = prefix + ("strange" if prefix else "model.encoder.strange")
    assert load_kimi(folder, "float32")[1] == {**WHOLE, "unexpected_keys": [strange]}
    change(folder / part, drop=("model.encoder.strange",), **{name: torch.ones(3)})
    _, info = load_kimi(folder, "float32")
    assert [fault[0] for fault in info["mismatched_keys"]] == [here]


@pytest.mark.parametrize(
    ("part", "said"),
    [("", "language model"), (WHISPER_FOLDER, "Whisper encoder"), (TOKENIZER_FOLDER, "semantic tokenizer")],
)
def test_a_part_without_weights_or_with_half_of_them_is_named(folder, part, said):
    file = folder / part / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UndersongError, match=f"The {said} of Kimi-Audio at .* could not be loaded"):
        load_kimi(folder, "float32")
    file.unlink()
    with pytest.raises(UndersongError, match=f"The {said} of Kimi-Audio at .* could not be loaded"):
        load_kimi(folder, "float32")


def test_pickled_weights_are_not_read(folder):
    weights = load_file(folder / WHISPER_FOLDER / "model.safetensors")
    (folder / WHISPER_FOLDER / "model.safetensors").unlink()
    torch.save(weights, folder / WHISPER_FOLDER / "pytorch_model.bin")
    with pytest.raises(UndersongError, match="Whisper encoder"):
        load_kimi(folder, "float32")


def test_a_folder_as_released_lacks_the_semantic_tokenizer_and_its_id_is_named(folder):
    (folder / TOKENIZER_FOLDER).rename(folder / "elsewhere")
    with pytest.raises(
        UndersongError, match=f"at {TOKENIZER_ID} could not be loaded .* put it into {TOKENIZER_FOLDER}/"
    ):
        load_kimi(folder, "float32")  # no network in tests


def test_parts_that_do_not_fit_each_other_are_refused(folder):
    configure(folder / TOKENIZER_FOLDER, num_mel_bins=MELS + 1)
    with pytest.raises(UndersongError, match="mel bands"):
        load_kimi(folder, "float32")
    configure(folder / TOKENIZER_FOLDER, num_mel_bins=MELS)
    configure(folder, kimia_adaptor_input_dim=128)
    with pytest.raises(UndersongError, match="adaptor takes 128"):
        load_kimi(folder, "float32")
    configure(folder, kimia_adaptor_input_dim="wide")
    with pytest.raises(UndersongError, match="language model"):
        load_kimi(folder, "float32")


def test_a_folder_without_an_extractor_is_refused(folder):
    (folder / WHISPER_FOLDER / "preprocessor_config.json").unlink()
    with pytest.raises(UndersongError, match=r"preprocessor_config\.json"):
        kimi_extractor(folder)


def test_the_extractor_is_made_to_fit_where_none_is_given(tmp_path):
    save_kimi(tiny_kimi.build(), tmp_path)
    assert kimi_extractor(tmp_path).to_dict() == tiny_kimi.extractor().to_dict()
    with pytest.raises(UndersongError, match="without both audio encoders"):
        save_kimi(KimiAudioForCausalLM(tiny_kimi.config()), tmp_path / "deaf")


def test_importing_the_package_loads_no_torch():
    code = "import sys, undersong, undersong.models.kimi; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
