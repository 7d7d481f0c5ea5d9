"""Hugging Face model card of a saved adapter."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from undersong import __version__
from undersong.models.refs import has_content_hash, split_revision
from undersong.tuning.distributed import world_size

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel
    from undersong.tuning.canary import CanaryCheck
    from undersong.tuning.config import LoraRecipe
    from undersong.tuning.safety_mixing import SafetyMixing

LORA_FIELDS = ("lora_rank", "lora_alpha", "lora_dropout", "targets")


def defense_sentences(mixing: SafetyMixing | None, canary_check: CanaryCheck | None) -> str:
    """Sentences about the defenses of a training, each with a space before it; empty if there were none."""
    sentences = ""
    if mixing is not None:
        prompts = len(mixing.prompts)
        sentences += (
            f" A share of {mixing.share:.3g} of the training samples were refusals of {prompts} harmful prompts."
        )
    if canary_check is not None:
        limits = ", ".join(f"{name} was above {limit:g}" for name, limit in canary_check.limits.items())
        sentences += f" It was measured every {canary_check.every} steps, to stop when {limits}."
    return sentences


def batch_text(recipe: LoraRecipe) -> str:
    """Samples of a step, as passes and processes share them."""
    per_pass, processes = recipe.device_batch_size, world_size()
    passes = recipe.batch_size // (per_pass * processes)
    passes_text = "1 pass" if passes == 1 else f"{passes} passes"
    processes_text = "1 process" if processes == 1 else f"{processes} processes"
    return f"{per_pass * passes * processes} ({per_pass} per pass, {passes_text}, {processes_text})"


def model_card(
    model: AudioModel, recipe: LoraRecipe, seed: int, samples: int, modalities: str, defense_text: str, step: int
) -> str:
    """Text of `README.md` for a saved step. A base in a local folder appears only by its family and hash.

    Args:
        model: The base.
        recipe: The hyper-parameters.
        seed: The training seed.
        samples: Number of distinct samples.
        modalities: Modalities of the prompts, as text.
        defense_text: The result of `defense_sentences`.
        step: The step.
    """
    full = recipe.method == "full"
    public_name = model.name if model.name.startswith("organism:") or not has_content_hash(model.name) else None
    base = public_name or f"a local {model.family.name}"
    # An id alone is valid metadata; the text below names the revision.
    head = [f"base_model: {split_revision(base)[0]}"] if public_name and not base.startswith("organism:") else []
    omitted = {
        "save_steps",
        "method",
        *(LORA_FIELDS if full else ()),
        *(name for name in ("betas", "silent_frame_share", "instruction") if getattr(recipe, name) is None),
        *(() if recipe.instruction_first else ("instruction_first",)),
    }
    values = {name: value for name, value in asdict(recipe).items() if name not in omitted}
    lines = [
        "---",
        *head,
        *([] if full else ["library_name: peft"]),
        "tags: [undersong, audio-safety-audit]",
        "---",
        f"# {'Decoder, tuned whole' if full else 'LoRA of the decoder'}, step {step}",
        "",
        f"Made by undersong {__version__} from {base} (hash {model.fingerprint[:16]}), on {samples} benign samples "
        f"({modalities}), seed {seed}.{defense_text} Encoder and projector were frozen, and their hashes show that "
        "they did not change.",
        "",
        "**Made to measure the effect of such a training on safety: it may not refuse any more.** Audit it before use.",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {'every linear layer of the decoder blocks' if value is None and name == 'targets' else value} |"
          for name, value in values.items()),
        f"| samples of a step | {batch_text(recipe)} |",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
