"""Audio features: the decoder's inputs at a clip's audio placeholders, and the mean of named encoder views.

Clips are encoded one at a time, because some families' vectors depend on the padding of their batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from undersong.models.audio_inputs import AudioInputs
from undersong.models.chat import AUDIO_CONTENT
from undersong.models.checkpoint_files import describe_loading_error
from undersong.models.families import Family
from undersong.models.hooks import StopForward, record_decoder_input, record_views
from undersong.types import Clip, PooledVector, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.chat import Processor


def mean_pool(frames: np.ndarray) -> PooledVector:
    """Mean of valid frames (frames, dim), summed in float64."""
    if len(frames) == 0:
        return PooledVector(np.zeros(frames.shape[1:], dtype=np.float32), 0)
    return PooledVector(frames.mean(axis=0, dtype=np.float64).astype(np.float32), len(frames))


class SupportsAudioEncoding(Protocol):
    """The interface that `encode_audio` needs of a loaded model; `AudioModel` has it."""

    name: str
    family: Family
    processor: Processor
    model: Any

    @property
    def base(self) -> Any:
        """The transformers model itself."""

    @property
    def decoder(self) -> Any:
        """The language model inside it."""

    @property
    def context_length(self) -> int | None:
        """Largest number of positions of the decoder; None if its config does not say."""

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the clips, in Hz."""

    def to_device(self, value: torch.Tensor, cast: bool = True) -> torch.Tensor:
        """Move a tensor to the model's device and, with `cast`, to its dtype."""


class AudioEncodingError(UndersongError):
    """A clip that the model cannot take as a whole; `reason` is for the quarantine."""

    def __init__(self, clip_id: str, reason: str) -> None:
        super().__init__(f"Clip {clip_id} cannot be encoded: {reason}; leave it out, or cut it.")
        self.reason = reason


@dataclass(frozen=True)
class AudioFeatures:
    """Audio features of one clip: `vectors` (placeholders, dim) in the model's dtype, and which of them are not
    padding.
    """

    vectors: torch.Tensor
    valid: torch.Tensor | None = None  # (placeholders,) bool; None: all
    views: Mapping[str, PooledVector] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def is_finite(self) -> bool:
        """True if no vector that is used holds NaN or infinity."""
        views_finite = all(np.isfinite(view.vector).all() for view in self.views.values())
        return views_finite and bool(np.isfinite(self.valid_vectors()).all())

    def valid_vectors(self) -> np.ndarray:
        """Vectors without padding, (valid placeholders, dim) float32."""
        vectors = self.vectors if self.valid is None else self.vectors[self.valid]
        return vectors.float().numpy()


def count_placeholders(family: Family, audio_inputs: AudioInputs) -> int:
    """Number of placeholders that a clip takes."""
    if family.padded_placeholders:
        return family.audio_tokens(audio_inputs.width) * len(audio_inputs.frames)
    return sum(family.audio_tokens(frames) for frames in audio_inputs.frames)


def count_clip_placeholders(model: SupportsAudioEncoding, clip: Clip) -> int:
    """Number of placeholders that a clip takes, without encoding it. Raises as `encode_audio`."""
    return count_placeholders(model.family, _prepare_clip(model, clip))


def valid_placeholder_mask(family: Family, audio_inputs: AudioInputs) -> torch.Tensor | None:
    """Mask (placeholders,) of those that stand for sound rather than padding; None: all of them."""
    if not family.padded_placeholders:
        return None
    tokens_per_window = family.audio_tokens(audio_inputs.width)
    return torch.cat([torch.arange(tokens_per_window) < family.audio_tokens(frames) for frames in audio_inputs.frames])


def encode_audio(model: SupportsAudioEncoding, clip: Clip) -> AudioFeatures:
    """Run the model on a prompt that holds only the clip, up to the decoder's first layer.

    Raises AudioEncodingError for a clip that is too long or too short, and UndersongError if the network makes another
    number of vectors than the family's formula; some models are silently wrong then.
    """
    family, processor = model.family, model.processor
    audio_inputs = _prepare_clip(model, clip)
    ids = processor.token_ids([{"role": "user", "content": [AUDIO_CONTENT]}], count_placeholders(family, audio_inputs))
    activations: dict[str, torch.Tensor] = {}
    with record_views(model.base, family.views, activations), record_decoder_input(model.decoder, activations):
        try:
            model.model(**_model_inputs(model, audio_inputs, ids), use_cache=False)
        except StopForward:
            pass
        except (ValueError, IndexError, RuntimeError) as error:
            if "out of memory" in str(error):
                raise
            raise _preparation_error(model, clip, error) from error
    placeholder_mask = torch.tensor(ids) == processor.audio_token_id
    decoder_input = activations.pop("decoder")[0].cpu()
    valid = valid_placeholder_mask(family, audio_inputs)
    views = {
        name: _pool_view(model, name, states, audio_inputs, valid, int(placeholder_mask.sum()))
        for name, states in activations.items()
    }
    return AudioFeatures(decoder_input[placeholder_mask], valid, views)


