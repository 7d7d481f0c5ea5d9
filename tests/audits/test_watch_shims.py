"""examples/watch: a few lines in each trainer that end a training once STOP is there.

docs/how-to/watch.md names the versions of the real trainers that they were run with; here are their interfaces alone.
"""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainerCallback, TrainingArguments

SHIMS = Path(__file__).parents[2] / "examples" / "watch"


@pytest.fixture(autouse=True)
def shims_on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(SHIMS))
    monkeypatch.delenv("UNDERSONG_WATCH", raising=False)
    yield
    sys.modules.pop("stop_file", None)


class WriteStop(TrainerCallback):
    """Stands for `undersong watch`, which writes the file during step 4."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            Path(args.output_dir, "STOP").write_text("The JSR rose.\n")


def train(folder: Path, *callbacks: TrainerCallback) -> Trainer:
    size = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    arguments = TrainingArguments(
        str(folder), max_steps=8, per_device_train_batch_size=1, report_to=[], save_strategy="no", use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    rows: Any = [{"input_ids": torch.tensor([1, 2]), "labels": torch.tensor([1, 2])}] * 8
    trainer = Trainer(
        model=Qwen2ForCausalLM(Qwen2Config(vocab_size=8, num_hidden_layers=1, **size)), args=arguments,
        train_dataset=rows, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.train()
    return trainer


def test_a_trainer_of_transformers_stops_at_the_step_after_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stop_file import StopFile

    assert train(tmp_path / "stopped", WriteStop(), StopFile()).state.global_step == 4
    assert f"Stopped at step 4 by {tmp_path / 'stopped' / 'STOP'}: The JSR rose." in capsys.readouterr().out
    assert train(tmp_path / "free", StopFile()).state.global_step == 8


def test_it_starts_the_watch_that_a_variable_names_outside_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stop_file import StopFile

    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, env, stdin: started.append((words, env)))
    monkeypatch.setenv("UNDERSONG_WATCH", "/opt/my\\ tools/undersong watch OUTPUT_DIR --model ORG/NAME")
    monkeypatch.setenv("PYTHONPATH", "of the trainer")
    train(tmp_path, StopFile())
    ((words, environment),) = started
    assert words == ["/opt/my tools/undersong", "watch", str(tmp_path), "--model", "ORG/NAME"]
    assert "PYTHONPATH" not in environment
    assert environment["UNDERSONG_WATCH"]


def stub(monkeypatch: pytest.MonkeyPatch, name: str, **values: object) -> None:
    """Put a module, and the packages above it, where an installed trainer would be."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:end]))
        module.__path__ = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for key, value in values.items():
        setattr(module, key, value)


def test_the_plugin_registers_itself_with_ms_swift_4(monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks: dict[str, Any] = {}
    stub(monkeypatch, "swift.callbacks", callbacks_map=callbacks)
    runpy.run_path(str(SHIMS / "swift_plugin.py"))
    assert type(callbacks["undersong"]("arguments", "trainer")).__name__ == "StopFile"


def test_the_plugin_registers_itself_with_ms_swift_3(monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks: list[Any] = []
    stub(monkeypatch, "swift.plugin", extra_callbacks=callbacks)
    runpy.run_path(str(SHIMS / "swift_plugin.py"))
    assert [type(callback).__name__ for callback in callbacks] == ["StopFile"]


def test_the_plugin_gives_axolotl_its_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    stub(monkeypatch, "axolotl.integrations.base", BasePlugin=object)
    plugin = runpy.run_path(str(SHIMS / "axolotl_plugin.py"))["StopPlugin"]()
    assert [type(callback).__name__ for callback in plugin.add_callbacks_pre_trainer({}, None)] == ["StopFile"]


def test_the_wrapper_gives_llama_factory_its_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    stub(monkeypatch, "llamafactory.train.tuner", run_exp=lambda callbacks: given.extend(callbacks))
    runpy.run_path(str(SHIMS / "llamafactory_train.py"), run_name="__main__")
    assert [type(callback).__name__ for callback in given] == ["StopFile"]


def test_shims_import_nothing_of_undersong() -> None:
    for file in SHIMS.glob("*.py"):
        imported = [
            name
            for node in ast.walk(ast.parse(file.read_text()))
            for name in (
                [node.module or ""] if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            )
        ]  # fmt: skip
        assert not any(name.startswith("undersong") for name in imported), file
