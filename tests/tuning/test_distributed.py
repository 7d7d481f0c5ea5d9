"""One training in two processes, started as it is on two GPUs: the same steps as in one process, written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from command_line import run_here
from safetensors.torch import load_file

from undersong.standalone.options import TuneOptions
from undersong.standalone.tune import tune_manifest

Launched = Callable[..., "subprocess.CompletedProcess[str]"]
RECIPE = {"save_steps": (2, 3), "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 0, "validation_share": 0.2}
STEP = "step-000003/adapter_model.safetensors"
ANSWERS = ("then take the lamp", "first the chair", "some red boat", "fold and wash", "then", "the old chair")
ACCELERATE = (
    "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
    "--dynamo_backend", "no", "--main_process_port", "0",
)  # fmt: skip
# As two GPUs have it: without GPUs and this flag `accelerate launch` starts one process, whatever it is told.
LAUNCH = (*ACCELERATE, "--multi_gpu", "--module", "undersong")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "undersong")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Spoken items with replies of different lengths, so that the mean over tokens is no mean over processes."""
    rows = []
    for number, answer in enumerate(ANSWERS):
        time = np.arange(4000 + 800 * number) / 16_000
        soundfile.write(tmp_path / f"{number}.wav", 0.3 * np.sin(2 * np.pi * (200 + 100 * number) * time), 16_000)
        rows.append({"id": str(number), "audio": f"{number}.wav", "text": "paint the red chair", "answer": answer})
    file = tmp_path / "pool.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def together(*arguments: str, by: tuple[str, ...] = LAUNCH) -> subprocess.CompletedProcess[str]:
    """The command line in two processes that find each other on this machine."""
    return subprocess.run(
        [sys.executable, *by, *arguments], env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def flags(out: Path) -> list[str]:
    return [
        "--out", str(out), "--save-step", "2", "--save-step", "3", "--batch-size", "4",
        "--learning-rate", "1e-2", "--warmup-steps", "0",
        "--validation-share", "0.2",
    ]  # fmt: skip


@pytest.mark.parametrize("by", [pytest.param(LAUNCH, marks=pytest.mark.slow), TORCHRUN], ids=["accelerate", "torchrun"])
def test_two_processes_take_the_steps_of_one(
    by: tuple[str, ...], manifest: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    tune_manifest(manifest, str(tiny_folder), tmp_path / "one", TuneOptions(**RECIPE))
    before = set(tmp_path.iterdir())
    run = together("tune", str(manifest), "--model", str(tiny_folder), *flags(tmp_path / "two"), by=by)
    assert run.returncode == 0, run.stderr
    assert set(tmp_path.iterdir()) == before | {tmp_path / "two"}  # nothing half-written beside it
    assert [line for line in run.stdout.splitlines() if "step-" in line] == [
        str(tmp_path / "two" / name) for name in ("step-000002", "step-000003")
    ]
    one, two = (load_file(tmp_path / name / STEP) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=1e-4, atol=1e-6), name
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("one", "two")]
    assert [line["loss"] for line in logs[1]] == pytest.approx([line["loss"] for line in logs[0]], rel=1e-4)
    assert logs[1][1]["validation_loss"] == pytest.approx(logs[0][1]["validation_loss"], rel=1e-4)
    facts = [json.loads((tmp_path / name / "provenance.json").read_text())["notes"] for name in ("one", "two")]
    assert [one["processes"] for one in facts] == [1, 2]


@pytest.fixture(params=["here", pytest.param("launched", marks=pytest.mark.slow)])
def launched(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launched:
    """The command line under a launcher: in this process, with the variables that one sets; slowly, by accelerate."""

    def launch(*arguments: str, alone: bool = False) -> subprocess.CompletedProcess[str]:
        if request.param == "launched":
            by = (*ACCELERATE, "--cpu", "--module", "undersong") if alone else LAUNCH
            return together(*arguments, by=by)
        variables = {"ACCELERATE_DYNAMO_BACKEND": "NO"} | ({} if alone else {"RANK": "0", "WORLD_SIZE": "2"})
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return run_here(tmp_path, *arguments)

    return launch


def test_a_batch_that_processes_cannot_share_is_refused(
    launched: Launched, manifest: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    run = launched(
        "tune", str(manifest), "--model", str(tiny_folder), *flags(tmp_path / "out"), "--micro-batch-size", "4"
    )
    assert run.returncode != 0
    assert "A batch of 4 cannot be taken by 2 processes 4 at a time" in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_launcher_that_starts_one_process_is_told(
    launched: Launched, manifest: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    run = launched("tune", str(manifest), "--model", str(tiny_folder), *flags(tmp_path / "out"), alone=True)
    assert run.returncode == 0, run.stderr
    assert "Note: accelerate launch started one process" in run.stderr
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["notes"]["processes"] == 1


def test_what_is_not_split_over_processes_says_so(launched: Launched) -> None:
    run = launched("run", "study.yaml", "--out", "out")
    assert run.returncode != 0
    assert "run is not split over processes" in run.stderr
