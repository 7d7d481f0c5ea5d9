"""The tiny instances themselves: laid out as the hub has them, loaded by transformers alone, with something to say."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_kimi
import torch
import transformers
import zoo
import zoo_models
import zoo_native
import zoo_published
import zoo_tekken
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from zoo_native import Assembled, Native
from zoo_text import TEMPLATES

TYPED = ("please tell me how to paint the red chair", "wash the old boat", "fold some lamp and take the chair first")
SPOKEN = (0.6, 1.3, 1.9)
Load = Callable[[str], tuple[Path, Native]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Each family saved and loaded once."""
    made: dict[str, tuple[Path, Native]] = {}

    def get(family: str) -> tuple[Path, Native]:
        if family not in made:
            folder = zoo.save(family, tmp_path_factory.mktemp(family))
            made[family] = folder, zoo.native(family, folder)
        return made[family]

    return get


def keys(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_the_published_layout_loads_whole(family: str, load: Load) -> None:
    folder, native = load(family)
    assert not any(native.loading[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert json.loads((folder / "config.json").read_text())["model_type"] == family
    holds = zoo.LAYOUTS[family].template
    there = {name for name in ("chat_template.jinja", "chat_template.json") if (folder / name).exists()}
    assert there == {holds} - {"tokenizer_config.json"}
    assert ("chat_template" in json.loads((folder / "tokenizer_config.json").read_text())) == (not there)


def leaves(config: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Every value that is no mapping, by its path."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= leaves(value, f"{path}{name}.") if isinstance(value, dict) and value else {f"{path}{name}": value}
    return found


@pytest.mark.parametrize("family", zoo_published.FILES)
def test_the_config_is_the_published_one_but_for_its_sizes(family: str, load: Load) -> None:
    """Same keys, and same values but for the listed ones."""
    folder, _ = load(family)
    own, theirs = leaves(json.loads((folder / "config.json").read_text())), leaves(zoo_published.published(family))
    assert own.keys() == theirs.keys()
    listed = {*zoo_published.SHRUNK[family], *zoo_published.OF_VOCABULARY[family]}
    assert {path for path in own if own[path] != theirs[path]} <= listed <= own.keys()


def test_kimis_config_is_the_published_one_but_for_its_sizes(tmp_path: Path) -> None:
    """Two ids that the release has only in its tokenizer are added, as a small vocabulary has other ones."""
    config = json.loads((tiny_kimi.save(tmp_path) / "config.json").read_text())
    own, theirs = leaves(config), leaves(tiny_kimi.PUBLISHED)
    assert own.keys() - tiny_kimi.OF_TOKENIZER.keys() == theirs.keys()
    assert {path for path in theirs if own[path] != theirs[path]} <= tiny_kimi.SHRUNK.keys() <= own.keys()


def test_qwen3_omnis_published_tensors_are_those_of_its_network() -> None:
    """Every name and shape of the thinker at full size, under transformers 5's names; it joins a layer's experts."""
    config = transformers.Qwen3OmniMoeConfig.from_dict(zoo_published.published("qwen3_omni_moe"))
    with torch.device("meta"):
        network = transformers.Qwen3OmniMoeThinkerForConditionalGeneration(config.thinker_config)
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items() if ".experts." not in name}
    layout = json.loads((zoo_published.DATA / "qwen3_omni" / "layout.json").read_text())
    published: dict[str, list[int]] = {}
    for pattern, shape in layout.items():
        if ".experts." not in pattern:
            name = re.sub(r"^model\.", "language_model.", pattern.removeprefix("thinker."))
            name = name if name.startswith("lm_head") else f"model.{name}"
            before, last, after = re.fullmatch(r"(.*?)(?:0-(\d+)(.*))?", name).groups()
            names = [before] if last is None else [f"{before}{i}{after}" for i in range(int(last) + 1)]
            published |= dict.fromkeys(names, shape)
    assert shapes == published
    experts = {name: list(tensor.shape) for name, tensor in network.state_dict().items() if ".experts." in name}
    one = {name.split(".")[-2]: shape for name, shape in layout.items() if ".experts." in name}
    (rows, inner), (outer, _) = one["down_proj"], one["gate_proj"]
    assert experts["model.language_model.layers.47.mlp.experts.down_proj"] == [128, rows, inner]
    assert experts["model.language_model.layers.47.mlp.experts.gate_up_proj"] == [128, 2 * outer, one["up_proj"][1]]
    assert len(experts) == 48 * 2


def test_published_configs_are_read_from_where_the_table_of_sources_says() -> None:
    table = (zoo_published.DATA / "README.md").read_text()
    files = {file.relative_to(zoo_published.DATA).as_posix() for file in zoo_published.DATA.rglob("*.json")}
    assert set(zoo_published.FILES.values()) <= files
    assert {file for file in files if f"`{file}`" not in table} == set()
    assert sum(file.stat().st_size for file in zoo_published.DATA.rglob("*")) < 600_000


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_a_lost_weight_is_seen(family: str, load: Load, tmp_path: Path) -> None:
    """What the test above leans on: the report does name what is not there."""
    folder, _ = load(family)
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if "layers.1." in name and "attn" in name and name.endswith("o_proj.weight"))
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = zoo.native(family, tmp_path)
    assert len(again.loading["missing_keys"]) == 1


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_it_hears_and_says_different_things(family: str, load: Load) -> None:
    _, native = load(family)
    asked = [zoo.ask(zoo.wave(seconds, seed)) for seed, seconds in enumerate(SPOKEN)]
    asked += [zoo.ask(text) for text in TYPED]
    end, said = native.processor.tokenizer.eos_token_id, []
    for conversation in asked:
        inputs = native.inputs([conversation])
        with torch.no_grad():
            logits = native.model(**inputs).logits
            new = native.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        assert torch.isfinite(logits).all()
        tokens = new[0, inputs["input_ids"].shape[1] :].tolist()
        said.append(tuple(tokens[: tokens.index(end)] if end in tokens else tokens))
    assert len(set(said)) == len(asked)
    assert all(len(set(tokens)) > 2 for tokens in said), said


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_a_clip_takes_placeholders_and_text_takes_none(family: str, load: Load) -> None:
    _, native = load(family)
    one, both = (native.inputs([zoo.ask(*said)]) for said in ([zoo.wave(1.3)], [zoo.wave(1.3), "tell me"]))
    assert "input_features" in {name.removeprefix("audio_") for name in one}
    counts = [int((made["input_ids"] == native.audio_token_id).sum()) for made in (one, both)]
    assert counts[0] == counts[1] > 2
    assert both["input_ids"].shape[1] == one["input_ids"].shape[1] + 2
    assert not (native.inputs([zoo.ask("tell me")])["input_ids"] == native.audio_token_id).any()


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_the_same_bytes_twice(family: str, load: Load, tmp_path: Path) -> None:
    folder, _ = load(family)
    again, other = zoo.save(family, tmp_path / "again"), zoo.save(family, tmp_path / "other", seed=1)
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(again) for file in again.rglob("*") if file.is_file())
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in files)
    name = "model.safetensors"
    assert (folder / name).read_bytes() != (other / name).read_bytes()
    assert keys(folder) == keys(other)


