"""`AudioModel`, an audio LLM with its processor: encode audio, build prompts, generate replies, take hidden states.

Encoder and projector are frozen, so a clip is encoded once and its vectors are reused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from transformers import LogitsProcessorList

from undersong.corpora.decode import load_clips
from undersong.models.audio_features import AudioFeatures, CachedAudioEncoder, clip_key, encode_audio, mean_pool
from undersong.models.chat import Processor, chat_messages, end_token_ids
from undersong.models.families import Family
from undersong.models.finite import FiniteLogitsCheck, non_finite_error
from undersong.models.hooks import greedy_decoding, published_end_ids, record_last_token_states
from undersong.models.out_of_memory import halve_on_oom
from undersong.types import Clip, PooledVector, Prompt, Reply, Sample, UndersongError

if TYPE_CHECKING:
    from torch import nn

FIRST_KEPT_BATCH = 4  # prompts


class ReplyKeeper(Protocol):
    """Keeps the replies of each batch while a model generates, and knows those of an interrupted generation."""

    def find(self, prompts: Sequence[Prompt]) -> list[Reply] | None:
        """Kept replies to exactly this batch of prompts, or None."""
        ...

    def add(self, replies: Sequence[Reply]) -> None:
        """Keep the replies of a batch."""
        ...

    def count(self, number: int) -> None:
        """Report how many replies of the current batch there are by now."""
        ...


class AudioModel:
    """A loaded model with its processor."""

    def __init__(
        self,
        model: nn.Module,
        processor: Processor,
        family: Family,
        name: str,
        fingerprint: str,
        merged: Sequence[str] = (),
        batch_size: int | None = None,
        revision: str | None = None,
    ) -> None:
        self.model: Any = model.eval()
        self.processor, self.family, self.name, self.fingerprint = processor, family, name, fingerprint
        self.tokenizer = processor.tokenizer
        self.merged = tuple(merged)  # published adapters that are part of the weights now
        self.revision = revision  # commit on the hub; None for a folder
        self.batch_size = batch_size  # most prompts in memory at a time; None: the default of each method
        self.reply_keeper: ReplyKeeper | None = None
        self.checkpoint_end_ids = published_end_ids(self.base)
        self.audio_features: dict[str, AudioFeatures] = {}  # by clip key
        self._loaded_caches: set[str] = set()
        self._prompt_ids_cache: dict[tuple, list[int]] = {}  # all that a prompt's token ids depend on -> ids

    def load_cached_features(self, name: str, load: Callable[[], Mapping[str, AudioFeatures]]) -> None:
        """Load the cached audio features called `name`, unless they are loaded already."""
        if name not in self._loaded_caches:
            self.audio_features.update(load())
            self._loaded_caches.add(name)

    @contextmanager
    def without_cached_features(self) -> Iterator[None]:
        """Put the cached audio features aside, which do not hold while the encoder is changed."""
        cached, self.audio_features, self._loaded_caches = (self.audio_features, self._loaded_caches), {}, set()
        try:
            yield
        finally:
            self.audio_features, self._loaded_caches = cached

    # --- the parts ---------------------------------------------------------------------------------------------------
    @property
    def base(self) -> Any:
        """The transformers model, with or without an adapter around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def decoder(self) -> Any:
        """The language model without its head, by transformers' `get_decoder()`. Only this part may be trained."""
        return self.base.get_decoder()

    @property
    def decoder_path(self) -> str:
        """Module path of the decoder in the base."""
        decoder = self.decoder
        return next(name for name, module in self.base.named_modules() if module is decoder)

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the clips, in Hz."""
        return int(self.processor.extractor.sampling_rate)

    @property
    def layers(self) -> int:
        """Number of blocks of the decoder; `hidden_states` has one entry more, the decoder's input."""
        return len(self.decoder.layers)

    @property
    def frozen_modules(self) -> dict[str, nn.Module]:
        """Path -> module of everything that must not be trained: encoder and projector."""
        return {path: self.base.get_submodule(path) for path in self.family.frozen}

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the model for the provenance of an artifact."""
        return {
            "family": self.family.name,
            "system_text": self.family.system,
            "merged": list(self.merged),
            "revision": self.revision,
        }

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a reply: the trained end of turn, then the tokenizer's eos and the checkpoint's own."""
        return end_token_ids(self.tokenizer, self.family, self.checkpoint_end_ids)

    @cached_property
    def context_length(self) -> int | None:
        """Largest number of tokens of a prompt with its reply; None if the config does not say."""
        return getattr(self.decoder.config, "max_position_embeddings", None)

    def set_frozen_eval(self) -> None:
        """Set encoder and projector to eval mode. It is needed after every `.train()`, or dropout and statistics
        change.
        """
        for module in self.frozen_modules.values():
            module.eval()

    def linear_paths(self) -> list[str]:
        """Full module paths of all linear layers of the decoder's blocks, the default targets of LoRA."""
        prefix = self.decoder_path
        return [
            f"{prefix}.layers.{name}"
            for name, module in self.decoder.layers.named_modules()
            if isinstance(module, torch.nn.Linear)
        ]

    def to_device(self, value: torch.Tensor, cast: bool = True) -> torch.Tensor:
        """Move a tensor to the model's device, and floats to its dtype (most audio encoders do not cast)."""
        device = self.base.device
        return value.to(device, self.base.dtype) if cast and value.is_floating_point() else value.to(device)

    # --- audio -------------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def encode_audio(self, clips: Sequence[Clip]) -> list[AudioFeatures]:
        """Audio features of each clip, encoded one clip at a time. Raises UndersongError if they are not finite."""
        self.set_frozen_eval()
        return [self._encode_clip(clip) for clip in clips]

    def _encode_clip(self, clip: Clip) -> AudioFeatures:
        features = encode_audio(self, clip)
        if not features.is_finite:
            raise non_finite_error(self.base, self.name, f"clip {clip.id}", lambda: encode_audio(self, clip))
        return features

    def embed(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """Audio inputs of the decoder for each clip: (valid placeholders, dim) float32, by a pre-hook on layer 0."""
        return [features.valid_vectors() for features in self.encode_audio(clips)]

    def pool(self, clips: Sequence[Clip]) -> list[PooledVector]:
        """Mean audio input of the decoder for each clip (protocol `PoolingEncoder`)."""
        return [mean_pool(frames) for frames in self.embed(clips)]

    def cached_audio(self, samples: Sequence[Sample], view: str | None = None) -> CachedAudioEncoder:
        """Encoder that answers from the features of these samples. `view` is one of the family's views (default:
        decoder input).
        """
        return CachedAudioEncoder(
            {s.id: self.features_of(s) for s in samples if s.audio is not None}, self.family, view
        )

    def max_encoding_difference(self, samples: Sequence[Sample]) -> np.ndarray:
        """Largest absolute difference (1,) of the audio features with the adapter on and off, over these samples.

        It is exactly 0 if the encoder did not change.
        """
        clips, failed = load_clips(samples, self.sampling_rate)
        if failed:
            raise UndersongError(f"Clip {failed[0].id} cannot be read any more: {failed[0].reason}.")
        with_adapter = self.embed(clips)
        adapter_disabled = self.model.disable_adapter() if hasattr(self.model, "disable_adapter") else nullcontext()
        with adapter_disabled:
            without_adapter = self.embed(clips)
        return np.array([max((float(np.abs(a - b).max()) for a, b in zip(with_adapter, without_adapter)), default=0.0)])

    # --- prompts -----------------------------------------------------------------------------------------------------
    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt up to the assistant's turn, with one placeholder per audio vector.

        They are cached: templates are slow to render, and every arm of a study uses the same prompts.
        """
        placeholder_count = len(self.features_of(prompt.sample)) if prompt.modality == "audio" else 0
        text = prompt.sample.text if prompt.modality == "text" else None
        key = (placeholder_count, text, prompt.system_text, prompt.instruction, prompt.instruction_first)
        if key not in self._prompt_ids_cache:
            self._prompt_ids_cache[key] = self.processor.token_ids(
                chat_messages(prompt, self.family), placeholder_count
            )
        return self._prompt_ids_cache[key]

    def reply_ids(self, reply: str) -> list[int]:
        """Token ids of an assistant's reply with its end token."""
        return [*self.tokenizer(reply, add_special_tokens=False)["input_ids"], self.end_ids[0]]

    def features_of(self, sample: Sample) -> AudioFeatures:
        """Audio features of a sample's clip. Raises UndersongError if it has not been encoded."""
        key = clip_key(sample)
        if key not in self.audio_features:
            raise UndersongError(f"{self.name} has no audio features of sample {sample.id}; encode its corpus first.")
        return self.audio_features[key]

    def batch(self, prompts: Sequence[Prompt], replies: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Left-padded `inputs_embeds` (batch, tokens, dim), `attention_mask`, `position_ids` and, with replies,
        `labels`.

        Labels cover only the reply and its end token: no prompt, placeholder or padding (rule 6 in
        docs/contributing/rules.md). Positions are passed explicitly, because Qwen-Omni would continue those of its last
        prompt.
        """
        prompt_rows = [self.prompt_ids(prompt) for prompt in prompts]
        reply_rows = [self.reply_ids(reply) for reply in replies] if replies is not None else [[] for _ in prompts]
        rows = [prompt_row + reply_row for prompt_row, reply_row in zip(prompt_rows, reply_rows)]
        for prompt, row in zip(prompts, rows):
            self._check_token_ids(prompt, row)
        width = max(map(len, rows))
        ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for i, (row, reply_row) in enumerate(zip(rows, reply_rows)):
            ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = 1
            labels[i, width - len(reply_row) :] = torch.tensor(reply_row, dtype=labels.dtype)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = {"attention_mask": mask, "position_ids": positions} | ({"labels": labels} if replies is not None else {})
        return {"inputs_embeds": self._input_embeddings(ids, prompts)} | {
            name: self.to_device(value) for name, value in out.items()
        }

    def _check_token_ids(self, prompt: Prompt, ids: list[int]) -> None:
        """Check that there is one placeholder per audio vector: one in a text would take a vector from the clip."""
        expected = len(self.features_of(prompt.sample)) if prompt.modality == "audio" else 0
        if (count := ids.count(self.processor.audio_token_id)) != expected:
            raise UndersongError(
                f"The prompt of sample {prompt.sample.id} has {count} placeholders for {expected} audio vectors; "
                f"take {self.processor.audio_token} out of its text, reply, instruction and system text."
            )
        if self.context_length is not None and len(ids) > self.context_length:
            raise UndersongError(
                f"Sample {prompt.sample.id} makes {len(ids)} tokens, and {self.name} reads no more than "
                f"{self.context_length}; cut it."
            )

    def _input_embeddings(self, ids: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Token embeddings with the audio vectors at the placeholders, exactly as in the model's own forward."""
        ids = ids.to(self.base.device)
        with torch.no_grad():
            embeds = self.family.embed(self.base, ids)
            audio_vectors = [
                self.features_of(prompt.sample).vectors for prompt in prompts if prompt.modality == "audio"
            ]
            if audio_vectors:
                embeds[ids == self.processor.audio_token_id] = self.to_device(torch.cat(audio_vectors))
        return embeds

    # --- generation and hidden states --------------------------------------------------------------------------------
    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], limit: int, batch_size: int | None = None) -> list[Reply]:
        """Greedy replies in the order of the prompts, batched by length: new tokens only, up to the end token.

        The default `batch_size` is that of the loading options, else 128, and 32 on a CPU, whose caches hold no more. A
        batch that runs out of memory is halved. If replies are kept, the first batch is small, so that an early stop
        loses little. Raises UndersongError if a logit is not finite.
        """
        self.model.eval()
        self.check_context_length(prompts, limit)
        size = batch_size or self.batch_size or (32 if self.base.device.type == "cpu" else 128)

        keeper = self.reply_keeper

        def reply_to(rows: Sequence[int]) -> list[Reply]:
            if keeper is not None and (kept := keeper.find([prompts[i] for i in rows])) is not None:
                return kept
            inputs = self.batch([prompts[i] for i in rows])
            check = FiniteLogitsCheck()
            with greedy_decoding(self.base, limit, self.tokenizer.pad_token_id, self.end_ids):
                new_tokens = self.model.generate(**inputs, logits_processor=LogitsProcessorList([check]))
                if (row := check.first_row()) is not None:
                    raise self._non_finite_error(prompts[rows[row]], self.model.generate)
            replies = [self.reply_from_tokens(prompts[i], tokens) for i, tokens in zip(rows, new_tokens.tolist())]
            if keeper is not None:
                keeper.add(replies)
            return replies

        return self.batch_results(reply_to, prompts, size, None if keeper is None else FIRST_KEPT_BATCH)

    def batch_results(
        self,
        run: Callable[[Sequence[int]], Sequence[Any]],
        prompts: Sequence[Prompt],
        size: int,
        first_size: int | None = None,
    ) -> list[Any]:
        """One result of `run` for each prompt, in the order of the prompts, from batches as in `halved_batches`."""
        results: dict[int, Any] = {}
        for rows, batch in self.halved_batches(run, prompts, size, first_size):
            results |= dict(zip(rows, batch, strict=True))
        return [results[i] for i in range(len(prompts))]

    def halved_batches(
        self,
        run: Callable[[Sequence[int]], Sequence[Any]],
        prompts: Sequence[Prompt],
        size: int,
        first_size: int | None = None,
    ) -> Iterator[tuple[list[int], Sequence[Any]]]:
        """Yield batches of at most `size` prompt indices, shortest prompts first, with the results of `run` on them.

        The first batch has at most `first_size`, if that is given. A batch that runs out of memory is halved. Raises
        UndersongError if one prompt is too long alone.
        """
        for rows, results in halve_on_oom(run, self._order_by_length(prompts), size, first_size):
            if results is None:
                raise UndersongError(
                    f"Sample {prompts[rows[0]].sample.id} is too long for {self.name} in this memory; take a larger "
                    "device, --dtype bfloat16 or --quantize."
                )
            yield rows, results

    def check_context_length(self, prompts: Sequence[Prompt], limit: int) -> None:
        """Raise UndersongError for a prompt that leaves no room for a reply of `limit` tokens."""
        for prompt in prompts:
            if (
                self.context_length is not None
                and (tokens := len(self.prompt_ids(prompt)) + limit) > self.context_length
            ):
                raise UndersongError(
                    f"Sample {prompt.sample.id} and a reply make {tokens} tokens, and {self.name} reads no more than "
                    f"{self.context_length}; cut it, or lower the limit."
                )

    def _order_by_length(self, prompts: Sequence[Prompt]) -> list[int]:
        return sorted(range(len(prompts)), key=lambda i: (len(self.prompt_ids(prompts[i])), i))

    def reply_from_tokens(self, prompt: Prompt, tokens: list[int]) -> Reply:
        """The reply of generated token ids: up to its end token, or cut by the limit."""
        end_ids = self.end_ids
        end = next((i for i, token in enumerate(tokens) if token in end_ids), None)
        stopped = end is not None
        tokens = tokens[:end]
        text = self.tokenizer.decode(tokens, skip_special_tokens=False)
        if not self.tokenizer.decode(tokens, skip_special_tokens=True).strip():
            text = ""  # padding and other control tokens alone are no reply
        finish = "stop" if stopped else "length"
        return Reply(*prompt.key, text, len(tokens), finish)

    @torch.inference_mode()
    def hidden_states(self, prompts: Sequence[Prompt], batch_size: int | None = None) -> np.ndarray:
        """Hidden states (layers + 1, prompts, dim) float32 at the last prompt token; [0] is decoder input, [i] layer
        i's output.

        They are taken by hooks, so the last entry is the last layer's output *before* the final norm, like all others.
        The default `batch_size` is that of the loading options, else 128. A batch that runs out of memory is halved.
        Raises UndersongError for states that are not finite.
        """
        self.model.eval()
        out = np.empty((self.layers + 1, len(prompts), self.decoder.config.hidden_size), np.float32)

        def states_of(rows: Sequence[int]) -> Sequence[np.ndarray]:
            with record_last_token_states(self.decoder.layers) as states:
                self.model(**self.batch([prompts[i] for i in rows]), use_cache=False)
            stacked: np.ndarray = torch.stack([state.float().cpu() for state in states]).numpy()
            if not (finite := np.isfinite(stacked).all(axis=(0, 2))).all():
                raise self._non_finite_error(prompts[rows[int(finite.argmin())]], self.model)
            return list(stacked.swapaxes(0, 1))  # prompts first

        for rows, states in self.halved_batches(states_of, prompts, batch_size or self.batch_size or 128):
            out[:, rows] = np.stack(states, 1)
        return out

    @torch.inference_mode()
    def last_logits(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Logits (prompts, vocabulary) of the token after each prompt; a network that can computes no others.

        Raises UndersongError for logits that are not finite.
        """
        outputs = self.model(**self.batch(prompts), use_cache=False, **self.keep_logits(1))
        logits: torch.Tensor = outputs.logits[:, -1]
        if not (finite := logits.isfinite().all(1)).all():
            raise self._non_finite_error(prompts[int(finite.int().argmin())], self.model)
        return logits

    def keep_logits(self, count: int) -> dict[str, int]:
        """Argument of a forward pass that computes the logits of the last `count` tokens only, where a network can."""
        can_keep = "logits_to_keep" in inspect.signature(self.base.forward).parameters
        return {"logits_to_keep": count} if can_keep else {}

    def _non_finite_error(self, prompt: Prompt, run: Callable[..., object]) -> UndersongError:
        """The error for one prompt; `run` is the forward pass, or generation, that is repeated for it alone."""
        sample_text = f"sample {prompt.sample.id}"
        return non_finite_error(self.base, self.name, sample_text, lambda: run(**self.batch([prompt])))
