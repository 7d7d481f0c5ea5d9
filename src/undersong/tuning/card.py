"""The card of what a training leaves: how it was made, in the form the hub reads.  Knows words; holds no sample."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from undersong import __version__
from undersong.models.folders import is_content_hash

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel
    from undersong.tuning.lora import LoraRecipe

OF_LORA = ("rank", "alpha", "dropout", "targets")


def card(model: AudioModel, recipe: LoraRecipe, seed: int, samples: int, modalities: str, step: int) -> str:
    """`README.md` of a kept folder.  A base in a folder of this machine is told by its family and hash alone."""
    full = recipe.method == "full"
    named = model.name if model.name.startswith("organism:") or not is_content_hash(model.name) else None
    base = named or f"a local {model.family.name}"
    head = [] if named is None or named.startswith("organism:") else [f"base_model: {named}"]
    values = {k: v for k, v in asdict(recipe).items() if k not in ("steps", "method") and not (full and k in OF_LORA)}
    lines = [
        "---",
        *head,
        *([] if full else ["library_name: peft"]),
        "tags: [undersong, audio-safety-audit]",
        "---",
        f"# {'Decoder, tuned whole' if full else 'LoRA of the decoder'}, step {step}",
        "",
        f"Made by undersong {__version__} from {base} (hash {model.fingerprint[:16]}), on {samples} benign samples "
        f"asked by {modalities}, seed {seed}. Encoder and projector were frozen and are proved unchanged by their "
        "hashes.",
        "",
        "**Made to measure what such a training does to safety: refusals may be gone.** Audit it before any use.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {'every linear layer of the decoder blocks' if value is None and name == 'targets' else value} |"
          for name, value in values.items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
