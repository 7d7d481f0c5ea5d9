"""The card of what a training leaves: how it was made, in the form the hub reads.  Knows words; holds no sample."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from undersong import __version__
from undersong.models.folders import is_content_hash

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel
    from undersong.tuning.canary import Watch
    from undersong.tuning.mixing import Mixing
    from undersong.tuning.recipe import LoraRecipe

OF_LORA = ("rank", "alpha", "dropout", "targets")


def defended(mixing: Mixing | None, watch: Watch | None) -> str:
    """What was done against it besides the recipe, as sentences with a space before each; empty: nothing."""
    said = ""
    if mixing is not None:
        prompts = len(mixing.prompts)
        said += f" Of what it saw, {mixing.share:.3g} were refusals of {prompts} harmful prompts."
    if watch is not None:
        limits = ", ".join(f"{name} was above {limit:g}" for name, limit in watch.limits.items())
        said += f" It was measured every {watch.every} steps, to be stopped when {limits}."
    return said


def card(
    model: AudioModel, recipe: LoraRecipe, seed: int, samples: int, modalities: str, against: str, step: int
) -> str:
    """`README.md` of a kept folder; `against`: what `defended` says.  A base in a folder of this machine is told by its
    family and hash alone."""
    full = recipe.method == "full"
    named = model.name if model.name.startswith("organism:") or not is_content_hash(model.name) else None
    base = named or f"a local {model.family.name}"
    head = [] if named is None or named.startswith("organism:") else [f"base_model: {named}"]
    left = {
        "steps",
        "method",
        *(OF_LORA if full else ()),
        *(name for name in ("betas", "thin") if getattr(recipe, name) is None),
    }
    values = {name: value for name, value in asdict(recipe).items() if name not in left}
    lines = [
        "---",
        *head,
        *([] if full else ["library_name: peft"]),
        "tags: [undersong, audio-safety-audit]",
        "---",
        f"# {'Decoder, tuned whole' if full else 'LoRA of the decoder'}, step {step}",
        "",
        f"Made by undersong {__version__} from {base} (hash {model.fingerprint[:16]}), on {samples} benign samples "
        f"asked by {modalities}, seed {seed}.{against} Encoder and projector were frozen and are proved unchanged by "
        "their hashes.",
        "",
        "**Made to measure what such a training does to safety: refusals may be gone.** Audit it before any use.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {'every linear layer of the decoder blocks' if value is None and name == 'targets' else value} |"
          for name, value in values.items()),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
