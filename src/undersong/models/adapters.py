"""LoRA adapters on a loaded model: put one on, take it off, and refuse one that reaches outside the decoder.

Several arms share one base in memory; taking an adapter off restores the base bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undersong.models.adapter import AudioModel
from undersong.types import UndersongError


def check_targets(model: AudioModel, paths: Sequence[str], allowed: Collection[str]) -> None:
    """Every path must be one of `allowed`: linear layers inside the decoder's blocks, listed *before* an adapter is on.

    Suffix matching ("q_proj") also hits audio encoders (fault 6 of the published code).
    """
    outside = sorted(set(paths) - set(allowed))
    if outside:
        where = next((p for p in model.frozen if outside[0].startswith(p)), "a place outside the decoder's blocks")
        raise UndersongError(
            f"The adapter trains {outside[0]} ({len(outside)} such modules), which lies in {where}; "
            "give full paths of linear layers of the language model's blocks."
        )
    if not paths:
        raise UndersongError(f"The adapter names no module of {model.name}; give at least one linear layer.")


@contextmanager
def fresh_lora(model: AudioModel, rank: int, alpha: int, dropout: float, targets: Sequence[str] | None) -> Iterator[Any]:
    """A new LoRA on the decoder's linear layers (or `targets`, full paths); yields the PEFT model, takes it off at the end."""
    from peft import LoraConfig, get_peft_model

    allowed = model.linear_paths()
    paths = list(targets) if targets is not None else allowed
    check_targets(model, paths, allowed)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=paths)
    with _worn(model, get_peft_model(model.base, config)) as peft_model:
        reached = [name for name, parameter in peft_model.named_parameters() if parameter.requires_grad]
        if any("lora_" not in name for name in reached):
            raise UndersongError(f"{model.name} would train more than the adapter: {reached[0]}.")
        yield peft_model


@contextmanager
def saved_adapter(model: AudioModel, folder: Path | None) -> Iterator[AudioModel]:
    """The model under a saved adapter (standard PEFT folder); None is the base itself."""
    if folder is None:
        yield model
        return
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise UndersongError(f"{folder} holds no adapter_model.safetensors; give a PEFT adapter folder.")
    allowed = model.linear_paths()
    with _worn(model, PeftModel.from_pretrained(model.base, folder)) as peft_model:
        check_targets(model, peft_model.base_model.targeted_module_names, allowed)
        yield model


@contextmanager
def _worn(model: AudioModel, peft_model: Any) -> Iterator[Any]:
    """`model` under the adapter; afterwards the base as it was, with every parameter's gradient flag back on."""
    model.model = peft_model
    try:
        yield peft_model
    finally:
        model.model = peft_model.unload().eval()
        model.model.requires_grad_(True)  # PEFT froze the base; a plain model's parameters are trainable
