"""`undersong models check`: every family passes by its small files and headers, and each damage has its own line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import instances
import pytest
import tiny_hub
import tiny_kimi
import torch
import yaml
from safetensors.torch import load_file, save_file

from undersong.models import tensor_match
from undersong.models.checkpoint_check import check_checkpoint
from undersong.models.families import AUDIO_FLAMINGO_3, FAMILIES, MINI
from undersong.models.kimi.network import SPEECH_TENSORS, KimiAudioConfig, KimiAudioForCausalLM
from undersong.models.refs import organism_folder
from undersong.models.tensor_match import match_tensors, weight_parts
from undersong.models.weight_conversion import convert_shapes
from undersong.models.weights import WeightPart
from undersong.types import UndersongError

SOURCE, DATA = Path(__file__).parents[2] / "src", Path(__file__).parent / "data"
LINES = [
    "family", "config", "tokenizer", "template", "prompt: audio", "prompt: text", "prompt: audio + text",
    "prompt: system + audio", "network", "placeholder", "stops", "feature extractor", "weights", "memory", "LoRA",
]  # fmt: skip
WEIGHTS = "model.safetensors"
Damage = Callable[[Path], None]


def failing(folder: Path) -> dict[str, str]:
    """Detail of every line that is not ok, by its name."""
    return {check.name: check.detail for check in check_checkpoint(str(folder)) if check.passed is not True}


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Audio Flamingo 3 to damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


@pytest.mark.parametrize("kind", instances.KINDS)
def test_every_family_passes(kind: str, tmp_path: Path) -> None:
    checks = list(check_checkpoint(str(instances.save(kind, tmp_path))))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    merged = ["speech-lora"] if kind == "phi4_multimodal" else []
    assert [check.name for check in checks] == [*LINES[:-2], *merged, *LINES[-2:]]
    details = {check.name: check.detail for check in checks}
    assert "Please repeat this sentence." in details["prompt: text"]
    assert "Answer in one word." in details["prompt: system + audio"]
    family = next(family for family in FAMILIES if kind in family.model_types)
    assert family.audio_token in details["prompt: audio"]
    assert family.audio_token not in details["prompt: text"]


@pytest.mark.parametrize("ref", ["organism:af3-unaligned", "organism:kimi"])
def test_packaged_models_pass(ref: str) -> None:
    assert all(check.passed for check in check_checkpoint(ref))


def test_the_guide_shows_what_it_prints() -> None:
    page = (SOURCE.parent / "docs" / "how-to" / "add-a-model.md").read_text()
    printed = [f"ok      {check.name}: {check.detail}" for check in check_checkpoint("organism:af3")]
    assert "```text\n" + "\n".join(printed) + "\n```" in page


def test_the_workflow_checks_every_published_checkpoint() -> None:
    workflow = yaml.safe_load((SOURCE.parent / ".github" / "workflows" / "models-check.yml").read_text())
    job = workflow["jobs"]["check"]
    assert job["strategy"]["matrix"]["model"] == [family.example for family in FAMILIES if family is not MINI]
    assert job["steps"][-1]["run"] == 'undersong models check "$MODEL"'


def test_a_damaged_overlay_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(organism_folder("af3-unaligned"), tmp_path / "overlay")
    file = folder / "overlay.safetensors"
    file.unlink()
    save_file({"extra": torch.zeros(1), "lm_head.weight": torch.zeros(2)}, file)
    monkeypatch.setattr("undersong.models.refs.organism_folder", lambda name: organism_folder("af3"))
    (line,) = failing(folder).values()
    assert "holds the unknown extra (1 such tensors); has another shape of lm_head.weight [2], not [" in line


def tensors(change: Callable[[dict[str, torch.Tensor]], object], file: str = WEIGHTS) -> Damage:
    def rewrite(folder: Path) -> None:
        weights = load_file(folder / file)
        change(weights)
        save_file(weights, folder / file, metadata={"format": "pt"})

    return rewrite


def settings(file: str, **values: object) -> Damage:
    def change(folder: Path) -> None:
        stored = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**stored, **values}))

    return change


def lose(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def extractor_of(organism: str, **values: object) -> Damage:
    """A change of the settings of an organism's feature extractor."""
    file = {"qwen": "preprocessor_config.json", "kimi": "whisper-large-v3/preprocessor_config.json"}.get(organism)
    return settings(file, **values) if file else extractor(**values)


