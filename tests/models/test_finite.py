"""A model that computes NaN or infinity is an error that names the sample and the module, never a measurement."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import run_here
from safetensors.torch import load_file, save_file
from tiny_study import tiny_study

from undersong.corpora.registry import open_corpus
from undersong.models.finite import FiniteLogitsCheck, first_non_finite_module
from undersong.models.load import load_model
from undersong.models.lora import new_lora
from undersong.models.refs import organism_folder
from undersong.predictors.refusal_score import first_tokens
from undersong.types import Prompt, UndersongError

DAMAGES = {
    "tower": ("audio_tower.conv2.weight", math.inf, r"clip \S+ \(first in model.audio_tower.conv2\)"),
    "decoder": (
        "language_model.model.layers.1.self_attn.q_proj.weight",
        math.nan,
        r"sample harm-\S+ \(first in model.language_model.layers.1.self_attn.q_proj\)",
    ),
    "head": ("language_model.lm_head.weight", math.nan, r"sample harm-\S+ \(first in lm_head\)"),
}
TOLD = r"computes values that are not finite for {place}, so nothing can be measured on it; give undamaged weights, "


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[str], Path]:
    def damage(kind: str) -> Path:
        name, value, _ = DAMAGES[kind]
        folder = Path(shutil.copytree(organism_folder("af3"), tmp_path / kind, copy_function=shutil.copyfile))
        tensors = load_file(folder / "model.safetensors")
        tensors[name].view(-1)[0] = value
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return damage


def assert_one_sentence(done: subprocess.CompletedProcess[str], kind: str) -> None:
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()[-1:]
    assert line.startswith("undersong: ")
    assert re.search(TOLD.format(place=DAMAGES[kind][2]), line), line
    assert "Traceback" not in done.stderr


def prompts(modality: str = "text") -> list[Prompt]:
    return [Prompt(sample, "harm", True, modality, "plain") for sample in open_corpus("organism:test-harm").samples[:3]]


@pytest.mark.parametrize("kind", DAMAGES)
def test_evaluate_exits_with_one_sentence(kind: str, damaged: Callable[[str], Path], tmp_path: Path) -> None:
    done = run_here(
        tmp_path, "evaluate", "organism:test-harm", "--model", str(damaged(kind)), "--judge", "keyword",
        "--max-new-tokens", "2", "--out", "out",
    )  # fmt: skip
    assert_one_sentence(done, kind)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["decoder", "head"])
def test_generation_and_hidden_states(kind: str, damaged: Callable[[str], Path]) -> None:
    model = load_model(str(damaged(kind)))
    with pytest.raises(UndersongError, match=TOLD.format(place=DAMAGES[kind][2])):
        model.generate(prompts(), 2)
    if kind == "decoder":  # what probes and directions read
        with pytest.raises(UndersongError, match=TOLD.format(place=DAMAGES[kind][2])):
            model.hidden_states(prompts())
    else:  # hidden states come before the head
        assert model.hidden_states(prompts()).shape[1] == 3
    assert not model.base._forward_hooks  # the hooks are gone


def test_the_check_finds_a_row_at_any_step() -> None:
    check, ids = FiniteLogitsCheck(), torch.zeros(3, 1, dtype=torch.long)
    assert check.first_row() is None
    logits = torch.randn(3, 50)
    assert check(ids, logits) is logits
    assert check.first_row() is None
    for value in (math.nan, math.inf, -math.inf):
        broken = FiniteLogitsCheck()
        damaged_logits = logits.clone()
        damaged_logits[1, 7] = value
        broken(ids, logits)
        broken(ids, damaged_logits)
        broken(ids, logits)
        assert broken.first_row() == 1


def test_the_innermost_module_is_named() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()))
    assert first_non_finite_module(network, lambda: network(torch.zeros(1, 2))) is None
    with torch.no_grad():
        network[1][0].bias[0] = math.nan
    assert first_non_finite_module(network, lambda: network(torch.zeros(1, 2))) == "1.0"


def test_a_reply_of_control_tokens_alone_has_no_text() -> None:
    model = load_model("organism:af3")
    pad = model.tokenizer.pad_token_id
    (prompt, *_) = prompts()
    reply = model.reply_from_tokens(prompt, [pad, pad, pad])
    assert (reply.reply.strip(), reply.finish) == ("", "stop" if pad in model.end_ids else "length")


@pytest.mark.parametrize("kind", DAMAGES)
def test_run_publishes_nothing(kind: str, damaged: Callable[[str], Path], tmp_path: Path) -> None:
    asked = tiny_study({}) | {"models": [str(damaged(kind))], "evaluation": {"judge": "keyword", "max_new_tokens": 2}}
    (tmp_path / "study.yaml").write_text(json.dumps(asked))
    done = run_here(tmp_path, "run", "study.yaml", "--out", "out")
    assert_one_sentence(done, kind)
    assert not [name for name in ("results.json", "report.html") if (tmp_path / "out" / name).exists()]
    assert not [file for file in (tmp_path / "out").rglob("*.parquet") if file.stem in ("replies", "verdicts")]


@pytest.mark.parametrize("kind", DAMAGES)
def test_probe_publishes_nothing(kind: str, damaged: Callable[[str], Path], tmp_path: Path) -> None:
    with new_lora(load_model("organism:af3"), 2, 4, 0.0, None) as adapted:
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.01)  # an adapter that changes nothing is refused
        adapted.save_pretrained(tmp_path / "adapter")
    done = run_here(
        tmp_path, "probe", "adapter", "--model", str(damaged(kind)), "--judge", "keyword", "--max-new-tokens", "2",
        "--contrast-harmful", "organism:contrast-harm", "--contrast-benign", "organism:contrast-benign",
        "--held-out-harmful", "organism:test-harm", "--held-out-benign", "organism:test-near", "--out", "out",
    )  # fmt: skip
    assert_one_sentence(done, kind)
    assert not (tmp_path / "out").exists()


def test_first_tokens_of_a_damaged_head(damaged: Callable[[str], Path]) -> None:
    """The most likely token of such logits would be the first that is NaN."""
    model = load_model(str(damaged("head")))
    with pytest.raises(UndersongError, match=TOLD.format(place=DAMAGES["head"][2])):
        first_tokens(model, prompts())
