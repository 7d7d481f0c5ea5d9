"""What a model hears of one clip: the decoder's inputs at the placeholders, and the mean of named views on the way.

Always one clip at a time: some families' vectors depend on the padding of their batch, and a vector that is computed
again must be the same to the bit.  Knows families and hooks; does not know prompts or samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from undersong.models.family import Family, View
from undersong.models.sound import Sound
from undersong.types import Clip, Pooled, UndersongError

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel


AUDIO = {"type": "audio", "audio": ""}  # a piece of a message; published templates look for either key


class Unheard(UndersongError):
    """A clip that the model cannot hear whole; `reason` is for the quarantine."""

    def __init__(self, clip: str, reason: str) -> None:
        super().__init__(f"Clip {clip} cannot be heard: {reason}; leave it out, or cut it.")
        self.reason = reason


@dataclass(frozen=True)
class Heard:
    """One clip: `vectors` (placeholders, dim) in the model's dtype, and which of them are sound, not padding."""

    vectors: torch.Tensor
    valid: torch.Tensor | None = None  # (placeholders,) bool; None: all
    views: Mapping[str, Pooled] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vectors)

    def sound(self) -> np.ndarray:
        """(valid placeholders, dim) float32."""
        kept = self.vectors if self.valid is None else self.vectors[self.valid]
        return kept.float().numpy()


class Stop(Exception):
    """Ends a forward pass once the wanted activations are there."""


def placeholders(family: Family, sound: Sound) -> int:
    """How many placeholders a clip takes."""
    if family.padded:
        return family.audio_tokens(sound.width) * len(sound.frames)
    return sum(family.audio_tokens(frames) for frames in sound.frames)


def valid_placeholders(family: Family, sound: Sound) -> torch.Tensor | None:
    """(placeholders,) which of them stand for sound; None: all."""
    if not family.padded:
        return None
    each = family.audio_tokens(sound.width)
    return torch.cat([torch.arange(each) < family.audio_tokens(frames) for frames in sound.frames])


def hear(model: AudioModel, clip: Clip) -> Heard:
    """Run the model on a prompt that holds nothing but the clip, up to the decoder's first layer.

    Errors: `Unheard` for a clip that is too long or too short; rows that the network makes other than the placeholders
    of the family's formula (some models run silently wrong then).
    """
    family, processor = model.family, model.processor
    sound = _prepared(model, clip)
    ids = processor.ids([{"role": "user", "content": [AUDIO]}], placeholders(family, sound))
    seen: dict[str, torch.Tensor] = {}
    with _watching(model.base, family.views, seen), _decoder_input(model.decoder, seen):
        try:
            model.model(**_placed(model, sound, ids), use_cache=False)
        except Stop:
            pass
        except (ValueError, IndexError, RuntimeError) as error:
            if "out of memory" in str(error):
                raise
            raise _unfit(model, clip, error) from error
    at_sound = torch.tensor(ids) == processor.audio_token_id
    decoder_input = seen.pop("decoder")[0].cpu()
    valid = valid_placeholders(family, sound)
    views = {name: _pool(model, name, states, sound, valid, int(at_sound.sum())) for name, states in seen.items()}
    return Heard(decoder_input[at_sound], valid, views)


def forward_inputs(model: AudioModel, clip: Clip, ids: list[int]) -> dict[str, torch.Tensor]:
    """What the model's own forward takes for one prompt that holds the clip: ids and the family's sound tensors."""
    return _placed(model, _prepared(model, clip), ids)


def _placed(model: AudioModel, sound: Sound, ids: list[int]) -> dict[str, torch.Tensor]:
    row = torch.tensor([ids])
    inputs = {"input_ids": row, "attention_mask": torch.ones_like(row), **sound.inputs}
    return {name: model.place(value, model.family.cast) for name, value in inputs.items()}


def _prepared(model: AudioModel, clip: Clip) -> Sound:
    """The clip's tensors, if the model can hear all of it."""
    family, extractor = model.family, model.processor.extractor
    if clip.rate != model.sampling_rate:
        raise UndersongError(
            f"Clip {clip.id} has {clip.rate} Hz and {model.name} hears {model.sampling_rate} Hz; resample it."
        )
    if family.windows is not None and len(clip.samples) > (most := family.windows * extractor.n_samples):
        seconds = len(clip.samples) / clip.rate
        reason = f"the audio lasts {seconds:.0f} s, and {model.name} hears no more than {most / clip.rate:.0f} s"
        raise Unheard(clip.id, reason)
    # A prompt without a placeholder would ask the model nothing.
    try:
        sound = family.prepare(extractor, clip.samples) if len(clip.samples) else None
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise _unfit(model, clip, error) from error
    if sound is None or sum(map(family.audio_tokens, sound.frames)) == 0:
        raise Unheard(clip.id, f"the audio is too short for {model.name} to hear anything")
    if model.context is not None and (tokens := placeholders(family, sound)) >= model.context:
        reason = f"the audio makes {tokens} placeholders, and {model.name} reads no more than {model.context} tokens"
        raise Unheard(clip.id, reason)
    return sound


def _unfit(model: AudioModel, clip: Clip, error: Exception) -> UndersongError:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return UndersongError(
        f"{model.name} cannot take clip {clip.id} as its feature extractor makes it ({reason}); give the folder of a "
        "complete checkpoint."
    )


def _pool(
    model: AudioModel, name: str, states: torch.Tensor, sound: Sound, valid: torch.Tensor | None, count: int
) -> Pooled:
    """Mean over a clip's own rows, in float64."""
    family = model.family
    view = family.views[name]
    if states.dim() == 2:
        if len(states) != count:
            raise UndersongError(
                f"{model.name} makes {len(states)} vectors at {view.path} where {family.name} has {count} "
                "placeholders; its feature extractor does not fit its weights."
            )
        rows = states if valid is None else states[valid.to(states.device)]
    else:
        rule = view.rows or family.audio_tokens
        rows = torch.cat([window[: rule(frames)] for window, frames in zip(states, sound.frames, strict=True)])
    return Pooled(rows.double().mean(0).float().cpu().numpy(), len(rows))


@contextmanager
def _decoder_input(decoder: Any, seen: dict[str, torch.Tensor]) -> Iterator[None]:
    """Catches (batch, tokens, dim), the input of layer 0, and stops there."""

    def catch(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen["decoder"] = args[0] if args else kwargs["hidden_states"]
        raise Stop

    hook = decoder.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _watching(base: Any, views: Mapping[str, View], seen: dict[str, torch.Tensor]) -> Iterator[None]:
    """Collects the states of every view."""

    def watch(name: str, view: View) -> Any:
        def hook(_module: nn.Module, args: tuple, output: Any) -> None:
            state = _states(output) if view.argument is None else args[view.argument]
            seen[name] = state.detach()

        return base.get_submodule(view.path).register_forward_hook(hook)

    hooks = [watch(name, view) for name, view in views.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _states(output: Any) -> torch.Tensor:
    """The hidden states of a module's output."""
    states: Any = output.last_hidden_state if hasattr(output, "last_hidden_state") else output
    first: torch.Tensor = states[0] if isinstance(states, tuple) else states
    return first