def shard(folder: Path) -> None:
    """Lay the weights out in two shards with an index, as large checkpoints are."""
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def lose_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def lead_elsewhere(folder: Path) -> None:
    shard(folder)
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))


def truncate(length: int) -> Damage:
    def cut(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:length])

    return cut


def extractor(**values: object) -> Damage:
    def change(folder: Path) -> None:
        file = folder / "processor_config.json"
        stored = json.loads(file.read_text())
        stored["feature_extractor"].update(values)
        file.write_text(json.dumps(stored))

    return change


def no_activation(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"hidden_act": "silu"', '"hidden_act": "shout"'))


HEAD = "language_model.lm_head.weight"
NO_SYSTEM = (
    "{% for m in messages if m.role != 'system' %}{% for c in m.content %}{{ c.text or '<sound>' }}{% endfor %}"
    "{% endfor %}"
)
DAMAGES: dict[str, tuple[Damage, dict[str, str]]] = {
    "a tensor missing": (tensors(lambda w: w.pop(HEAD)), {"weights": "lacks lm_head.weight (1 such tensors)"}),
    "a tensor too many": (
        tensors(lambda w: w.update({f"x{i}": torch.zeros(1) for i in range(5)})),
        {"weights": "holds the unknown x0, x1, x2, … (5 such tensors)"},
    ),
    "another shape": (
        tensors(lambda w: w.update({HEAD: torch.zeros(2, 3)})),
        {"weights": "has another shape of lm_head.weight [2, 3], not [30, 32] (1 such tensors)"},
    ),
    "no weights": (lose(WEIGHTS), {"weights": "neither model.safetensors nor model.safetensors.index.json"}),
    "a shard missing": (lose_shard, {"weights": "model-00002-of-00002.safetensors is missing in"}),
    "an index that leads elsewhere": (lead_elsewhere, {"weights": "it names '../other.safetensors' as a shard"}),
    "a header cut off": (truncate(100), {"weights": "model.safetensors of"}),
    "weights cut off": (truncate(20_000), {"weights": "model.safetensors of"}),
    "no template": (lose("chat_template.jinja"), {"template": "has no chat template"}),
    "a template without a system text": (
        lambda folder: (folder / "chat_template.jinja").write_text(NO_SYSTEM) and None,
        {"prompt: system + audio": "leaves out 'Answer in one word.'"},
    ),
    "a template without audio": (
        lambda folder: (folder / "chat_template.jinja").write_text(NO_SYSTEM.replace("<sound>", "")) and None,
        {
            "prompt: audio": "writes 0 placeholders",
            "prompt: audio + text": "writes 0 placeholders",
            "prompt: system + audio": "leaves out",
        },
    ),
    "other stops": (
        settings("generation_config.json", eos_token_id=[7]),
        {"stops": "ends with <im_end> (2), and generation_config.json of"},
    ),
    "a damaged generation config": (
        lambda folder: (folder / "generation_config.json").write_text("[]") and None,
        {"stops": "generation_config.json of"},
    ),
    "no tokenizer": (lose("tokenizer.json"), {"tokenizer": "there is none of tokenizer.json, tekken.json, "}),
    "no feature extractor": (
        lose("processor_config.json"),
        {"feature extractor": "there is neither processor_config.json nor preprocessor_config.json"},
    ),
    "a hop of no samples": (
        extractor(hop_length=-0.0),
        {"feature extractor": "has the hop_length -0.0, which is no positive number"},
    ),
    "other mel bands": (
        extractor(feature_size=8),
        {"feature extractor": "makes 8 mel bands, and the audio encoder takes 16"},
    ),
    "another placeholder": (settings("config.json", audio_token_id=9), {"placeholder": "the network looks for 9"}),
    "a dtype that is none": (settings("config.json", dtype=True), {}),
    "a config of no network": (no_activation, {"network": "makes no Audio Flamingo 3"}),
}


def overwrite(file: str, text: str) -> Damage:
    return lambda folder: (folder / file).write_text(text) and None


NETWORK_LINES = {"network", "placeholder", "stops", "weights", "memory", "LoRA"}
TOKENIZER_LINES = {"template", "placeholder", "stops", *(name for name in LINES if name.startswith("prompt"))}
NO_OBJECT = ", not a JSON object; copy it again from the model's release."
ORGANISM_DAMAGES: dict[str, tuple[str, Damage, dict[str, str], set[str]]] = {
    **{
        f"{organism}: {key} {value!r}": (
            organism, extractor_of(organism, **{key: value}),
            {"feature extractor": f"has the {key} {value!r}, which is no positive number"}, set(),
        )
        for organism in ("af3", "qwen", "kimi")
        for key, value in (
            ("chunk_length", -1), ("chunk_length", 0), ("chunk_length", "2"), ("hop_length", 0), ("sampling_rate", -1),
            ("feature_size", -1), ("n_fft", -1),
        )
    },
    "a window that is no whole number": (
        "af3", extractor_of("af3", chunk_length=0.5),
        {"feature extractor": "cannot take a tone of 1 s (a value has the wrong type)"}, set(),
    ),
    **{
        f"af3: {key} {value!r}": (
            "af3", settings("config.json", **{key: value}), {"config": expected},
            {"tokenizer"} | NETWORK_LINES | TOKENIZER_LINES,
        )
        for key, value, expected in (
            ("text_config", 3, "config.json of {} makes no Audio Flamingo 3 (the text_config 3 does not fit); copy it"),
            ("audio_token_id", "3", "config.json of {} makes no Audio Flamingo 3 (the audio_token_id '3' does not"),
            ("dtype", "bogus", "config.json of {} has the dtype 'bogus', which torch does not have; write float32"),
        )
    },
    "kimi: a placeholder in words": (
        "kimi", settings("config.json", kimia_token_offset="91"),
        {"config": "config.json of {} has the kimia_token_offset '91', which is no token id"}, NETWORK_LINES,
    ),
    **{
        f"af3: {file} {text!r}": ("af3", overwrite(file, text), {line: f"{file} of {{}} {content}"}, unchecked)
        for file, line, unchecked in (
            ("tokenizer.json", "tokenizer", TOKENIZER_LINES),
            ("tokenizer_config.json", "tokenizer", TOKENIZER_LINES),
            ("processor_config.json", "feature extractor", set()),
            ("generation_config.json", "stops", set()),
        )
        for text, content in (
            ("null", f"holds null{NO_OBJECT}"), ("[]", f"holds a list{NO_OBJECT}"), ("3", f"holds a number{NO_OBJECT}"),
            ("", "is empty; copy it again"), ("{", "is not JSON (Expecting property name enclosed in double quotes"),
        )
    },
    "af3: an empty processor config": (
        "af3", overwrite("processor_config.json", "{}"),
        {"feature extractor": "processor_config.json of {} describes no feature extractor; copy it again"}, set(),
    ),
    "af3: an empty tokenizer": (
        "af3", overwrite("tokenizer.json", "{}"),
        {"tokenizer": "loaded from tokenizer.json and tokenizer_config.json (the name 'added_tokens' is missing"},
        TOKENIZER_LINES,
    ),
    "af3: a tokenizer config with a number for its tokens": (
        "af3", settings("tokenizer_config.json", added_tokens_decoder=3),
        {"tokenizer": "loaded from tokenizer.json and tokenizer_config.json (a value has the wrong type); give"},
        TOKENIZER_LINES,
    ),
    "af3: an extractor of no class": (
        "af3", extractor_of("af3", feature_extractor_type="zz"),
        {"feature extractor": "(Unrecognized feature extractor in {}); give"}, set(),
    ),
    "af3: no tokenizer config": (
        "af3", lose("tokenizer_config.json"),
        {"placeholder": "has ids from 0 to 86, that is 87, and the network has 86 embeddings", "stops": "A turn of"},
        set(),
    ),
    "kimi: no extractor": (
        "kimi", lose("whisper-large-v3/preprocessor_config.json"),
        {"feature extractor": "(there is no whisper-large-v3/preprocessor_config.json)"}, set(),
    ),
    **{
        f"kimi: {file} {text}": (
            "kimi", overwrite(file, text), {"network": content + NO_OBJECT}, NETWORK_LINES - {"network"}
        )
        for file, text, content in (
            ("glm-4-voice-tokenizer/config.json", "[]", "config.json of {}/glm-4-voice-tokenizer holds a list"),
            ("whisper-large-v3/config.json", "null", "whisper-large-v3/config.json of {} holds null"),
        )
    },
}  # fmt: skip
LIBRARY_TEXT = re.compile(r"https?:|NoneType|<class|object has no|argument of type|unsupported operand|\*\*")


@pytest.mark.parametrize("damage", ORGANISM_DAMAGES)
def test_a_damaged_organism_has_one_line_for_each_fault(damage: str, tmp_path: Path) -> None:
    name, change, expected, unchecked = ORGANISM_DAMAGES[damage]
    folder = shutil.copytree(organism_folder(name), tmp_path / "model")
    change(folder)
    checks = list(check_checkpoint(str(folder)))
    failed = {check.name: check.detail for check in checks if check.passed is False}
    assert failed.keys() == expected.keys(), failed
    assert all(text.format(folder) in failed[line] for line, text in expected.items()), failed
    assert not any(LIBRARY_TEXT.search(detail) for detail in failed.values()), failed
    skipped = {check.name: check.detail for check in checks if check.passed is None}
    assert skipped.keys() == unchecked
    assert all(re.fullmatch("not checked, because the [a-z]+ could not be loaded", text) for text in skipped.values())


def test_the_model_type_that_an_architecture_needs_is_named(tmp_path: Path) -> None:
    """For every family but Kimi-Audio, whose published config has none."""
    for family in FAMILIES:
        config = {"architectures": [family.model_class.rpartition(":")[2]]}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(UndersongError, match=r"config.json of .* has no model_type; add") as caught:
            list(check_checkpoint(str(tmp_path)))
        assert any(f'add "model_type": "{name}", which belongs' in str(caught.value) for name in family.model_types)
        assert "belongs to no family" not in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_found_by_its_own_line(folder: Path, damage: str) -> None:
    change, expected = DAMAGES[damage]
    change(folder)
    lines = failing(folder)
    dependent = {name: detail for name, detail in lines.items() if detail.startswith("not checked, because")}
    found = {name: detail for name, detail in lines.items() if name not in dependent}
    assert found.keys() == expected.keys()
    assert all(text in found[name] for name, text in expected.items()), found
    assert bool(dependent) == (damage in ("no template", "no tokenizer", "a config of no network"))


def test_shards_are_read_through_their_index(folder: Path) -> None:
    shard(folder)
    assert failing(folder) == {}


def test_an_expert_of_another_shape_is_named(tmp_path: Path) -> None:
    """transformers cannot merge such experts, and names none of them."""
    folder = instances.save("qwen3_omni_moe", tmp_path)
    name = "thinker.model.layers.1.mlp.experts.2.up_proj.weight"
    tensors(lambda weights: weights.update({name: torch.zeros(3, 3)}))(folder)
    assert f"has another shape of {name} [3, 3], not [" in failing(folder)["weights"]


EXPERT = "thinker.model.layers.1.mlp.experts.{}.{}_proj.weight"


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ([EXPERT.format(1, "up")], f"lacks {EXPERT.format(1, 'up')} (1 such tensors)"),
        ([EXPERT.format(3, "gate")], f"lacks {EXPERT.format(3, 'gate')} (1 such tensors)"),
        (
            [EXPERT.format(0, name) for name in ("gate", "up")],
            f"lacks {EXPERT.format(0, 'gate')}, {EXPERT.format(0, 'up')} (2",
        ),
        ([EXPERT.format(3, "down")], "has another shape of model.language_model.layers.1.mlp.experts.down_proj [3, "),
        ([EXPERT.format(i, "up") for i in range(4)], "lacks model.language_model.layers.1.mlp.experts.*.up_proj"),
        ([EXPERT.format(i, "down") for i in range(4)], "lacks model.language_model.layers.1.mlp.experts.down_proj (1"),
    ],
)
def test_lost_experts_are_found(lost: list[str], expected: str, tmp_path: Path) -> None:
    folder = instances.save("qwen3_omni_moe", tmp_path)
    tensors(lambda weights: [weights.pop(name) for name in lost])(folder)
    assert expected in failing(folder)["weights"]


