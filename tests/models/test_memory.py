"""Memory is counted before a weight is read, and a model that does not fit is refused with what would."""

from __future__ import annotations

from pathlib import Path

import instances
import pytest
import torch
from instances import KINDS

from undersong.models import load, memory
from undersong.models.families import AUDIO_FLAMINGO_3
from undersong.models.load import load_model
from undersong.models.load_options import LoadOptions
from undersong.models.lora import new_lora
from undersong.models.memory import ParameterCounts, count_parameters
from undersong.models.refs import resolve_model
from undersong.types import UndersongError


@pytest.mark.parametrize("kind", KINDS)
def test_the_count_is_that_of_the_loaded_network(kind: str, tmp_path: Path) -> None:
    folder = instances.save(kind, tmp_path)
    counted = count_parameters(*(resolve_model(str(folder))[i] for i in (0, 2, 1)))
    network = load_model(str(folder)).base
    blocks = [m for m in network.get_decoder().layers.modules() if isinstance(m, torch.nn.Linear)]
    held = {t.data_ptr(): t.numel() for t in (*network.parameters(), *network.buffers())}
    assert counted.linear == sum(layer.weight.numel() for layer in blocks)
    assert counted.linear + counted.other == sum(held.values())


@pytest.mark.parametrize(
    ("loading", "size"),
    [
        (LoadOptions(), 4 * 110),
        (LoadOptions(dtype="bfloat16"), 2 * 110),
        (LoadOptions(dtype="bfloat16", quantize=8), 100 + 2 * 10),
        (LoadOptions(dtype="float16", quantize=4), 50 + 2 * 10),
    ],
)
def test_what_weights_take(loading: LoadOptions, size: int) -> None:
    assert ParameterCounts(linear=100, other=10).num_bytes(loading) == size


def sizes(tiny_folder: Path) -> dict[str, int]:
    weights = count_parameters(*(resolve_model(str(tiny_folder))[i] for i in (0, 2, 1)))
    ways = {
        "float32": LoadOptions(),
        "bfloat16": LoadOptions(dtype="bfloat16"),
        "4": LoadOptions(dtype="bfloat16", quantize=4),
    }
    return {name: weights.num_bytes(way) for name, way in ways.items()}


def test_what_would_fit_is_said(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sizes(tiny_folder)
    monkeypatch.setattr(memory, "available_memory", lambda device: size["bfloat16"])
    with pytest.raises(UndersongError, match=r"needs 0\.0 GiB .*\(float32\) and cpu has .* bfloat16 would need .*"):
        load_model(str(tiny_folder))
    assert load_model(str(tiny_folder), LoadOptions(dtype="bfloat16"))
    monkeypatch.setattr(memory, "available_memory", lambda device: size["4"])
    with pytest.raises(UndersongError, match=r"free; --quantize 4 would need"):
        load_model(str(tiny_folder), LoadOptions(dtype="bfloat16"))
    monkeypatch.setattr(memory, "available_memory", lambda device: 10)
    with pytest.raises(UndersongError, match="take a larger machine, or spread it with --device-map auto"):
        load_model(str(tiny_folder))


def test_nothing_is_read_of_what_does_not_fit(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 10)
    monkeypatch.setattr(load, "load_processor", lambda *_args, **_more: pytest.fail("read"))
    with pytest.raises(UndersongError, match="GiB free"):
        load_model(str(tiny_folder))


@pytest.mark.parametrize(
    ("loading", "device_map"),
    [
        (LoadOptions(device="cuda:1"), {"": "cuda:1"}),
        (LoadOptions(device="cuda:1", device_map="auto"), "auto"),
        (LoadOptions(), None),
        (LoadOptions(device="mps"), None),
    ],
)
def test_weights_go_straight_to_a_gpu(loading: LoadOptions, device_map: object) -> None:
    assert load._placement_options(loading, AUDIO_FLAMINGO_3).get("device_map") == device_map


@pytest.mark.parametrize(
    ("loading", "size"), [(LoadOptions(), 0), (LoadOptions(device="cuda"), 4 * 30), (LoadOptions(device="mps"), 440)]
)
def test_what_loading_takes_of_main_memory(loading: LoadOptions, size: int) -> None:
    assert ParameterCounts(linear=100, other=10, frozen=30).host_bytes(loading) == size


def test_too_little_main_memory_is_refused(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda device: 10 if device == "cpu" else 2**40)
    source, options, family = resolve_model(str(tiny_folder))
    for device in ("cuda:0", "mps"):
        with pytest.raises(UndersongError, match=rf"Loading it to {device} needs 0\.0 GiB of main memory"):
            memory.check_memory("it", source, options, family, LoadOptions(device=device))


def test_free_memory_is_a_number_of_bytes() -> None:
    assert 2**20 < memory.available_memory("cpu") < 2**50


def test_a_config_that_makes_no_network_is_refused(tmp_path: Path) -> None:
    folder = instances.save("qwen2_audio", tmp_path)
    config = (folder / "config.json").read_text().replace('"hidden_act": "silu"', '"hidden_act": "shout"')
    (folder / "config.json").write_text(config)
    with pytest.raises(UndersongError, match=r"config.json of .* makes no Qwen2-Audio"):
        load_model(str(folder))


def test_quantizing_needs_its_package(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    with pytest.raises(UndersongError, match=r"4 bits needs bitsandbytes; pip install -e '.\[quantize\]'"):
        load_model(str(tiny_folder), LoadOptions(quantize=4))
    with pytest.raises(UndersongError, match="not quantized to 3 bits; take 4 or 8"):
        LoadOptions(quantize=3)


def test_where_and_how_reach_transformers(tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder), LoadOptions(device_map="cpu", attention="eager"))
    assert model.decoder.config._attn_implementation == "eager"
    with pytest.raises(UndersongError, match="could not be loaded as AudioFlamingo3"):
        load_model(str(tiny_folder), LoadOptions(attention="flash_attention_7"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_as_large_as_counted(kind: str, tmp_path: Path) -> None:
    """Exactly so for the families whose every linear layer learns; never larger."""
    folder = instances.save(kind, tmp_path)
    counted = count_parameters(*(resolve_model(str(folder))[i] for i in (0, 2, 1))).adapter_bytes(rank=4)
    with new_lora(load_model(str(folder)), 4, 8, 0.0, None) as learner:
        held = sum(4 * p.numel() for name, p in learner.named_parameters() if "lora_" in name)
    assert held == counted if kind in ("audioflamingo3", "qwen2_5_omni", instances.KIMI) else held <= counted
