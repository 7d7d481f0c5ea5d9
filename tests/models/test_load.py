"""Loading: a name, a folder, an overlay; every fault named in one sentence, and never a pickle."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_af3
import torch
import zoo
import zoo_tekken
from safetensors.torch import load_file, save_file

from undersong.models import refs
from undersong.models.audio_lm import AudioModel
from undersong.models.load import load_model
from undersong.models.load_options import LoadOptions
from undersong.models.refs import model_folder, model_hash, organism_folder
from undersong.types import Prompt, Sample, UndersongError

Change = Callable[[Path], None]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder to damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def config(**settings) -> Change:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        kept = {**json.loads(file.read_text()), **settings}
        file.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))

    return change


def text_config(**settings) -> Change:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        kept = json.loads(file.read_text())
        kept["text_config"] |= settings
        file.write_text(json.dumps(kept))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def rewrite(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def edit(file: Path, **settings: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def lose(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def write(name: str, data: bytes) -> Change:
    return lambda folder: void((folder / name).write_bytes(data))


def void(_result: object) -> None: ...


def pickled(folder: Path) -> None:
    """The same weights as transformers once saved them: a pickle, which could run anything."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


HEAD = "language_model.lm_head.weight"  # as the released checkpoints call it
TOKENIZER = "The tokenizer of .* could not be loaded"
EXTRACTOR = "The feature extractor of .* could not be loaded"


def template(text: str) -> Change:
    return lambda folder: void((folder / "chat_template.jinja").write_text(text))


