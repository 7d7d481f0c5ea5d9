"""inspect_ai model provider `undersong/MODEL`: an audio LLM on this machine, with requests collected into batches."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from undersong.models.load_options import LoadOptions
from undersong.phrases import join_items
from undersong.research.inspect.messages import UnusableClipError, check_generate_options, prompt_of_messages
from undersong.settings.defaults import default_max_new_tokens
from undersong.standalone.inputs import check_adapter_folder
from undersong.types import Prompt, Reply, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

BATCH_SIZE = 32  # prompts at once, unless `--max-connections` or `-M batch=N` says otherwise
MODEL_ARGUMENTS = ("device", "dtype", "device_map", "attention", "quantize", "adapter", "batch")
DEFAULTS = GenerateConfig()
STOP_REASONS: dict[str, StopReason] = {"stop": "stop", "length": "max_tokens", "error": "unknown"}


@dataclass(eq=False)  # the same prompt sent twice is two requests
class PendingRequest:
    """Request to the model: a prompt, its token limit, and its reply."""

    prompt: Prompt
    max_new_tokens: int
    prompt_tokens: int = 0
    reply: Reply | None = None


class UndersongAPI(ModelAPI):
    """Model provider for audio LLMs on this machine, with greedy decoding.

    `model_name` is a folder, `ORG/NAME@REVISION` or `organism:NAME`. `model_args` are the loading options of the verbs'
    `--model`, and `adapter` (a PEFT folder) and `batch`. A clip that cannot be used gives an output with `error`, so
    that it stays in the denominator. Requests that the model cannot serve at all (tools, images, several choices,
    sampling) raise UndersongError.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = DEFAULTS,
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if unknown := sorted(set(model_args) - set(MODEL_ARGUMENTS)):
            raise UndersongError(
                f"undersong/{model_name} has no argument {unknown[0]!r}; use {join_items(MODEL_ARGUMENTS, 'or')}."
            )
        self._batch_size = int(model_args.get("batch") or config.max_connections or BATCH_SIZE)
        self._loading = LoadOptions(
            model_args.get("device", "cpu"),
            model_args.get("dtype", "float32"),
            model_args.get("device_map"),
            model_args.get("attention"),
            model_args.get("quantize"),
        )
        folder = model_args.get("adapter")
        self._adapter = None if folder is None else check_adapter_folder(Path(folder))
        self._adapter_stack = ExitStack()
        self._model: AudioModel | None = None
        self._pending: list[PendingRequest] = []
        self._model_lock = anyio.Lock()  # held while the model is used

    def _load_model(self) -> AudioModel:
        """Load the model on first use: inspect_ai makes further providers only to look up their names."""
        if self._model is None:
            from undersong.models.adapter_check import check_adapter_weights
            from undersong.models.load import load_model
            from undersong.models.lora import use_adapter

            if self._adapter is not None:
                check_adapter_weights(self._adapter)
            model = load_model(self.model_name, self._loading)
            self._model = self._adapter_stack.enter_context(
                use_adapter(model, self._adapter, allow_outside_decoder=True)
            )
        return self._model

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        name = f"undersong/{self.model_name}"
        check_generate_options(config, tools, name)
        try:
            prompt = await anyio.to_thread.run_sync(prompt_of_messages, input, name)
        except UnusableClipError as error:
            return self._error_output(str(error))
        request = PendingRequest(prompt, config.max_tokens or self.max_tokens())
        self._pending.append(request)
        async with self._model_lock:
            if request.reply is None:  # else an earlier batch included this request
                await anyio.to_thread.run_sync(self._answer_batch, self._next_batch(request))
        assert request.reply is not None
        return self._reply_output(request, request.reply)

    def _next_batch(self, request: PendingRequest) -> list[PendingRequest]:
        """Batch of a request (even one that a failed batch removed from the queue) and others with its token limit."""
        other_requests = [
            pending
            for pending in self._pending
            if pending is not request and pending.max_new_tokens == request.max_new_tokens
        ]
        batch = [request, *other_requests][: self._batch_size]
        self._pending = [pending for pending in self._pending if pending not in batch]
        return batch

    def _answer_batch(self, batch: list[PendingRequest]) -> None:
        """Generate replies for a batch; a request that cannot be served gets an error of its own."""
        model = self._load_model()
        ready = [request for request in batch if self._prepare_request(model, request)]
        replies = model.generate([request.prompt for request in ready], ready[0].max_new_tokens) if ready else []
        for request, reply in zip(ready, replies, strict=True):
            request.reply = reply
        model.audio_features.clear()  # otherwise the clips of a whole evaluation would stay in memory

    def _prepare_request(self, model: AudioModel, request: PendingRequest) -> bool:
        from undersong.standalone.inputs import cache_all_audio

        try:
            cache_all_audio(model, [request.prompt.sample])
            model.check_context_length([request.prompt], request.max_new_tokens)
            request.prompt_tokens = len(model.prompt_ids(request.prompt))
        except UndersongError as error:
            request.reply = Reply(*request.prompt.key, "", 0, "error", str(error))
            return False
        return True

    def _reply_output(self, request: PendingRequest, reply: Reply) -> ModelOutput:
        if reply.error is not None:
            return self._error_output(reply.error)
        message = ChatMessageAssistant(content=reply.reply, model=self.model_name, source="generate")
        usage = ModelUsage(
            input_tokens=request.prompt_tokens,
            output_tokens=reply.tokens,
            total_tokens=request.prompt_tokens + reply.tokens,
        )
        choice = ChatCompletionChoice(message=message, stop_reason=STOP_REASONS[reply.finish])
        return ModelOutput(model=self.model_name, choices=[choice], usage=usage)

    def _error_output(self, reason: str) -> ModelOutput:
        return ModelOutput.from_content(self.model_name, "", stop_reason="unknown", error=reason)

    async def count_text_tokens(self, text: str) -> int:
        """Count tokens with the model's own tokenizer; the default would download another."""
        async with self._model_lock:
            model = await anyio.to_thread.run_sync(self._load_model)
        return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def max_tokens(self) -> int:
        return default_max_new_tokens(self.model_name)

    def max_connections(self) -> int:
        """Number of requests in a batch."""
        return self._batch_size

    def collapse_user_messages(self) -> bool:
        return True

    def close(self) -> None:
        self._adapter_stack.close()
        self._model = None