def test_what_speech_output_needs_may_be_there(tmp_path: Path) -> None:
    """The whole Omni models are published, and only the thinker is loaded."""
    for kind, names in {"qwen2_5_omni": ("talker.", "token2wav."), "qwen3_omni_moe": ("talker.", "code2wav.")}.items():
        folder = instances.save(kind, tmp_path / kind)
        speech = {f"{name}model.layers.0.mlp.experts.0.up_proj.weight": torch.zeros(2, 2) for name in names}
        tensors(lambda weights, speech=speech: weights.update(speech))(folder)
        assert failing(folder) == {}
        tensors(lambda weights: weights.update({"talking.weight": torch.zeros(1)}))(folder)
        assert "holds the unknown talking.weight (1 such tensors)" in failing(folder)["weights"]


def test_two_tensors_for_one_place_are_found(folder: Path) -> None:
    tensors(lambda weights: weights.update({"lm_head.weight": weights[HEAD].clone()}))(folder)
    assert re.search(r"holds the unknown (language_model\.)?lm_head\.weight \(1 such", failing(folder)["weights"])


def test_a_published_adapter_that_does_not_fit_is_found(tmp_path: Path) -> None:
    folder = instances.save("phi4_multimodal", tmp_path)
    file = "speech-lora/adapter_model.safetensors"
    key = next(key for key in load_file(folder / file) if "lora_A" in key)
    tensors(lambda weights: weights.update({key: torch.zeros(4, 3)}), file)(folder)
    assert "speech-lora/adapter_model.safetensors of" in failing(folder)["speech-lora"]
    (folder / file).unlink()
    assert "speech-lora/adapter_model.safetensors is missing" in failing(folder)["speech-lora"]


