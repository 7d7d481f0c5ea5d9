"""Conversion of prompts to inspect_ai samples, and of samples and model outputs back to prompts and replies for a
judge."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import inspect_ai.dataset
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, ContentAudio, ContentText, ModelOutput

from undersong.evaluation.table_rows import PROMPT_METADATA_KEYS
from undersong.types import Prompt, Reply, Sample, UndersongError

AUDIO_FORMATS = {b"RIFF": ("audio/wav", "wav"), b"ID3": ("audio/mpeg", "mp3"), b"\xff\xfb": ("audio/mpeg", "mp3")}


def inspect_samples(prompts: Sequence[Prompt]) -> list[inspect_ai.dataset.Sample]:
    """Convert prompts to samples.

    The metadata has set, harmful, cluster, modality, name of the system prompt, voice and the text of the request. The
    target lists the answers that count as complying, if the corpus has them.
    """
    return [
        inspect_ai.dataset.Sample(
            id=prompt.sample.id,
            input=inspect_messages(prompt),
            target=list(prompt.sample.accepted_answers),
            metadata=sample_metadata(prompt),
        )
        for prompt in prompts
    ]


def sample_metadata(prompt: Prompt) -> dict[str, Any]:
    """Metadata of a sample: all that a verdict's row and a judge need later."""
    sample = prompt.sample
    prompt_fields = (prompt.set, prompt.harmful, sample.cluster, prompt.modality, prompt.system)
    return {**dict(zip(PROMPT_METADATA_KEYS, prompt_fields)), "speaker": sample.speaker, "text": sample.text}


def inspect_messages(prompt: Prompt) -> list[ChatMessage]:
    """Chat messages of a prompt, as undersong's provider and others that support audio understand them."""
    turns: list[ChatMessage] = [ChatMessageSystem(content=prompt.system_text)] if prompt.system_text else []
    if prompt.modality == "text":
        return [*turns, ChatMessageUser(content=prompt.user_text)]
    pieces: list[Any] = [ContentText(text=prompt.user_text)] if prompt.user_text else []
    pieces.insert(len(pieces) if prompt.instruction_first else 0, _audio_content(prompt.sample))
    return [*turns, ChatMessageUser(content=pieces)]


def _audio_content(sample: Sample) -> ContentAudio:
    """Audio as a data URI of WAV or MP3, the formats that inspect_ai names; anything else is converted to WAV."""
    from undersong.corpora.decode import file_bytes

    data = file_bytes(sample)
    mime, audio_format = next(
        (mime_and_format for magic, mime_and_format in AUDIO_FORMATS.items() if data.startswith(magic)), ("", "wav")
    )
    if not mime:
        mime, data = "audio/wav", _convert_to_wav(data)
    return ContentAudio(audio=f"data:{mime};base64,{base64.b64encode(data).decode()}", format=audio_format)


def _convert_to_wav(data: bytes) -> bytes:
    """Convert to WAV with the same samples: 16 bits if they are exactly representable, else 32."""
    import numpy as np
    import soundfile

    signal, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    is_16_bit = np.array_equal(np.round(signal * 2**15), signal * 2**15) and np.abs(signal).max() < 1
    out = io.BytesIO()
    soundfile.write(out, signal, rate, format="WAV", subtype="PCM_16" if is_16_bit else "FLOAT")
    return out.getvalue()


def prompt_of_sample(
    id: str, metadata: dict[str, Any], input_text: str, target: Sequence[str], harmful: bool
) -> Prompt:
    """Prompt of an inspect_ai sample, for a judge.

    Args:
        id: Id of the sample.
        metadata: Its metadata, from undersong or another task.
        input_text: Its input as text, used if the metadata have no text.
        target: Correct answers.
        harmful: Default if the metadata do not say whether it is harmful.

    Raises:
        UndersongError: `harmful` in the metadata is not a boolean.
    """
    text = metadata.get("text") or input_text
    cluster = metadata.get("cluster")
    sample = Sample(
        id,
        text=text,
        answers=tuple(answer for answer in target if answer),
        speaker=metadata.get("speaker"),
        group=None if cluster is None else str(cluster),
    )
    fields = {name: str(metadata.get(name) or "") for name in ("set", "modality", "system")}
    is_harmful = metadata.get("harmful", harmful)
    if not isinstance(is_harmful, bool):
        raise UndersongError(f"Sample {id} has harmful {is_harmful!r} in its metadata; write true or false.")
    return Prompt(sample, fields["set"], is_harmful, fields["modality"], fields["system"])


def reply_of_output(prompt: Prompt, output: ModelOutput) -> Reply:
    """Model output as a reply; one that failed or is empty is an `error`."""
    error = output.error or ("the model gave no output" if output.empty else None)
    if error:
        return Reply(*prompt.key, "", 0, "error", error)
    tokens = output.usage.output_tokens if output.usage else 0
    return Reply(*prompt.key, output.completion, tokens, "length" if output.stop_reason == "max_tokens" else "stop")
