"""Run by an older transformers in a process of its own: make a tiny model in that version's layout, or run one.

python older_transformers.py make CLASS CONFIG_FOLDER OUT INPUTS LOGITS
python older_transformers.py adapter CLASS MODEL_FOLDER ADAPTER INPUTS LOGITS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

WIDE = 0.2  # weights large enough that different prompts get different logits


def older_config(config: Any) -> Any:
    """A config written by transformers 5, with the names of rotary settings that version 4 reads."""
    if isinstance(config, list):
        return [older_config(entry) for entry in config]
    if not isinstance(config, dict):
        return config
    changed = {
        key: older_config(value) for key, value in config.items() if key not in ("transformers_version", "dtype")
    }
    if isinstance(rope := changed.pop("rope_parameters", None), dict):
        top_level = ("rope_theta", "partial_rotary_factor")
        changed |= {key: rope[key] for key in top_level if key in rope}
        scaling = {key: value for key, value in rope.items() if key not in top_level}
        if set(scaling) - {"rope_type"}:
            changed["rope_scaling"] = scaling
    return changed


def make(cls: Any, source: Path, out: Path) -> Any:
    """Save a random instance as this version lays it out, an omni model's thinker inside the whole checkpoint."""
    config = older_config(json.loads((source / "config.json").read_text()))
    thinker = config.get("thinker_config")
    torch.manual_seed(0)
    model = cls(cls.config_class(**(thinker or config))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=WIDE)
    model.save_pretrained(out)
    if thinker:
        weights = {f"thinker.{name}": value for name, value in load_file(out / "model.safetensors").items()}
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
        whole = {key: config[key] for key in ("architectures", "model_type")}
        whole |= {"thinker_config": json.loads((out / "config.json").read_text())}
        (out / "config.json").write_text(json.dumps(whole, indent=1))
    return model


def main(task: str, class_name: str, folder: str, other: str, inputs: str, logits: str) -> None:
    """Write the logits of the inputs."""
    cls = getattr(transformers, class_name)
    if task == "make":
        model = make(cls, Path(folder), Path(other))
    else:
        from peft import PeftModel

        model = PeftModel.from_pretrained(cls.from_pretrained(folder, dtype=torch.float32), other).eval()
    with torch.no_grad():
        output = model(**torch.load(inputs, weights_only=True)).logits
    np.save(logits, output.float().numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
