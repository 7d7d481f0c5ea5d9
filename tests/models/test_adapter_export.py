"""Adapters under the names of other tools, and checkpoints as the transformers that published them saved them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import instances
import numpy as np
import pytest
import torch
import zoo
import zoo_native
from command_line import run_here
from random_adapter import save_random_adapter
from safetensors.torch import load_file

from undersong.models.adapter_export import CONFIG_KEYS, export_adapter
from undersong.models.load import load_model
from undersong.models.lora import use_adapter
from undersong.types import Prompt, Sample, UndersongError

PROMPTS = [Prompt(Sample(text, text=text), "s", True, "text", "plain") for text in ("paint the boat", "fold the chair")]
ROOT = Path(__file__).resolve().parents[2]
# Releases near the publication of the checkpoints, with the other packages that they ask for.
RELEASES = {
    "4.57": ["transformers>=4.57.3,<4.58", "huggingface-hub<1", "tokenizers>=0.22,<=0.23", "peft>=0.17,<0.18"],
    "5.0": ["transformers>=5.0,<5.1", "huggingface-hub>=1.3,<2", "tokenizers>=0.22,<=0.23", "peft>=0.18,<0.19"],
}
RELEASE_OF_FAMILY = {
    "audioflamingo3": "5.0",
    "qwen2_5_omni": "4.57",
    "qwen2_audio": "4.57",
    "qwen3_omni_moe": "4.57",
    "voxtral": "4.57",
    "phi4_multimodal": "4.57",
}


@pytest.mark.parametrize("family", instances.KINDS)
def test_an_exported_adapter_has_the_names_of_its_checkpoint_and_the_same_effect(family: str, tmp_path: Path) -> None:
    folder = instances.save(family, tmp_path / "model")
    checkpoint_names = {name for file in folder.glob("*.safetensors") for name in load_file(file)}
    model = load_model(str(folder))
    own = save_random_adapter(model.base, model.linear_paths(), tmp_path / "own")
    modules = export_adapter(model, own, tmp_path / "exported")
    assert {f"{path}.weight" for path in modules} <= checkpoint_names
    tensors = load_file(tmp_path / "exported" / "adapter_model.safetensors")
    assert {name.removeprefix("base_model.model.").split(".lora_")[0] for name in tensors} == set(modules)
    with use_adapter(model, own) as tuned:
        expected = tuned.hidden_states(PROMPTS)
    assert np.abs(expected - model.hidden_states(PROMPTS)).max() > 0.01
    with use_adapter(model, tmp_path / "exported") as tuned:
        np.testing.assert_array_equal(tuned.hidden_states(PROMPTS), expected)


def test_the_names_of_transformers_4_are_those_of_the_omni_model_s_thinker(tmp_path: Path) -> None:
    model = load_model(str(zoo.save("qwen2_5_omni", tmp_path / "model")))
    own = save_random_adapter(model.base, model.linear_paths(), tmp_path / "own")
    assert export_adapter(model, own, tmp_path / "a")[0] == "thinker.model.layers.0.mlp.down_proj"
    assert export_adapter(model, own, tmp_path / "b", "transformers4")[0] == "model.layers.0.mlp.down_proj"
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    assert set(config) <= {*CONFIG_KEYS, "target_modules", "base_model_name_or_path"}
    assert config["r"] == 2


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    model = load_model(str(zoo.save("qwen2_audio", tmp_path / "model")))
    own = save_random_adapter(model.base, model.linear_paths(), tmp_path / "own")
    with pytest.raises(UndersongError, match="no names called 'vllm'"):
        export_adapter(model, own, tmp_path / "out", "vllm")
    with pytest.raises(UndersongError, match="exists already"):
        export_adapter(model, own, own)
    other = load_model(str(zoo.save("phi4_multimodal", tmp_path / "other")))
    with pytest.raises(UndersongError, match="take its own base"):
        export_adapter(other, own, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_names_a_module_and_the_folder(tmp_path: Path) -> None:
    folder = zoo.save("qwen2_audio", tmp_path / "model")
    model = load_model(str(folder))
    own = save_random_adapter(model.base, model.linear_paths(), tmp_path / "own")
    process = run_here(tmp_path, "export-adapter", str(own), "--model", str(folder), "--out", "exported")
    assert process.returncode == 0, process.stderr
    assert process.stdout == (
        f"{len(model.linear_paths())} modules, such as language_model.model.layers.0.mlp.down_proj\nexported\n"
    )


def older_packages(release: str) -> Path:
    """A folder with that release of transformers, installed once; the test is skipped where it cannot be."""
    folder = ROOT / "out" / f"transformers-{release}"
    if not folder.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", f"{folder}.part"]
        installation = subprocess.run([*command, *RELEASES[release]], capture_output=True, text=True, check=False)
        if installation.returncode:
            shutil.rmtree(f"{folder}.part", ignore_errors=True)
            pytest.skip(f"transformers {release} could not be installed: {installation.stderr.strip()[-200:]}")
        Path(f"{folder}.part").rename(folder)
    return folder


def run_older(release: str, *arguments: str | Path) -> None:
    """Run `older_transformers.py` with that release."""
    environment = {**os.environ, "PYTHONPATH": str(older_packages(release)), "HF_HUB_OFFLINE": "1"}
    script = ROOT / "tests" / "helpers" / "older_transformers.py"
    process = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("family", RELEASE_OF_FAMILY)
def test_what_the_transformers_of_its_release_saved_loads_here_and_what_we_export_loads_there(
    family: str, tmp_path: Path
) -> None:
    release, class_name = RELEASE_OF_FAMILY[family], zoo_native.CLASSES[family]
    source = zoo.save(family, tmp_path / "source")
    inputs = dict(zoo.native(family, source).inputs([zoo.ask("paint the boat", zoo.wave(0.8), "please")]))
    torch.save(inputs, tmp_path / "inputs.pt")
    folder, there = tmp_path / "older", tmp_path / "there.npy"
    run_older(release, "make", class_name, source, folder, tmp_path / "inputs.pt", there)
    for file in source.iterdir():
        if (
            file.is_file()
            and file.name not in ("config.json", "model.safetensors")
            and not (folder / file.name).exists()
        ):
            shutil.copyfile(file, folder / file.name)
    model = load_model(str(folder))
    with torch.no_grad():
        here = model.base(**inputs).logits.numpy()
    np.testing.assert_allclose(here, np.load(there), atol=2e-4, rtol=1e-4)

    own = save_random_adapter(model.base, model.linear_paths(), tmp_path / "own")
    export_adapter(model, own, tmp_path / "exported", "transformers4")
    with use_adapter(model, own) as tuned, torch.no_grad():
        adapted_here = tuned.model(**inputs).logits.numpy()
    run_older(release, "adapter", class_name, folder, tmp_path / "exported", tmp_path / "inputs.pt", there)
    assert np.abs(adapted_here - here).max() > 0.01
    np.testing.assert_allclose(adapted_here, np.load(there), atol=2e-4, rtol=1e-4)