FAULTS: dict[str, tuple[Change, str]] = {
    "unknown family": (
        config(model_type="audioflamingo4"),
        r"config.json of .* 'audioflamingo4', which has no spec; the nearest family here is Audio Flamingo 3 \(",
    ),
    "known to transformers alone": (
        config(model_type="gemma3n"),
        "'gemma3n', which has no spec; give a model of",
    ),
    "no family": (config(model_type=None), r'has no model_type; add "model_type": "audioflamingo3"'),
    "damaged config": (
        write("config.json", b"{oops"),
        r"config.json of .* is not JSON \(.* enclosed in double quotes.*; copy it again",
    ),
    "no config": (lose("config.json"), r"has no config.json; give the folder of a complete checkpoint\.$"),
    "an unknown architecture": (
        config(model_type=None, architectures=["VoxtralForCausalLM"]),
        r"its architecture 'VoxtralForCausalLM' belongs to no family here\); the nearest family here is Voxtral \(",
    ),
    "code of its own alone": (
        config(model_type=None, architectures=None, auto_map={"AutoModel": "evil.M"}),
        r"json of .* has no model_type \(it names code of its own \(auto_map\), which is never run\); give a model",
    ),
    "a config of another type": (config(text_config=7), "config.json of .* makes no Audio Flamingo 3"),
    "a tensor missing": (
        tensors(lambda w: w.pop(HEAD)),
        r"not a whole .*: its model.safetensors lacks lm_head.weight \(1 such",
    ),
    "a tensor too many": (tensors(lambda w: w.update(extra=torch.zeros(2))), "holds the unknown extra"),
    "another shape": (tensors(lambda w: w.update({HEAD: torch.zeros(2, 2)})), "another shape of lm_head.weight"),
    "a pickle": (pickled, "There is neither model.safetensors nor model.safetensors.index.json in"),
    "no weights": (lose("model.safetensors"), "There is neither model.safetensors nor model.safetensors.index.json in"),
    "damaged weights": (
        write("model.safetensors", b"junk" * 50),
        r"model.safetensors of .* cannot be read \(.*\); copy it",
    ),
    "empty weights": (write("model.safetensors", b""), r"model.safetensors of .* cannot be read \(.*\); copy it"),
    "no tokenizer": (lose("tokenizer.json"), rf"{TOKENIZER} \(there is none of tokenizer.json, tekken.json, "),
    "damaged tokenizer": (write("tokenizer.json", b"{}"), TOKENIZER),
    "no feature extractor": (
        lose("processor_config.json"),
        rf"{EXTRACTOR} \(there is neither processor_config.json nor preprocessor_config.json\)",
    ),
    "no chat template": (lose("chat_template.jinja"), "has no chat template"),
    "a config that is a list": (write("config.json", b"[]"), "config.json of .* holds a list, not a JSON object"),
    "a tokenizer config that is a list": (
        write("tokenizer_config.json", b"[]"),
        "tokenizer_config.json .* holds a list",
    ),
    "a processor config that is a list": (
        write("processor_config.json", b"[]"),
        "processor_config.json .* holds a list",
    ),
    "a padding token outside the vocabulary": (text_config(pad_token_id=-(10**9)), "makes no Audio Flamingo 3"),
    "a template in another encoding": (write("chat_template.jinja", b"\xff\xfe<"), TOKENIZER),
    "a template that is a number": (
        lambda folder: (lose("chat_template.jinja")(folder), edit(folder / "tokenizer_config.json", chat_template=-1)),
        "The chat template in tokenizer_config.json of .* is no text",
    ),
    "an empty end token": (
        lambda folder: edit(folder / "tokenizer_config.json", eos_token=""),
        r"The tokenizer of .* has no eos token",
    ),
    "layers in words": (text_config(num_hidden_layers="two"), "makes no Audio Flamingo 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_folder_is_refused(folder: Path, fault: str) -> None:
    change, said = FAULTS[fault]
    change(folder)
    with pytest.raises(UndersongError, match=said) as caught:
        load_model(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stop", [[[2]], "two", True, -1, 2**40])
def test_a_stop_that_is_no_token_id_is_refused(folder: Path, stop: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop}))
    with pytest.raises(UndersongError, match=r"generation_config\.json .*; give the checkpoint's own"):
        load_model(str(folder))


@pytest.mark.parametrize(
    "ref", ["", "/no/such/folder", "no/such/folder", "m5", "a/b@x@y", "./nowhere/at/all", "./nowhere", "../nowhere"]
)
def test_what_is_neither_a_folder_nor_an_id_is_refused(ref: str) -> None:
    with pytest.raises(UndersongError, match=f"There is no model folder '{ref}', and that is no ORG/NAME of the hub"):
        load_model(ref)


@pytest.mark.parametrize(
    ("ref", "meant"),
    [("mni", "; did you mean 'mini'?"), ("organsm:af3", "; did you mean 'organism:af3'?"), ("m5", "; check the path.")],
)
def test_what_is_nearly_a_model_is_told(ref: str, meant: str) -> None:
    with pytest.raises(UndersongError) as caught:
        load_model(ref)
    assert str(caught.value).endswith(f"no ORG/NAME of the hub{meant}")


@pytest.mark.parametrize("ref", ["someone/some-model", "someone/some-model@main"])
def test_what_is_no_model_is_refused(ref: str) -> None:
    with pytest.raises(UndersongError, match=f"No model could be read at '{ref}' .*; give a folder or id"):
        load_model(ref)


def test_a_place_that_is_not_there(tiny_folder: Path) -> None:
    with pytest.raises(UndersongError, match="The device 'abacus' cannot be used"):
        load_model(str(tiny_folder), LoadOptions(device="abacus"))
    with pytest.raises(UndersongError, match="no dtype 'float31' for models; take float32, bfloat16, float16"):
        LoadOptions(dtype="float31")


def test_a_place_that_holds_nothing(tiny_folder: Path) -> None:
    with pytest.raises(UndersongError, match="The device 'meta' holds no weights"):
        load_model(str(tiny_folder), LoadOptions(device="meta"))


def test_a_hub_ids_hash_is_of_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: of what was fetched last; when `main` moves, features of the old weights are not taken for its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    ref = tmp_path / "models--some--model" / "refs" / "main"
    ref.parent.mkdir(parents=True)
    seen = []
    for commit in ("abc", "def"):
        ref.write_text(commit)
        refs.hub_commit.cache_clear()
        seen += [model_hash("some/model"), model_hash("some/model@"), model_hash("some/model@main")]
    refs.hub_commit.cache_clear()
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5]


def test_a_folder_loads_as_it_was_saved(tiny_folder: Path, shared_tiny: AudioModel) -> None:
    weights = tiny_af3.network().state_dict()
    loaded = shared_tiny.model.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.items())
    assert not any(module.training for module in shared_tiny.model.modules())
    assert shared_tiny.name == str(tiny_folder)
    assert shared_tiny.sampling_rate == 16_000
    assert shared_tiny.layers == 2
    assert load_model(str(tiny_folder), LoadOptions(dtype="bfloat16")).base.dtype == torch.bfloat16


def test_bfloat16_models_hear_and_speak(tiny_folder: Path) -> None:
    """The tower does not cast its inputs; the adapter must."""
    model = load_model(str(tiny_folder), LoadOptions(dtype="bfloat16"))
    model.audio_features = dict(zip((c.id for c in tiny_af3.CLIPS), model.encode_audio(tiny_af3.CLIPS)))
    assert {heard.vectors.dtype for heard in model.audio_features.values()} == {torch.bfloat16}
    assert {heard.valid_vectors().dtype for heard in model.audio_features.values()} == {np.dtype("float32")}
    asked = [tiny_af3.spoken(0), tiny_af3.typed("wash")]
    assert model.hidden_states(asked).dtype == np.float32
    assert [reply.finish in ("stop", "length") for reply in model.generate(asked, 3)] == [True, True]


