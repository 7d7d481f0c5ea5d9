"""docs/how-to/adapters-made-elsewhere.md: its commands run, its recipes are whole."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import peft
import pytest
import torch
import yaml
from pages import commands, page, run
from pyarrow.parquet import read_table

from undersong.models.load import load_model

PAGE = page("adapters-made-elsewhere")
PATTERN = re.search(r'target_modules=r"(.*?)"', PAGE).group(1)  # type: ignore[union-attr]


def test_its_pattern_keeps_to_the_language_model() -> None:
    """And the suffixes that it warns of do not."""
    model = load_model("organism:af3")
    linear = [n for n, module in model.base.named_modules() if isinstance(module, torch.nn.Linear)]
    assert {n for n in linear if re.fullmatch(PATTERN, n)} == set(model.linear_paths())
    suffixes = re.findall(r"`target_modules=\[(.*?)\]`", PAGE)[0].replace('"', "").split(", ")
    assert any("audio_tower" in n for n in linear if n.endswith(tuple(suffixes)))


def test_its_recipes_are_whole() -> None:
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.S):
        ast.parse(block)
    (recipe,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    assert yaml.safe_load(recipe)["lora_target"] == "all"


@pytest.mark.slow
def test_its_commands_run_on_an_adapter_of_peft(tmp_path: Path) -> None:
    network = load_model("organism:af3").base
    config = peft.LoraConfig(r=4, target_modules=PATTERN, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(network, config)
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    wrapped.save_pretrained(tmp_path / "mine")
    *evaluating, published, older = [line.replace("ADAPTER", "mine") for line in commands(PAGE)]
    said = run(evaluating, tmp_path)
    assert "refusal" in said
    assert "36 paired prompts" in said
    run([published, older], tmp_path)
    for folder in ("for-vllm", "for-transformers-4"):
        evaluate = evaluating[1].replace("mine", folder).replace("--out after", f"--out after-{folder}")
        run([evaluate], tmp_path)
        for file in ("replies.parquet", "verdicts.parquet"):
            tables = [read_table(tmp_path / name / file) for name in ("after", f"after-{folder}")]
            assert tables[0].equals(tables[1])
