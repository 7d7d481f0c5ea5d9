"""The published hyper-parameters of fine-tuning, by model family, as defaults of a study's `tuning`.

From the released code of arXiv 2604.16659 (its paper leaves some out).  Three things are not taken along: epochs (arms
of one study take the same steps; the published 5, 3 and 3 passes are steps = passes x samples / batch), validation on
the head of the file, and adapter targets by bare names (`q_proj` also matches audio towers).
"""

from __future__ import annotations

from typing import Any

WARMUP_SHARE = "warmup_share"  # of the last step; becomes `warmup`, in steps
PRESETS: dict[str, dict[str, Any]] = {
    "kimi-audio": {
        "rank": 16, "alpha": 32, "dropout": 0.05, "learning_rate": 2e-4, "schedule": "cosine", WARMUP_SHARE: 0.03,
        "batch": 16,
    },
    "audio-flamingo-3": {
        "rank": 16, "alpha": 32, "dropout": 0.05, "learning_rate": 2e-5, "schedule": "linear", WARMUP_SHARE: 0.1, "batch": 8,
        "weight_decay": 0.01, "clip": 1.0,
    },
    "qwen2.5-omni": {
        "rank": 8, "alpha": 16, "dropout": 0.05, "learning_rate": 1e-4, "schedule": "cosine", WARMUP_SHARE: 0.1, "batch": 8,
    },
}  # fmt: skip


def apply_preset(values: dict[str, Any], steps: tuple[int, ...]) -> dict[str, Any]:
    """The values of a study's `tuning` with its preset's beneath: what is written stands.  `steps`: where none are."""
    name = values.get("preset")
    if name is None:
        return values
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; take one of {', '.join(PRESETS)}")
    preset_values = dict(PRESETS[name])
    last_step = max(values.get("steps") or steps)
    preset_values["warmup"] = round(preset_values.pop(WARMUP_SHARE) * last_step)
    return {**preset_values, **values}