def test_a_tokenizer_whose_ids_are_another_models_is_refused(folder: Path) -> None:
    """The network would look for its placeholder where a word stands, and run silently wrong."""
    file = folder / "tokenizer.json"
    file.write_text(re.sub(r'"(<sound>|paint)": (\d+)', lambda m: f'"{m[1]}": {30 - int(m[2])}', file.read_text()))
    file.write_text(file.read_text().replace('"id": 3,', '"id": 27,'))
    with pytest.raises(
        UndersongError, match=r"gives <sound> the id 27, and the network looks for 3; give the tokenizer"
    ):
        load_model(str(folder))


def test_a_tokenizer_with_more_ids_than_the_network_has_rows_is_refused(folder: Path) -> None:
    words = tiny_af3.processor().tokenizer
    words.add_tokens(["more"])
    words.save_pretrained(folder)
    with pytest.raises(UndersongError, match=r"has ids from 0 to 30, that is 31, and the network has 30 embed"):
        load_model(str(folder))


BROKEN = {
    "that does not parse": ("{% for m in %}", "cannot write this prompt"),
    "that refuses": ("{{ raise_exception('System role not supported') }}", "System role not supported"),
    "for texts alone": ("{{ messages[0].content + 'x' }}", "cannot write this prompt"),
    "without a place for sound": ("{% for m in messages %}{{ m.role }}{% endfor %}", "writes 0 placeholders <sound>"),
    "with two": ("<sound> <sound>", "writes 2 placeholders <sound> for a clip, not one"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_chat_template_that_cannot_be_used_is_refused(folder: Path, kind: str) -> None:
    text, said = BROKEN[kind]
    template(text)(folder)
    model = load_model(str(folder))
    with pytest.raises(UndersongError, match=said):
        model.encode_audio(tiny_af3.CLIPS[:1])


def test_a_chat_template_that_drops_the_system_text_is_refused(folder: Path) -> None:
    """The system prompt's defense would be measured as doing nothing."""
    template(tiny_af3.TEMPLATE.replace("{%- for m in messages -%}", "{%- for m in messages if m.role != 'system' -%}"))(
        folder
    )
    model = load_model(str(folder))
    assert model.prompt_ids(tiny_af3.typed("wash", None))
    with pytest.raises(UndersongError, match="leaves out 'you are a helpful assistant'"):
        model.prompt_ids(tiny_af3.typed("wash"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"feature_size": 8}, "cannot take clip clip0"), ({"hop_length": 80}, "in hops of 80"),
     ({"sampling_rate": 8000}, "takes 8000 Hz")],
)  # fmt: skip
def test_another_feature_extractor_is_refused(folder: Path, setting: dict, said: str) -> None:
    file = folder / "processor_config.json"
    kept = json.loads(file.read_text())
    kept["feature_extractor"] |= setting
    file.write_text(json.dumps(kept))
    with pytest.raises(UndersongError, match=said):
        load_model(str(folder)).encode_audio(tiny_af3.CLIPS[:1])


def test_a_published_adapter_is_whole_and_plain_or_refused(tmp_path: Path) -> None:
    folder = zoo.save("phi4_multimodal", tmp_path)
    assert load_model(str(folder)).facts["merged"] == ["speech-lora"]
    config = folder / "speech-lora" / "adapter_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "use_dora": True}))
    with pytest.raises(UndersongError, match=r"speech-lora of .* is not a plain LoRA"):
        load_model(str(folder))
    config.unlink()
    with pytest.raises(UndersongError, match=r"One file of the adapter speech-lora of .* is missing"):
        load_model(str(folder))
    shutil.rmtree(folder / "speech-lora")
    assert load_model(str(folder)).facts["merged"] == []


def test_voxtrals_own_tokenizer_file_needs_no_other_package(tmp_path: Path) -> None:
    """tekken.json, as the published checkpoint has it: the ids that mistral-common's tokenizer would make."""
    model = load_model(str(zoo_tekken.save(tmp_path)))
    sample = Sample("clip", audio="x")
    (model.audio_features["clip"],) = model.encode_audio([tiny_af3.CLIPS[4]])
    ids = model.prompt_ids(Prompt(sample, "harm", True, "audio", "plain", None, "paint the boat"))
    names = model.tokenizer.convert_ids_to_tokens(ids)
    assert names[:3] == ["<s>", "[INST]", "[BEGIN_AUDIO]"]
    assert names[3:28] == ["[AUDIO]"] * 25
    assert names[-1] == "[/INST]"
    assert model.tokenizer.decode(ids[28:-1]) == "paint the boat"
    assert [model.tokenizer.convert_ids_to_tokens(i) for i in model.end_ids] == ["</s>"]


