"""Checkpoint folders of a training: their order, when one is complete, and when it changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from trainer_checkpoints import write_adapter

from undersong.audits.watch.checkpoints import file_signature, list_checkpoints, missing_part


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["checkpoint-1000", "checkpoint-200", "checkpoint-5"], ["checkpoint-5", "checkpoint-200", "checkpoint-1000"]),
        (["checkpoint-5-merged", "checkpoint-best", "runs/tb", "canary/step-000005"], []),
        (
            ["v10-20260101/checkpoint-5", "v9-20260101/checkpoint-50", "v9-20260101/checkpoint-7"],
            ["v10-20260101/checkpoint-5"],
        ),
        (["v1/checkpoint-30", "v1/checkpoint-4"], ["v1/checkpoint-4", "v1/checkpoint-30"]),
        (["backup/checkpoint-30", "checkpoint-4"], ["checkpoint-4"]),
        (["_undersong-watch/verdicts/checkpoint-5"], []),
    ],
)
def test_checkpoints_of_the_newest_run_are_listed_in_order_of_step(
    tmp_path: Path, folders: list[str], expected: list[str]
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "checkpoint-7").write_text("a file, no folder")
    assert [checkpoint.name for checkpoint in list_checkpoints(tmp_path)] == expected
    assert list_checkpoints(tmp_path / "not there yet") == []


def test_an_adapter_is_complete_once_config_and_weights_are_whole(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "checkpoint-5")
    assert missing_part(folder) is None
    assert list_checkpoints(tmp_path)[0].is_adapter
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for size in range(len(whole)):
        weights.write_bytes(whole[:size])
        assert missing_part(folder) is not None, size
    weights.unlink()
    assert missing_part(folder) == "there is no adapter_model.safetensors"
    (folder / "adapter_config.json").write_text('{"peft_type": ')
    assert missing_part(folder) == "adapter_config.json is not complete"
    (folder / "adapter_config.json").unlink()
    assert missing_part(folder) == "neither adapter_config.json nor config.json is there"


def test_a_model_is_complete_once_all_its_shards_are(tmp_path: Path) -> None:
    assert "neither" in str(missing_part(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert "a whole model.safetensors.index.json" in str(missing_part(tmp_path))
    save_file({"a": torch.zeros(2)}, tmp_path / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert missing_part(tmp_path) == "there is no model-2.safetensors"
    save_file({"b": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    assert missing_part(tmp_path) is None


@pytest.mark.parametrize("header", [b"[]", b'{"a": {}}', b'{"a": {"data_offsets": [0, "x"]}}', b"\xff\xff"])
def test_weights_with_a_strange_header_are_not_complete(tmp_path: Path, header: bytes) -> None:
    folder = write_adapter(tmp_path / "checkpoint-5")
    (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert missing_part(folder) == "the header of adapter_model.safetensors is not complete"


def test_a_signature_changes_with_the_model_and_not_with_the_trainers_notes(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "checkpoint-5")
    first = file_signature(folder)
    (folder / "optimizer.pt").write_bytes(b"large")
    assert file_signature(folder) == first
    (folder / "trainer_state.json").write_text("{}")
    assert file_signature(folder) == first
    (folder / "adapter_config.json").write_text("{}")
    assert file_signature(folder) != first
    assert file_signature(tmp_path / "gone") == ""