def test_kimis_parts_are_named_by_their_place(tmp_path: Path) -> None:
    folder = tiny_kimi.save(tmp_path)
    for part in ("whisper-large-v3", "glm-4-voice-tokenizer"):
        file = f"{part}/{WEIGHTS}"
        tensors(lambda weights: weights.pop("model.encoder.conv1.weight"), file)(folder)
    assert "lacks audio_tokenizer.conv1" in (line := failing(folder)["weights"])
    assert "audio_tower.conv1.weight (2 such tensors)" in line


def test_kimis_published_shards_fill_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """At full size, by the names and shapes of the release: 20 GB that nobody allocates."""
    published = json.loads((DATA / "kimi_layout.json").read_text())
    config = KimiAudioConfig(**json.loads((DATA / "kimi_config.json").read_text()))
    monkeypatch.setattr(tensor_match, "read_shapes", lambda *_: {name: tuple(s) for name, s in published.items()})
    part = WeightPart(KimiAudioForCausalLM, config, "release", {}, unused=SPEECH_TENSORS)
    assert not (mismatches := match_tensors([part], "release")), mismatches.describe()
    assert mismatches.total == len(published) == 453
    del published["model.layers.3.mlp.up_proj.weight"]
    assert match_tensors([part], "release").describe() == "lacks model.layers.3.mlp.up_proj.weight (1 such tensors)"