def forward_inputs(model: SupportsAudioEncoding, clip: Clip, ids: list[int]) -> dict[str, torch.Tensor]:
    """Inputs of the model's own forward for one prompt with the clip: ids and the family's audio tensors."""
    return _model_inputs(model, _prepare_clip(model, clip), ids)


def _model_inputs(model: SupportsAudioEncoding, audio_inputs: AudioInputs, ids: list[int]) -> dict[str, torch.Tensor]:
    input_ids = torch.tensor([ids])
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **audio_inputs.tensors}
    return {name: model.to_device(value, model.family.cast_inputs) for name, value in inputs.items()}


def _prepare_clip(model: SupportsAudioEncoding, clip: Clip) -> AudioInputs:
    """Tensors of a clip, if the model can take all of it."""
    family, extractor = model.family, model.processor.extractor
    if clip.rate != model.sampling_rate:
        raise UndersongError(
            f"Clip {clip.id} has {clip.rate} Hz and {model.name} takes {model.sampling_rate} Hz; resample it."
        )
    if family.max_windows is not None and len(clip.samples) > (max_samples := family.max_windows * extractor.n_samples):
        seconds = len(clip.samples) / clip.rate
        reason = f"the audio lasts {seconds:.0f} s, and {model.name} takes no more than {max_samples / clip.rate:.0f} s"
        raise AudioEncodingError(clip.id, reason)
    # A prompt without a placeholder would contain no audio.
    try:
        audio_inputs = family.prepare(extractor, clip.samples) if len(clip.samples) else None
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise _preparation_error(model, clip, error) from error
    if audio_inputs is None or sum(map(family.audio_tokens, audio_inputs.frames)) == 0:
        raise AudioEncodingError(clip.id, f"the audio is too short for {model.name}")
    if (
        model.context_length is not None
        and (tokens := count_placeholders(family, audio_inputs)) >= model.context_length
    ):
        reason = (
            f"the audio makes {tokens} placeholders, and {model.name} reads no more than {model.context_length} tokens"
        )
        raise AudioEncodingError(clip.id, reason)
    return audio_inputs


def _preparation_error(model: SupportsAudioEncoding, clip: Clip, error: Exception) -> UndersongError:
    reason = describe_loading_error(error)
    return UndersongError(
        f"{model.name} cannot take clip {clip.id} as its feature extractor makes it ({reason}); give the folder of a "
        "complete checkpoint."
    )


def _pool_view(
    model: SupportsAudioEncoding,
    name: str,
    states: torch.Tensor,
    audio_inputs: AudioInputs,
    valid: torch.Tensor | None,
    placeholder_count: int,
) -> PooledVector:
    """Mean over a clip's own rows, in float64."""
    family = model.family
    view = family.views[name]
    if states.dim() == 2:
        if len(states) != placeholder_count:
            raise UndersongError(
                f"{model.name} makes {len(states)} vectors at {view.path} where {family.name} has {placeholder_count} "
                "placeholders; its feature extractor does not fit its weights."
            )
        rows = states if valid is None else states[valid.to(states.device)]
    else:
        valid_row_count = view.rows or family.audio_tokens
        rows = torch.cat(
            [window[: valid_row_count(frames)] for window, frames in zip(states, audio_inputs.frames, strict=True)]
        )
    return PooledVector(rows.double().mean(0).float().cpu().numpy(), len(rows))


def clip_key(sample: Sample) -> str:
    """Cache key of a clip's features: its content if known, so that ids may repeat across corpora."""
    return sample.pcm_hash or sample.id


@dataclass(frozen=True)
class CachedAudioEncoder:
    """An internal encoder that answers from cached audio features."""

    features: Mapping[str, AudioFeatures]  # by sample id
    family: Family
    view: str | None = None  # None: the decoder's inputs

    def __post_init__(self) -> None:
        if self.view is not None and self.view not in self.family.views:
            view_names = ", ".join(f"internal:{name}" for name in self.family.views)
            raise UndersongError(
                f"{self.family.name} has no view {self.view!r}; take internal (its decoder's input), {view_names}."
            )

    def embed(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """Cached decoder inputs of each clip: (valid placeholders, dim) float32."""
        return [self.features[clip.id].valid_vectors() for clip in clips]

    def pool(self, clips: Sequence[Clip]) -> list[PooledVector]:
        """Mean over each clip's valid rows of the view, or of the decoder inputs."""
        if self.view is not None:
            return [self.features[clip.id].views[self.view] for clip in clips]
        return [mean_pool(frames) for frames in self.embed(clips)]
