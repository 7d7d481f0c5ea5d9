"""One adapter for audio LLMs: what they hear, what they say, what they think at the last prompt token.

Every path goes the same way: a clip is heard once (`listen`: the vectors the decoder gets at the audio placeholders),
and prompts are built around what was heard.  The encoder and projector are frozen, so this is exact, and a clip's
vectors are reused by embedding, tuning, evaluation and mechanism.  Knows families; does not know studies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from undersong.corpora import load_clips
from undersong.models.families import Family
from undersong.types import Clip, Prompt, Reply, Sample, UndersongError

if TYPE_CHECKING:
    from torch import nn


def clip_key(sample: Sample) -> str:
    """What a clip's vectors are filed under: its content where that is known, so that ids may repeat across corpora."""
    return sample.pcm_hash or sample.id


class _Stop(Exception):
    """Ends a forward pass once the wanted activations are there."""


@dataclass(frozen=True)
class Ears:
    """The part of AudioLM an internal encoder needs, answered from what was already heard."""

    vectors: Mapping[str, np.ndarray]  # sample id -> (placeholders, dim)

    def embed(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """What the decoder heard of each clip."""
        return [self.vectors[clip.id] for clip in clips]


class AudioModel:
    """A loaded model with its processor, as the protocol `AudioLM` (and `batch`, which tuning and mechanism share)."""

    def __init__(self, model: nn.Module, processor: Any, family: Family, name: str, fingerprint: str) -> None:
        self.model: Any = model.eval()
        self.processor, self.family, self.name, self.fingerprint = processor, family, name, fingerprint
        self.tokenizer = processor.tokenizer
        self.audio_token: str = processor.audio_token
        self.audio_token_id: int = self.tokenizer.convert_tokens_to_ids(self.audio_token)
        self.heard: dict[str, np.ndarray] = {}  # clip key -> (placeholders, dim), by `features.listen`
        self._remembered: set[str] = set()
        self._rendered: dict[tuple, list[int]] = {}  # what a prompt depends on -> its token ids

    def remember(self, name: str, load: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Fill the ears with features cached under `name`, once."""
        if name not in self._remembered:
            self.heard.update(load())
            self._remembered.add(name)

    # --- the parts ---------------------------------------------------------------------------------------------------
    @property
    def base(self) -> Any:
        """The transformers model, with or without an adapter around it."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def decoder(self) -> Any:
        return self.base.get_decoder()

    @property
    def sampling_rate(self) -> int:
        """Of the clips it hears, in Hz."""
        return int(self.processor.feature_extractor.sampling_rate)

    @property
    def layers(self) -> int:
        return len(self.decoder.layers)

    @property
    def frozen(self) -> dict[str, nn.Module]:
        """Path -> module of everything that must not learn: encoder and projector."""
        return {path: self.base.get_submodule(path) for path in (self.family.tower, self.family.projector)}

    def quiet(self) -> None:
        """Encoder and projector to eval mode; needed after every `.train()`, or dropout and statistics move."""
        for module in self.frozen.values():
            module.eval()

    def linear_paths(self) -> list[str]:
        """Full module paths of every linear layer of the decoder's blocks (what LoRA adapts by default)."""
        decoder = self.decoder
        prefix = next(name for name, module in self.base.named_modules() if module is decoder)
        return [
            f"{prefix}.layers.{name}"
            for name, module in decoder.layers.named_modules()
            if isinstance(module, torch.nn.Linear)
        ]

    # --- hearing -----------------------------------------------------------------------------------------------------
    @torch.inference_mode()
    def embed(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """What the decoder hears: per clip (placeholders, dim) float32, taken by a pre-hook on decoder layer 0."""
        if not clips:
            return []
        self.quiet()
        conversations = [[{"role": "user", "content": [{"type": "audio", "audio": clip.samples}]}] for clip in clips]
        inputs = self.processor.apply_chat_template(
            conversations,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            processor_kwargs=self.family.processor_arguments,
        )
        inputs = {name: self._place(value) for name, value in inputs.items()}
        at_audio = inputs["input_ids"] == self.audio_token_id
        states = self._decoder_input(inputs)
        heard = [states[i][at_audio[i]].float().cpu().numpy() for i in range(len(clips))]
        self._check_placeholders(clips, heard, inputs[self.family.feature_mask])
        return heard

    def _check_placeholders(self, clips: Sequence[Clip], heard: list[np.ndarray], mask: torch.Tensor) -> None:
        """The family's formula against what the processor made: some models run silently wrong on a mismatch."""
        if len(mask) != len(clips):  # one row a window, not a clip: long audio was cut into windows
            return
        for clip, vectors, frames in zip(clips, heard, mask.sum(1).tolist()):
            expected = self.family.audio_tokens(int(frames))
            if len(vectors) != expected:
                raise UndersongError(
                    f"{self.name} made {len(vectors)} placeholders for clip {clip.id} where the family "
                    f"{self.family.model_type} makes {expected}; its processor does not fit its weights."
                )

    def _decoder_input(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """(batch, tokens, dim): the input of decoder layer 0."""
        caught: list[torch.Tensor] = []

        def catch(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])
            raise _Stop

        hook = self.decoder.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            self.model(**inputs, use_cache=False)
        except _Stop:
            pass
        finally:
            hook.remove()
        return caught[0]

    def _place(self, value: torch.Tensor) -> torch.Tensor:
        """To the model's device, and floats to its dtype (the towers do not cast)."""
        device = self.base.device
        return value.to(device, self.base.dtype) if value.is_floating_point() else value.to(device)

    def ears(self, samples: Sequence[Sample]) -> Ears:
        """What was heard of these samples, as an object that embeds them."""
        return Ears({sample.id: self._heard(sample) for sample in samples if sample.audio is not None})

    def hearing_difference(self, samples: Sequence[Sample]) -> np.ndarray:
        """(1,): largest absolute difference of what is heard with the adapter on and off, over these samples.

        Both passes have the same batch, so an encoder that did not move gives exactly 0.
        """
        clips, failed = load_clips(samples, self.sampling_rate)
        if failed:
            raise UndersongError(f"Clip {failed[0].id} cannot be read any more: {failed[0].reason}.")
        now = self.embed(clips)
        off = self.model.disable_adapter() if hasattr(self.model, "disable_adapter") else nullcontext()
        with off:
            then = self.embed(clips)
        return np.array([max((float(np.abs(a - b).max()) for a, b in zip(now, then)), default=0.0)])

    # --- prompts -----------------------------------------------------------------------------------------------------
    def conversation(self, prompt: Prompt) -> list[dict[str, Any]]:
        """Chat messages of a prompt; audio content stands as a placeholder."""
        said: list[dict[str, str]] = [{"type": "audio", "audio": ""}] if prompt.modality == "audio" else []
        if prompt.modality == "text":
            said.append({"type": "text", "text": prompt.sample.text or ""})
        if prompt.instruction:
            said.append({"type": "text", "text": prompt.instruction})
        turns: list[dict[str, Any]] = []
        if prompt.system_text:
            turns.append({"role": "system", "content": [{"type": "text", "text": prompt.system_text}]})
        return [*turns, {"role": "user", "content": said}]

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt up to where the assistant speaks, placeholders expanded to what was heard.

        Remembered: templates are slow to render, and every arm of a study asks the same prompts.
        """
        heard = len(self._heard(prompt.sample)) if prompt.modality == "audio" else None
        asked = prompt.sample.text if prompt.modality == "text" else None
        key = (heard, asked, prompt.system_text, prompt.instruction)
        if key not in self._rendered:
            text = self.processor.apply_chat_template(
                self.conversation(prompt), tokenize=False, add_generation_prompt=True
            )
            if heard is not None:
                text = text.replace(self.audio_token, self.audio_token * heard, 1)
            self._rendered[key] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._rendered[key]

    def reply_ids(self, reply: str) -> list[int]:
        """Token ids of an assistant's reply with its end token."""
        return [*self.tokenizer(reply, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]

    def _heard(self, sample: Sample) -> np.ndarray:
        key = clip_key(sample)
        if key not in self.heard:
            raise UndersongError(f"{self.name} has not heard sample {sample.id}; listen to its corpus first.")
        return self.heard[key]

    def batch(self, prompts: Sequence[Prompt], replies: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Left-padded `inputs_embeds` (batch, tokens, dim), `attention_mask` and, with replies, `labels`.

        Labels cover the assistant's reply and its end token only: no prompt, placeholder or padding (DESIGN rule 6).
        """
        asked = [self.prompt_ids(prompt) for prompt in prompts]
        answers = [self.reply_ids(reply) for reply in replies] if replies is not None else [[] for _ in prompts]
        rows = [a + b for a, b in zip(asked, answers)]
        for prompt, row in zip(prompts, rows):
            self._check_count(prompt, row)
        width = max(map(len, rows))
        ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for i, (row, answer) in enumerate(zip(rows, answers)):
            ids[i, width - len(row) :] = torch.tensor(row)
            mask[i, width - len(row) :] = 1
            labels[i, width - len(answer) :] = torch.tensor(answer, dtype=labels.dtype)
        out = {"inputs_embeds": self._embeds(ids, prompts), "attention_mask": mask.to(self.base.device)}
        if replies is not None:
            out["labels"] = labels.to(self.base.device)
        return out

    def _check_count(self, prompt: Prompt, ids: list[int]) -> None:
        """As many placeholders as heard vectors: a placeholder typed into a text would take a vector from the clip."""
        heard = len(self._heard(prompt.sample)) if prompt.modality == "audio" else 0
        if (count := ids.count(self.audio_token_id)) != heard:
            raise UndersongError(
                f"Sample {prompt.sample.id} has {count} placeholders for {heard} heard vectors; "
                f"take {self.audio_token} out of its texts."
            )

    def _embeds(self, ids: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Token embeddings with what was heard at the placeholders, exactly as the model's own forward makes them."""
        ids = ids.to(self.base.device)
        with torch.no_grad():
            embeds = self.base.get_input_embeddings()(ids)
            spoken = [self._heard(prompt.sample) for prompt in prompts if prompt.modality == "audio"]
            if spoken:
                embeds[ids == self.audio_token_id] = self._place(torch.from_numpy(np.concatenate(spoken)))
        return embeds

    # --- speaking and thinking ---------------------------------------------------------------------------------------
    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], limit: int, batch_size: int = 128) -> list[Reply]:
        """Greedy replies in the order of the prompts; batched by length, stopped at the end token, new tokens only."""
        self.model.eval()
        replies: dict[int, Reply] = {}
        for rows in self._by_length(prompts, batch_size):
            chosen = [prompts[i] for i in rows]
            new = self.model.generate(
                **self.batch(chosen),
                max_new_tokens=limit,
                do_sample=False,
                num_beams=1,  # what a checkpoint's own generation config says of these would make models decode
                repetition_penalty=1.0,  # differently (DESIGN rule 8)
                pad_token_id=self.tokenizer.pad_token_id,
                eos_token_id=self.tokenizer.eos_token_id,
            )
            for i, tokens in zip(rows, new.tolist()):
                replies[i] = self._reply(prompts[i], tokens)
        return [replies[i] for i in range(len(prompts))]

    def _by_length(self, prompts: Sequence[Prompt], size: int) -> Iterator[list[int]]:
        order = sorted(range(len(prompts)), key=lambda i: (len(self.prompt_ids(prompts[i])), i))
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def _reply(self, prompt: Prompt, tokens: list[int]) -> Reply:
        end = self.tokenizer.eos_token_id
        stopped = end in tokens
        tokens = tokens[: tokens.index(end)] if stopped else tokens
        text = self.tokenizer.decode(tokens, skip_special_tokens=False)
        finish = "stop" if stopped else "length"
        return Reply(prompt.sample.id, prompt.set, prompt.modality, prompt.system, text, len(tokens), finish)

    @torch.inference_mode()
    def hidden(self, prompts: Sequence[Prompt], batch_size: int = 128) -> np.ndarray:
        """(layers + 1, prompts, dim) float32 at the last prompt token; [0] is decoder input, [i] layer i's output.

        Taken by hooks, so the last entry is the last layer's output *before* the final norm, like all the others.
        """
        self.model.eval()
        out = np.empty((self.layers + 1, len(prompts), self.decoder.config.hidden_size), np.float32)
        for rows in self._by_length(prompts, batch_size):
            with self._last_token_states() as states:
                self.model(**self.batch([prompts[i] for i in rows]), use_cache=False)
            out[:, rows] = torch.stack(states).float().cpu().numpy()
        return out

    @contextmanager
    def _last_token_states(self) -> Iterator[list[torch.Tensor]]:
        """Collects (batch, dim) at the last position: layer 0's input, then every layer's output."""
        states: list[torch.Tensor] = []

        def first(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            states.append((args[0] if args else kwargs["hidden_states"])[:, -1])

        def each(_module: nn.Module, _args: tuple, output: Any) -> None:
            states.append((output[0] if isinstance(output, tuple) else output)[:, -1])

        layers = self.decoder.layers
        hooks = [layers[0].register_forward_pre_hook(first, with_kwargs=True)]
        hooks += [layer.register_forward_hook(each) for layer in layers]
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()
