"""A served audio LLM as a black-box model: prompts as chat messages with `input_audio` parts, replies by greedy
decoding. Serve vLLM with `--generation-config vllm`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from undersong.encoders.batching import ProgressCallback
from undersong.evaluation.serving.client import ChatClient, Messages, ServerReply, check_openai, replace_lone_surrogates
from undersong.evaluation.serving.endpoint import SERVED_PREFIX, parse_endpoint
from undersong.types import Clip, Prompt, Reply, Sample, UndersongError

SAMPLE_RATE = 16_000  # Hz of what is sent: what nearly all audio LLMs hear, and what local ones are given here


@dataclass
class ServedModel:
    """A black-box model behind an address.  `tell` hears how many prompts are done."""

    client: ChatClient
    progress: ProgressCallback | None = None

    @property
    def name(self) -> str:
        """`served:MODEL`, without the address."""
        return f"{SERVED_PREFIX}{self.client.endpoint.model}"

    @property
    def facts(self) -> dict[str, Any]:
        """What an artifact notes of the model it was made with."""
        return {"served": self.client.endpoint.model, "url": self.client.endpoint.url}

    def generate(self, prompts: Sequence[Prompt], limit: int) -> list[Reply]:
        """One greedy reply a prompt, in order; one that the server failed to give has finish `error` and no text."""
        server_replies = self.client.complete_all(prompts, limit, openai_messages, self.progress)
        return [_reply_to_prompt(prompt, server_reply) for prompt, server_reply in zip(prompts, server_replies)]


def served_model(ref: str, progress: ProgressCallback | None = None) -> ServedModel:
    """The model at `[served:]MODEL@URL`; no connection is made before it is asked."""
    return ServedModel(ChatClient(parse_endpoint(ref)), progress)


def check_served_dependencies(ref: str) -> None:
    """Raises UndersongError where what asks the model at `[served:]MODEL@URL` is not installed."""
    check_openai(parse_endpoint(ref).model)


def openai_messages(prompt: Prompt) -> Messages:
    """A prompt as chat messages, in the order of `AudioModel.conversation`.  Errors: nothing to ask, or no audio."""
    text = replace_lone_surrogates(prompt.user_text)
    content: Any = text
    if prompt.modality == "audio":
        content = [_audio_part(prompt.sample)]
        if text:
            content.insert(0 if prompt.instruction_first else 1, {"type": "text", "text": text})
    if not content:
        raise UndersongError(
            f"Sample {prompt.sample.id} of set {prompt.set} has no text to ask; give it, or take audio."
        )
    system: Messages = [{"role": "system", "content": prompt.system_text}] if prompt.system_text else []
    return [*system, {"role": "user", "content": content}]


def _audio_part(sample: Sample) -> dict[str, Any]:
    from undersong.corpora import load_clips

    clips, failures = load_clips([sample], SAMPLE_RATE)
    if failures:
        raise UndersongError(f"Clip {sample.id} cannot be sent: {failures[0].reason}; mend it or take it out.")
    data = base64.b64encode(encode_wav(clips[0])).decode("ascii")
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def encode_wav(clip: Clip) -> bytes:
    """A clip as a WAV file of 16-bit PCM at its own rate; what is beyond full scale is clipped, not wrapped."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, clip.samples, clip.rate, subtype="PCM_16", format="WAV")
    return file.getvalue()


def _reply_to_prompt(prompt: Prompt, server_reply: ServerReply) -> Reply:
    return Reply(
        prompt.sample.id, prompt.set, prompt.modality, prompt.system, server_reply.text, server_reply.tokens, server_reply.finish,
        server_reply.error,
    )  # fmt: skip