@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen3_omni_moe"])
def test_omni_checkpoints_are_whole(family: str, load: Load) -> None:
    """Thinker, talker and vocoder in one file, under their names; only the thinker is loaded."""
    folder, native = load(family)
    heads = {name.split(".")[0] for name in keys(folder)}
    assert heads == {"thinker", "talker", "token2wav" if family == "qwen2_5_omni" else "code2wav"}
    assert {"thinker_config", "talker_config"} <= set(json.loads((folder / "config.json").read_text()))
    assert type(native.model).__name__.endswith("ThinkerForConditionalGeneration")


def test_phi4_has_adapters_that_loading_passes_by(load: Load, tmp_path: Path) -> None:
    folder, native = load("phi4_multimodal")
    assert "lm_head.weight" not in keys(folder)  # tied
    assert not [name for name, _ in native.model.named_parameters() if "lora" in name]
    inputs = native.inputs([zoo.ask("tell me")])
    model = transformers.Phi4MultimodalForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        before, logits = native.model(**inputs).logits, []
        for kind in ("speech", "vision"):  # PEFT reads them once their targets are named from the whole model
            settings = json.loads((folder / f"{kind}-lora" / "adapter_config.json").read_text())
            settings["target_modules"] = "model." + settings["target_modules"]
            (tmp_path / kind).mkdir()
            (tmp_path / kind / "adapter_config.json").write_text(json.dumps(settings))
            made = (folder / f"{kind}-lora" / "adapter_model.safetensors").read_bytes()
            (tmp_path / kind / "adapter_model.safetensors").write_bytes(made)
            adapted = PeftModel.from_pretrained(model, tmp_path / kind)
            logits.append(adapted.eval()(**inputs).logits)
            model = adapted.unload()
    assert len(load_file(tmp_path / "speech" / "adapter_model.safetensors")) == 2 * 4 * zoo_models.LAYERS
    assert all((one - two).abs().max() > 0.1 for one, two in itertools.combinations([before, *logits], 2))


