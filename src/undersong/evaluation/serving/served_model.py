"""Served audio LLM as a black-box model: prompts as chat messages with `input_audio` parts, replies by greedy decoding.
Serve vLLM with `--generation-config vllm`."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from undersong.evaluation.serving.client import ChatClient, Messages, check_openai
from undersong.evaluation.serving.endpoint import SERVED_PREFIX, parse_endpoint
from undersong.evaluation.serving.server_reply import ServerReply, replace_lone_surrogates
from undersong.types import Clip, Prompt, Reply, Sample, UndersongError

SAMPLE_RATE = 16_000  # Hz; the input rate of nearly all audio LLMs, and of local models here


@dataclass
class ServedModel:
    """Black-box model behind an endpoint."""

    client: ChatClient

    @property
    def name(self) -> str:
        """`served:MODEL`, without the address."""
        return f"{SERVED_PREFIX}{self.client.endpoint.model}"

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the model for artifacts."""
        return {"served": self.client.endpoint.model, "url": self.client.endpoint.url}

    def generate(self, prompts: Sequence[Prompt], limit: int) -> list[Reply]:
        """Generate one greedy reply per prompt, in order; a failed one has finish `error` and no text."""
        server_replies = self.client.complete_all(prompts, limit, openai_messages)
        return [_reply_to_prompt(prompt, server_reply) for prompt, server_reply in zip(prompts, server_replies)]


def served_model(ref: str) -> ServedModel:
    """Model at `[served:]MODEL@URL`; it connects when it first generates."""
    return ServedModel(ChatClient(parse_endpoint(ref)))


def check_served_dependencies(ref: str) -> None:
    """Check that the packages for the model at `[served:]MODEL@URL` are installed.

    Raises:
        UndersongError: A package is missing, or the endpoint is invalid.
    """
    check_openai(parse_endpoint(ref).model)


def openai_messages(prompt: Prompt) -> Messages:
    """Prompt as chat messages, in the order of `AudioModel.conversation`.

    Raises:
        UndersongError: There is no text to send, or no audio.
    """
    text = replace_lone_surrogates(prompt.user_text)
    content: Any = text
    if prompt.modality == "audio":
        content = [_audio_part(prompt.sample)]
        if text:
            content.insert(0 if prompt.instruction_first else 1, {"type": "text", "text": text})
    if not content:
        raise UndersongError(
            f"Sample {prompt.sample.id} of set {prompt.set} has no text to send; add it, or use audio."
        )
    system: Messages = [{"role": "system", "content": prompt.system_text}] if prompt.system_text else []
    return [*system, {"role": "user", "content": content}]


def _audio_part(sample: Sample) -> dict[str, Any]:
    from undersong.corpora.decode import load_clips

    clips, failures = load_clips([sample], SAMPLE_RATE)
    if failures:
        raise UndersongError(f"Clip {sample.id} cannot be sent: {failures[0].reason}; fix or remove it.")
    data = base64.b64encode(encode_wav(clips[0])).decode("ascii")
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def encode_wav(clip: Clip) -> bytes:
    """Encode a clip as a WAV file of 16-bit PCM at its own rate; values beyond full scale are clipped, not wrapped."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, clip.samples, clip.rate, subtype="PCM_16", format="WAV")
    return file.getvalue()


def _reply_to_prompt(prompt: Prompt, server_reply: ServerReply) -> Reply:
    return Reply(*prompt.key, server_reply.text, server_reply.tokens, server_reply.finish, server_reply.error)
