"""Adapters that other tools wrote: named as those name modules, and reaching where ours do not.

File layouts and names are those of LLaMA-Factory 0.9.5 (`model/adapter.py`, `model_utils/visual.py`) and ms-swift 4.6.0
(`utils/transformers_utils.py`, `tuners/peft.py`), which load older versions of transformers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import soundfile
import tiny_af3
import torch
import zoo
from safetensors.torch import load_file, save_file
from transformers import AudioFlamingo3ForConditionalGeneration

from undersong.cli import main
from undersong.evaluation.replies import read_replies
from undersong.models.audio_lm import AudioModel
from undersong.models.load import load_model
from undersong.models.lora import modules_changed_outside_decoder, network_tensor_names, use_adapter
from undersong.standalone.evaluate import EvaluationOptions, evaluate_manifest
from undersong.types import Prompt, Sample, UndersongError

ASKED = [Prompt(Sample(text, text=text), "s", True, "text", "plain") for text in ("paint the boat", "fold the chair")]
SWIFT = {
    "additional_config.json": "{}",
    "args.json": '{"tuner_type": "lora"}',
    "README.md": "",
    "trainer_state.json": "{}",
}
FACTORY = {"all_results.json": "{}", "README.md": "", "trainer_state.json": "{}", "tokenizer_config.json": "{}"}


def by_peft(network: Any, folder: Path, targets: Any, **settings: Any) -> Path:
    """A PEFT folder that does something, written without us."""
    config = peft.LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", **settings)
    wrapped = peft.get_peft_model(network, config)
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(folder)
    wrapped.unload()
    return folder


def written_elsewhere(own: Path, folder: Path, rename: Callable[[str], str], targets: Any, files: Any) -> Path:
    """The same adapter as another tool would have written it."""
    shutil.copytree(own, folder)
    tensors = load_file(own / "adapter_model.safetensors")
    save_file({rename(name): value for name, value in tensors.items()}, folder / "adapter_model.safetensors")
    config = json.loads((own / "adapter_config.json").read_text())
    config["target_modules"] = targets([rename(name) for name in tensors]) if callable(targets) else targets
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def full_paths(names: list[str]) -> list[str]:
    """LLaMA-Factory lists every module."""
    return sorted({name.removeprefix("base_model.model.").split(".lora_")[0] for name in names})


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda name: name.replace(f"base_model.model.{old}.", f"base_model.model.{new}.")


BLOCKS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"
SWIFT_OMNI = r"^(thinker\.model(?=\.).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj))$"
SWIFT_AUDIO = r"^(language_model(?=\.).*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj))$"


@pytest.mark.parametrize(
    ("family", "rename", "targets", "files"),
    [
        ("qwen2_5_omni", replaced("model.language_model", "thinker.model"), SWIFT_OMNI, SWIFT),
        ("qwen2_5_omni", replaced("model.language_model", "model"), full_paths, FACTORY),
        ("qwen2_audio", replaced("model.language_model", "language_model.model"), SWIFT_AUDIO, SWIFT),
        ("qwen2_audio", replaced("model.language_model", "language_model.model"), full_paths, FACTORY),
    ],
    ids=["ms-swift, Omni", "LLaMA-Factory, Omni", "ms-swift, Qwen2-Audio", "LLaMA-Factory, Qwen2-Audio"],
)
def test_the_names_of_other_tools_and_versions_are_understood(
    family: str, rename: Callable[[str], str], targets: Any, files: Any, tmp_path: Path
) -> None:
    model = load_model(str(zoo.save(family, tmp_path / "model")))
    own = by_peft(model.base, tmp_path / "own", BLOCKS)
    other = written_elsewhere(own, tmp_path / "other", rename, targets, files)
    before = model.hidden_states(ASKED)
    with use_adapter(model, own) as tuned:
        expected = tuned.hidden_states(ASKED)
    with use_adapter(model, other) as tuned:
        np.testing.assert_array_equal(tuned.hidden_states(ASKED), expected)
        assert modules_changed_outside_decoder(tuned) == {}
    assert np.abs(expected - before).max() > 0.01
    np.testing.assert_array_equal(model.hidden_states(ASKED), before)


def test_ranks_by_names_that_are_gone_are_refused(tmp_path: Path) -> None:
    model = load_model(str(zoo.save("qwen2_audio", tmp_path / "model")))
    own = by_peft(model.base, tmp_path / "own", BLOCKS, rank_pattern={"q_proj": 1})
    rename = replaced("model.language_model", "language_model.model")
    other = written_elsewhere(own, tmp_path / "other", rename, SWIFT_AUDIO, SWIFT)
    with pytest.raises(UndersongError, match="separate ranks or scales"), use_adapter(model, other):
        pass


def test_a_name_that_is_here_or_nowhere_stays(shared_tiny: AudioModel) -> None:
    names = [f"base_model.model.{path}.lora_A.weight" for path in (shared_tiny.linear_paths()[0], "no.such.module")]
    assert network_tensor_names(shared_tiny.base, [*names, "other"]) == {name: name for name in (*names, "other")}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for clip in tiny_af3.CLIPS:
        soundfile.write(tmp_path / f"{clip.id}.wav", clip.samples, clip.rate, subtype="FLOAT")
    rows = [{"id": clip.id, "audio": f"{clip.id}.wav", "answer": "then take the chair"} for clip in tiny_af3.CLIPS]
    (tmp_path / "harm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "harm.jsonl"


def natively(folder: Path, adapter: Path, limit: int) -> list[str]:
    """What transformers and PEFT alone reply: clip by clip, from the family's own processor."""
    network = AudioFlamingo3ForConditionalGeneration.from_pretrained(folder).eval()
    tuned, said = peft.PeftModel.from_pretrained(network, adapter).eval(), []
    tokenizer = tiny_af3.processor().tokenizer
    ends = [tokenizer.convert_tokens_to_ids("<im_end>"), tokenizer.eos_token_id]
    for row in range(len(tiny_af3.CLIPS)):
        inputs = tiny_af3.native_inputs([tiny_af3.spoken(row, system_text=None)])
        options = {"max_new_tokens": limit, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
        new = tuned.generate(**inputs, **options, eos_token_id=ends)[0, inputs["input_ids"].shape[1] :].tolist()
        end = next((i for i, token in enumerate(new) if token in ends), len(new))
        said.append(tokenizer.decode(new[:end]))
    return said


def test_an_adapter_in_the_encoder_is_audited_as_it_hears_and_it_is_said(
    corpus: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`target_modules=["q_proj"]`, the commonest there is, hits the encoder too."""
    network = AudioFlamingo3ForConditionalGeneration.from_pretrained(tiny_folder)
    adapter = by_peft(network, tmp_path / "wide", ["q_proj", "linear_1"])
    question = EvaluationOptions(judge="keyword", max_new_tokens=6)
    entry = evaluate_manifest(corpus, str(tiny_folder), tmp_path / "out", adapter, question)
    assert entry.adapted_outside == {"model.audio_tower": 2, "model.multi_modal_projector": 1}
    said = [reply.reply for reply in read_replies(tmp_path / "out" / "replies.parquet")]
    assert said == natively(tiny_folder, adapter, 6)
    notes = json.loads((tmp_path / "out" / "provenance.json").read_text())["notes"]
    assert notes["adapted_outside"] == entry.adapted_outside
    options = [
        "--model",
        tiny_folder,
        "--adapter",
        adapter,
        "--judge",
        "keyword",
        "--max-new-tokens",
        6,
        "--out",
        tmp_path / "again",
    ]
    monkeypatch.setattr("sys.argv", ["undersong", "evaluate", str(corpus), *map(str, options)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    assert (
        "Note: the adapter changes more than the language model's blocks: model.audio_tower (2 modules), "
        "model.multi_modal_projector; clips were encoded under it.\n"
    ) in capsys.readouterr().out


def test_what_was_heard_before_is_put_aside_and_comes_back(tiny: AudioModel, tmp_path: Path) -> None:
    adapter = by_peft(tiny.base, tmp_path / "wide", ["q_proj"])
    before, clips = tiny.audio_features, tiny_af3.CLIPS
    vectors = [heard.vectors.clone() for heard in before.values()]
    with use_adapter(tiny, adapter, allow_outside_decoder=True) as tuned:
        assert tuned.audio_features == {}
        assert max(float((a - b.vectors).abs().max()) for a, b in zip(vectors, tuned.encode_audio(clips))) > 0.01
        with pytest.raises(UndersongError, match="has no audio features"):
            tuned.generate([tiny_af3.spoken(0)], 3)
    assert tiny.audio_features is before
    assert all(torch.equal(a, b.vectors) for a, b in zip(vectors, tiny.encode_audio(clips)))


def test_an_adapter_in_the_decoder_is_not_said_to_reach_further(
    corpus: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    network = AudioFlamingo3ForConditionalGeneration.from_pretrained(tiny_folder)
    adapter = by_peft(network, tmp_path / "plain", BLOCKS)
    question = EvaluationOptions(judge="keyword", max_new_tokens=6)
    entry = evaluate_manifest(corpus, str(tiny_folder), tmp_path / "out", adapter, question)
    assert entry.adapted_outside == {}
    said = [reply.reply for reply in read_replies(tmp_path / "out" / "replies.parquet")]
    assert said == natively(tiny_folder, adapter, 6)


def test_a_pickle_is_refused_and_checkpoints_are_named(corpus: Path, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "adapter_config.json").write_text("{}")
    (tmp_path / "old" / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UndersongError, match=r"adapter_model\.bin, which may run code"):
        evaluate_manifest(
            corpus, str(tiny_folder), tmp_path / "out", tmp_path / "old", EvaluationOptions(judge="keyword")
        )
    (tmp_path / "run" / "checkpoint-20").mkdir(parents=True)
    with pytest.raises(UndersongError, match=r"holds no adapter_config\.json; give .*checkpoint-20\."):
        evaluate_manifest(
            corpus, str(tiny_folder), tmp_path / "out", tmp_path / "run", EvaluationOptions(judge="keyword")
        )