def test_tekken_is_read_without_mistral_common(tmp_path: Path) -> None:
    """The hub's Voxtral: no tokenizer.json, no template, and control tokens in a rendered text are still tokens."""
    folder = zoo_tekken.save(tmp_path)
    names = {file.name for file in folder.iterdir()}
    assert "tekken.json" in names
    assert not names & {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    words = transformers.AutoTokenizer.from_pretrained(
        folder, mistral_format=False, pad_token="<pad>", eos_token="</s>", bos_token="<s>"
    )
    said = words.apply_chat_template(
        zoo.ask(zoo.wave(0.1), "tell me"), chat_template=TEMPLATES["voxtral"], tokenize=False
    )
    ids = words(said, add_special_tokens=False)["input_ids"]
    control = zoo_tekken.CONTROL.split()
    assert [control[i] for i in ids if i < len(control)] == [
        *("<s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[BEGIN_AUDIO]", "[AUDIO]", "[/INST]")
    ]
    assert words.decode([i for i in ids if i >= len(control)]) == "you are a helpful assistanttell me"
    _, loading = transformers.VoxtralForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (words.pad_token_id, words.eos_token_id) == (11, 2)


@pytest.mark.parametrize("version", ["v7", "v11"])
def test_voxtrals_own_processor_makes_what_its_stand_in_makes(version: str, tmp_path: Path) -> None:
    """Where mistral-common is installed: same ids by tekken.json, rendered text and stand-in, same sound."""
    pytest.importorskip("mistral_common")
    native = zoo.native("voxtral", zoo_tekken.save(tmp_path, version=version))
    words = transformers.AutoTokenizer.from_pretrained(tmp_path, mistral_format=False, pad_token="<pad>")
    stand_in = Assembled(native.processor.feature_extractor, words, TEMPLATES["voxtral"])
    system = zoo.ask()[0] if version == "v11" else None  # before it, no system text beside a clip
    for said in ([zoo.wave(0.3)], [zoo.wave(2.5), "please, tell me: how?"], ["wash the 12 boats\n\nfirst"]):
        conversation = [*([system] if system else []), *zoo.ask(*said, system=None)]
        own, ours = native.inputs([conversation]), stand_in.apply_chat_template([conversation])
        assert all(torch.equal(own[name], ours[name]) for name in own)
        assert own["input_ids"].shape[1] > 5


def test_voxtral_refuses_a_system_text_beside_a_clip(tmp_path: Path) -> None:
    pytest.importorskip("mistral_common")
    native = zoo.native("voxtral", zoo_tekken.save(tmp_path, version="v7"))
    with pytest.raises(ValueError, match="not allowed prior to the tokenizer version 13"):
        native.inputs([zoo.ask(zoo.wave(0.3))])
    assert native.inputs([zoo.ask("wash")])["input_ids"].shape[1] > 5


@pytest.mark.parametrize("family", ["qwen2_5_omni", "qwen3_omni_moe", "phi4_multimodal"])
def test_a_stand_in_without_pictures_makes_what_the_whole_makes(
    family: str, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision")
    folder, whole = load(family)
    assert whole.note == ""
    monkeypatch.setattr(zoo_native, "find_spec", lambda name: None)
    part = zoo.native(family, folder)
    assert part.note
    for said in ([zoo.wave(0.3)], [zoo.wave(2.5), "tell me"], ["wash the boat"]):
        own, ours = whole.inputs([zoo.ask(*said)]), part.inputs([zoo.ask(*said)])
        assert own.keys() == ours.keys()
        assert all(torch.equal(own[name], ours[name]) for name in own)