def test_no_weight_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is one of the meta device, and transformers loads nothing into it."""
    (part,) = weight_parts(folder, str(folder), AUDIO_FLAMINGO_3, {})
    networks: list[torch.nn.Module] = []

    def convert(network: torch.nn.Module, *arguments: object) -> object:
        networks.append(network)
        return convert_shapes(network, *arguments)

    monkeypatch.setattr(part.network_class, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr(tensor_match, "convert_shapes", convert)
    assert not match_tensors([part], str(folder))
    assert {tensor.device.type for tensor in (*networks[0].parameters(), *networks[0].buffers())} == {"meta"}


UNKNOWN = {
    "no config": ({}, "has no config.json; give the folder of a complete checkpoint."),
    "null": ("null", "config.json of {} holds null, not a JSON object; copy it again"),
    "a list": ("[]", "config.json of {} holds a list, not a JSON object; copy it again"),
    "nothing": (" ", "config.json of {} is empty; copy it again from the model's release."),
    "no names": ("{}", "config.json of {} has no model_type; give a model of Audio Flamingo 3"),
    "an unknown family": ({"model_type": "voxtrall"}, "the nearest family here is Voxtral (model_type voxtral)"),
    "an unknown architecture": (
        {"architectures": ["Qwen2AudioForCausalLM"]},
        "(its architecture 'Qwen2AudioForCausalLM' belongs to no family here); the nearest family here is Qwen2-Audio",
    ),
    "code of its own": (
        {"auto_map": {"AutoModel": "evil.M"}},
        "(it names code of its own (auto_map), which is never run); give a model of Audio Flamingo 3, ",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_checkpoint_of_no_family_has_no_line(case: str, folder: Path) -> None:
    config, expected = UNKNOWN[case]
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text) if config else (folder / "config.json").unlink()
    with pytest.raises(UndersongError) as caught:
        list(check_checkpoint(str(folder)))
    assert expected.replace("{}", str(folder)) in str(caught.value)
    assert "config.json" in str(caught.value)
    assert str(folder) in str(caught.value)


KIMI, TOKENIZER, FLAMINGO = "moonshotai/Kimi-Audio-7B-Instruct", "zai-org/glm-4-voice-tokenizer", "nvidia/flamingo"
HEADER_REQUEST = 100_001  # bytes that huggingface_hub requests of every file for its header
SCRIPT = f"""
import os, sys
import huggingface_hub.constants as constants
from undersong.cli import main

