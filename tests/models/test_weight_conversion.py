"""Names and shapes go transformers' own way: what it loads whole passes, on small networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, WeightConverter, WhisperConfig, WhisperForConditionalGeneration
from transformers.core_model_loading import ConversionOps

from undersong.models import tensor_match, weight_conversion
from undersong.models.headers import Shapes
from undersong.models.pretrained import quiet_transformers
from undersong.models.tensor_match import TensorMismatches, match_tensors
from undersong.models.weight_conversion import convert_shapes, network_module_path
from undersong.models.weights import WeightPart
from undersong.types import UndersongError

SIZES = {
    "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 20,
}  # fmt: skip
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def qwen(tied: bool = False) -> tuple[Qwen2Config, dict[str, torch.Tensor]]:
    """Config and state dict of a tiny language model."""
    config = Qwen2Config(**SIZES, tie_word_embeddings=tied)
    return config, Qwen2ForCausalLM(config).state_dict()


def compare(config: Any, state: dict[str, torch.Tensor], folder: Path, network_class: Any, **part: Any) -> Any:
    """Mismatches of a file with these tensors."""
    save_file({name: value.clone().contiguous() for name, value in state.items()}, folder / "model.safetensors")
    return match_tensors([WeightPart(network_class, config, folder, {}, **part)], str(folder))


def test_a_tied_head_may_be_left_out_and_an_untied_one_may_not(tmp_path: Path) -> None:
    for tied in (True, False):
        config, state = qwen(tied)
        assert not compare(config, state, tmp_path, Qwen2ForCausalLM)
        del state[HEAD]
        assert compare(config, state, tmp_path, Qwen2ForCausalLM).missing == ([] if tied else [HEAD])
    config, state = qwen(tied=True)
    del state[EMBEDDING]  # the head then fills both
    assert not compare(config, state, tmp_path, Qwen2ForCausalLM)
    del state[HEAD]
    assert sorted(compare(config, state, tmp_path, Qwen2ForCausalLM).missing) == [HEAD, EMBEDDING]


def test_a_base_models_names_fill_the_whole_model(tmp_path: Path) -> None:
    """Saved without the prefix of the base model, as by its own class."""
    config, state = qwen()
    bare = {name.removeprefix("model."): value for name, value in state.items()}
    assert not compare(config, bare, tmp_path, Qwen2ForCausalLM)


def test_computed_buffers_may_be_there_and_no_others(tmp_path: Path) -> None:
    """Files of older versions hold rotary frequencies in every layer."""
    config, state = qwen()
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(2)
    assert not compare(config, state, tmp_path, Qwen2ForCausalLM)
    state["model.layers.0.self_attn.rotary_emb.weight"] = torch.zeros(2)
    (name,) = compare(config, state, tmp_path, Qwen2ForCausalLM).unexpected
    assert name == "model.layers.0.self_attn.rotary_emb.weight"


def test_a_mapping_of_names_is_that_of_loading(tmp_path: Path) -> None:
    config, state = qwen()
    renamed = {f"net.{name}": value for name, value in state.items()}
    assert not compare(config, renamed, tmp_path, Qwen2ForCausalLM, key_mapping={r"^net\.": ""})
    lines = compare(config, renamed, tmp_path, Qwen2ForCausalLM, prefix="part.")
    assert len(lines.missing) == len(lines.unexpected) == len(state)
    assert all(name.startswith("part.") for name in (*lines.missing, *lines.unexpected))


def test_a_module_path_follows_the_renaming(tmp_path: Path) -> None:
    network = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    assert network_module_path(network, "model.layers.0.mlp.up_proj") == "model.layers.0.mlp.up_proj"


def test_what_transformers_loads_whole_passes(tmp_path: Path) -> None:
    """The same verdict as loading, for every tensor lost and every shape changed."""
    config = WhisperConfig(
        vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=0,
    )  # fmt: skip
    state = WhisperForConditionalGeneration(config).state_dict()
    for name in (None, *list(state)[1:-1:9]):
        for change in ("lose", "reshape"):
            changed = dict(state)
            if name and change == "lose":
                del changed[name]
            elif name:
                changed[name] = torch.zeros(3, 2)
            ours = compare(config, changed, tmp_path, WhisperForConditionalGeneration)
            with quiet_transformers():
                info = WhisperForConditionalGeneration.from_pretrained(
                    None, config=config, state_dict=changed, ignore_mismatched_sizes=True, output_loading_info=True
                )[1]
            assert sorted(ours.missing) == sorted(info["missing_keys"]), (name, change)
            assert sorted(ours.unexpected) == sorted(info["unexpected_keys"])
            names = [line.split(" ")[0] for line in ours.reshaped]
            assert sorted(names) == sorted(key for key, *_ in info["mismatched_keys"])


class NeedsValues(ConversionOps):
    """An operation whose result depends on values."""

    def convert(self, input_dict: dict[str, Any], target_patterns: list[str], **_: Any) -> dict[str, Any]:
        (values,) = input_dict.values()
        return {target_patterns[0]: values[0][: int(values[0].sum())]}


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = WeightConverter("up_proj.weight", "gate_proj.weight", operations=[NeedsValues()])
    monkeypatch.setattr(weight_conversion, "_transforms", lambda *_: ([], [made]))


@pytest.mark.usefixtures("converter")
def test_an_operation_that_needs_values_is_an_error_and_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    config, state = qwen()
    shapes: Shapes = {name: tuple(value.shape) for name, value in state.items() if "gate_proj" not in name}
    with torch.device("meta"):
        converted, _ = convert_shapes(Qwen2ForCausalLM(config), shapes)
    assert {tensor.name for tensor in converted if tensor.shape is None} == {
        f"model.layers.{layer}.mlp.gate_proj.weight" for layer in (0, 1)
    }
    monkeypatch.setattr(tensor_match, "read_shapes", lambda *_: shapes)
    with pytest.raises(UndersongError, match=r"of release do not make a Qwen2ForCausalLM \(.*meta.*gate_proj.weight\)"):
        match_tensors([WeightPart(Qwen2ForCausalLM, config, "release", {})], "release")


def test_no_mismatch_is_false() -> None:
    assert not TensorMismatches(total=3)