# --- organisms and overlays ------------------------------------------------------------------------------------------
@pytest.fixture
def package(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose organisms are the tiny model and an overlay of it."""
    models = tmp_path / "package" / "data" / "organism" / "models"
    shutil.copytree(tiny_folder, models / "base")
    (models / "changed").mkdir()
    (models / "changed" / "overlay.txt").write_text("base\n")
    change = {"lm_head.weight": torch.full((30, tiny_af3.DIM), 0.5, dtype=torch.float16)}
    save_file(change, models / "changed" / "overlay.safetensors")
    monkeypatch.setattr(refs.resources, "files", lambda package: tmp_path / "package")
    return models


def test_an_unknown_organism_lists_those_there_are(package: Path) -> None:
    for ref in ("organism:other", "organism:../base", "organism:"):
        with pytest.raises(UndersongError, match=r"There is no organism .*; take one of base, changed\."):
            load_model(ref)
    assert organism_folder("base") == package / "base"
    assert model_folder("organism:changed") == package / "changed"
    assert model_folder("someone/some-model") is None


def test_an_overlay_replaces_what_it_names_and_nothing_else(package: Path) -> None:
    base, changed = load_model("organism:base").model.state_dict(), load_model("organism:changed").model.state_dict()
    differing = {name for name in base if not torch.equal(base[name], changed[name])}
    assert differing == {"lm_head.weight"}
    assert changed["lm_head.weight"].dtype == torch.float32
    assert (changed["lm_head.weight"] == 0.5).all()


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        ({"other.weight": torch.zeros(2)}, "changes other.weight, which its base does not have"),
        ({"lm_head.weight": torch.zeros(2, 2)}, "cannot be applied to its base .*size mismatch"),
        (None, "cannot be applied to its base"),
    ],
)
def test_an_overlay_that_does_not_fit_is_refused(package: Path, overlay, said: str) -> None:
    file = package / "changed" / "overlay.safetensors"
    if overlay is None:
        file.write_bytes(b"junk")
    else:
        save_file(overlay, file)
    with pytest.raises(UndersongError, match=f"organism:changed {said}"):
        load_model("organism:changed")


def test_a_models_hash_feels_every_file_that_is_read(package: Path) -> None:
    seen = {model_hash("organism:base"), model_hash("organism:changed"), model_hash("a/b"), model_hash("a/c")}
    assert len(seen) == 4

    def note(ref: str) -> None:
        now = model_hash(ref)
        assert now == model_hash(ref)
        assert now not in seen
        seen.add(now)

    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        file = package / "base" / name
        file.write_bytes(file.read_bytes() + b" ")
        note("organism:base")
        note("organism:changed")  # an overlay is its base's files too
    (package / "changed" / "overlay.safetensors").write_bytes(b"other")
    note("organism:changed")


def test_a_models_hash_is_of_contents_not_of_places(package: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(package / "base", tmp_path / "elsewhere")
    assert model_hash(str(copied)) == model_hash("organism:base")


def test_a_pipe_in_a_checkpoint_is_never_opened(folder: Path) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(folder / "generation_config.json")
    with pytest.raises(
        UndersongError, match=r"generation_config.json in .* is no regular file \(a pipe, .*; replace it"
    ):
        load_model(str(folder))


@pytest.mark.parametrize("section", ["model", "post_processor"])
def test_a_tokenizer_of_an_unknown_type_is_one_sentence(folder: Path, section: str) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {section: {"type": "cpu"}}))
    with pytest.raises(UndersongError, match=r"The tokenizer.json of .* cannot be read \(.*\); copy it again"):
        load_model(str(folder))


def test_a_template_that_fills_memory_is_one_sentence(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ 'a' * 10**10 }}")
    model = load_model(str(folder))
    with pytest.raises(UndersongError, match=r"cannot write this prompt \(it makes more than 4,000,000 characters\)"):
        model.prompt_ids(Prompt(Sample("p", text="fold"), "harm", True, "text", "plain"))


def test_names_of_tensors_come_out_in_one_sentence_only(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tensors(lambda weights: weights.update({"extra.\x1b[31mred": torch.zeros(1)}))(folder)
    with pytest.raises(UndersongError, match="holds the unknown extra"):
        load_model(str(folder))
    printed = capfd.readouterr()
    assert "extra" not in printed.out + printed.err
