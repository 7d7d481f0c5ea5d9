"""Kimi-Audio at full size, on the meta device, against the published layout: every name, every shape, every byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig

from undersong.models.families import KIMI_AUDIO
from undersong.models.kimi.audio_tokenizer import CodesConfig, CodesEncoder
from undersong.models.kimi.network import KimiAudioConfig, KimiAudioForCausalLM
from undersong.models.refs import resolve_model
from undersong.types import UndersongError

LAYOUT = Path(__file__).parent / "data" / "kimi_layout.json"
BYTES, BYTES_A_NUMBER = 19_532_673_280, 2  # total_size of the released index; bfloat16
HIDDEN, INNER, KEYS, VOCABULARY, EAR = 3584, 18944, 512, 168448, 5120
# Verbatim, of moonshotai/Kimi-Audio-7B-Instruct at revision 9a82a84c (data/README.md).
RELEASE_CONFIG = Path(__file__).parent / "data" / "kimi_config.json"
RELEASE = json.loads(RELEASE_CONFIG.read_text())
WHISPER = {"d_model": 1280, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "num_mel_bins": 128}
WHISPER |= {"encoder_layers": 32, "max_source_positions": 1500}


def published() -> dict[str, list[int]]:
    """The table of the published state dict, written out."""
    layer = {
        "self_attn.q_proj.weight": [HIDDEN, HIDDEN],
        "self_attn.q_proj.bias": [HIDDEN],
        "self_attn.k_proj.weight": [KEYS, HIDDEN],
        "self_attn.k_proj.bias": [KEYS],
        "self_attn.v_proj.weight": [KEYS, HIDDEN],
        "self_attn.v_proj.bias": [KEYS],
        "self_attn.o_proj.weight": [HIDDEN, HIDDEN],
        "self_attn.rotary_emb.inv_freq": [64],
        "mlp.gate_proj.weight": [INNER, HIDDEN],
        "mlp.up_proj.weight": [INNER, HIDDEN],
        "mlp.down_proj.weight": [HIDDEN, INNER],
        "input_layernorm.weight": [HIDDEN],
        "post_attention_layernorm.weight": [HIDDEN],
    }
    table = {"lm_head.weight": [VOCABULARY, HIDDEN], "mimo_output.weight": [VOCABULARY, HIDDEN]}
    table |= {"model.embed_tokens.weight": [VOCABULARY, HIDDEN]}
    table |= {"model.norm.weight": [HIDDEN], "model.mimo_norm.weight": [HIDDEN]}
    table |= {"model.vq_adaptor.layers.0.weight": [HIDDEN, EAR], "model.vq_adaptor.layers.0.bias": [HIDDEN]}
    table |= {"model.vq_adaptor.layers.3.weight": [HIDDEN, HIDDEN], "model.vq_adaptor.layers.3.bias": [HIDDEN]}
    table |= {"model.vq_adaptor.layers.4.weight": [HIDDEN], "model.vq_adaptor.layers.4.bias": [HIDDEN]}
    for group, count in (("layers", 28), ("mimo_layers", 6)):
        table |= {f"model.{group}.{i}.{name}": shape for i in range(count) for name, shape in layer.items()}
    return table


def shapes(module: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


def numbers(table: dict[str, list[int]]) -> int:
    return sum(torch.Size(shape).numel() for shape in table.values())


@pytest.fixture(scope="module")
def layout() -> dict[str, list[int]]:
    return json.loads(LAYOUT.read_text())


def test_the_list_is_the_published_table_of_453_tensors_and_every_byte(layout):
    assert layout == published()
    assert len(layout) == 453
    assert numbers(layout) * BYTES_A_NUMBER == BYTES


def test_the_published_config_is_known_by_its_architecture(tmp_path):
    (tmp_path / "config.json").write_bytes(RELEASE_CONFIG.read_bytes())
    assert "model_type" not in RELEASE
    assert resolve_model(str(tmp_path))[2] is KIMI_AUDIO


def test_a_config_with_a_model_type_is_known_by_that(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**RELEASE, "model_type": "moonshot_kimia"}))
    assert resolve_model(str(tmp_path))[2] is KIMI_AUDIO


def test_another_architecture_alone_is_refused_by_its_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["OtherForCausalLM"], "auto_map": {}}))
    with pytest.raises(UndersongError, match=r"has no model_type \(its architecture 'OtherForCausalLM'"):
        resolve_model(str(tmp_path))


def test_the_published_config_gives_the_released_network(tmp_path):
    (tmp_path / "config.json").write_bytes(RELEASE_CONFIG.read_bytes())
    config = KimiAudioConfig.from_pretrained(tmp_path)
    assert (config.vocab_size, config.hidden_size, config.rope_parameters["rope_theta"]) == (VOCABULARY, HIDDEN, 1e6)
    assert (config.kimia_text_blank, config.kimia_text_eos) == (151666, 151667)


def test_the_whole_language_model_has_these_names_and_shapes_but_for_the_computed_frequencies(layout):
    with torch.device("meta"):
        model = KimiAudioForCausalLM(KimiAudioConfig(**RELEASE), speech=True)
    frequencies = {name for name in layout if name.endswith("rotary_emb.inv_freq")}
    assert len(frequencies) == 34
    assert shapes(model) == {name: shape for name, shape in layout.items() if name not in frequencies}


def test_without_speech_only_the_layers_that_speak_are_gone_and_four_gigabytes_with_them(layout):
    with torch.device("meta"):
        model = KimiAudioForCausalLM(KimiAudioConfig(**RELEASE))
    gone = {name: shape for name, shape in layout.items() if name not in shapes(model)}
    assert all("mimo" in name or name.endswith("inv_freq") for name in gone)
    assert 3.9e9 < numbers(gone) * BYTES_A_NUMBER < 4.1e9


def test_both_ears_at_full_size_have_the_published_size_and_fit_the_adaptor():
    codes = CodesConfig(**WHISPER)
    with torch.device("meta"):
        model = KimiAudioForCausalLM(KimiAudioConfig(**RELEASE), WhisperConfig(**WHISPER), codes)
    assert round(sum(p.numel() for p in model.audio_tower.parameters()) / 1e6) == 637
    assert round(sum(p.numel() for p in model.audio_tokenizer.parameters()) / 1e6) == 344
    assert {name.split(".")[0] for name in shapes(model)} == {"model", "lm_head", "audio_tower", "audio_tokenizer"}


def test_the_semantic_ear_has_the_published_names_and_shapes():
    with torch.device("meta"):
        table = shapes(CodesEncoder(CodesConfig(**WHISPER)))
    assert table["conv1.weight"] == [1280, 128, 3]
    assert table["conv2.weight"] == [1280, 1280, 3]
    assert table["embed_positions.weight"] == [1500, 1280]
    assert table["embed_positions2.weight"] == [375, 1280]
    assert table["codebook.weight"] == [16384, 1280]
    layers = {name.split(".")[1] for name in table if name.startswith("layers.")}
    assert layers == {str(i) for i in range(16)}
    tops = {name.split(".")[0] for name in table}
    assert tops == {"conv1", "conv2", "embed_positions", "embed_positions2", "codebook", "layers"}
    assert sum(name.startswith("layers.0.") for name in table) == 15