def check(name):
    sys.argv = ["undersong", "models", "check", name, "--json"]
    try:
        main()
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    print(f"exit {{name}} {{code}}", flush=True)

check({KIMI!r})
check({FLAMINGO!r})
constants.HF_HUB_OFFLINE = True
os.environ["HF_HUB_OFFLINE"] = "1"
check({KIMI!r})
"""


def test_a_hub_sends_headers_and_no_weights(folder: Path, tmp_path: Path) -> None:
    """Kimi-Audio with its second repository, a sharded checkpoint; and then without a network."""
    kimi = tiny_kimi.save(tmp_path / "kimi")
    shutil.move(kimi / "glm-4-voice-tokenizer", tmp_path / "tokenizer")
    tensors(lambda weights: weights.pop("lm_head.weight"))(kimi)
    shard(folder)
    for file in (kimi / WEIGHTS, *folder.glob("*.safetensors")):
        with file.open("ab") as stream:  # the weights of a large model: bytes that nobody may ask for
            stream.write(bytes(10**6))
    repositories = {KIMI: kimi, TOKENIZER: tmp_path / "tokenizer", FLAMINGO: folder}
    with tiny_hub.serve(repositories) as hub:
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=1800
        )
    assert done.returncode == 0, done.stderr
    texts = done.stdout.split("exit ")
    reports = [json.loads(text[text.index("[\n") :]) for text in texts[:-1]]
    statuses = [{line["name"]: line["status"] for line in report if line["status"] != "ok"} for report in reports]
    assert statuses == [{"weights": "FAIL"}, {}, {"weights": "unknown"}], done.stdout
    codes = [text.split()[:2] for text in texts[1:]]
    assert codes == [[KIMI, "1"], [FLAMINGO, "0"], [KIMI, "1"]]
    assert "lacks lm_head.weight (1 such tensors)" in next(x["detail"] for x in reports[0] if x["name"] == "weights")
    sent = {name: count for name, count in hub.sent.items() if name.endswith(".safetensors")}
    assert len(sent) == 5
    assert max(sent.values()) <= HEADER_REQUEST
    assert not list((tmp_path / "home").rglob("*.safetensors"))
