"""inspect_ai's model provider `undersong/MODEL`: an audio LLM on this machine, asked as the other verbs ask it.

inspect_ai asks many things at once and one model answers: what waits while a batch is answered is the next batch.
"""

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

from undersong.integrations.inspect.conversation import Unusable, prompt_of, refuse_options
from undersong.models.loading import Loading
from undersong.pipeline.alone.evaluated import adapter_folder
from undersong.study import reply_limit
from undersong.types import Prompt, Reply, UndersongError

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel

BATCH = 32  # prompts at once, unless `--max-connections` or `-M batch=N` says otherwise
ARGUMENTS = ("device", "dtype", "device_map", "attention", "quantize", "adapter", "batch")
DEFAULTS = GenerateConfig()
STOPS: dict[str, StopReason] = {"stop": "stop", "length": "max_tokens", "error": "unknown"}


@dataclass(eq=False)  # the same prompt asked twice is two requests
class Asked:
    """One request: a prompt, its limit of new tokens, and what came of it."""

    prompt: Prompt
    limit: int
    tokens: int = 0  # of the prompt
    reply: Reply | None = None


class UndersongAPI(ModelAPI):
    """`model_name`: a folder, `ORG/NAME@REVISION` or `organism:NAME`.  `model_args`: those of `--model` verbs, and
    `adapter` (a PEFT folder) and `batch`.

    Greedy.  A clip that cannot be used is an output with `error`, so that it stays in the denominator; what the model
    cannot be asked at all (tools, images, several choices, sampling) raises UndersongError.
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
        if unknown := sorted(set(model_args) - set(ARGUMENTS)):
            raise UndersongError(f"undersong/{model_name} takes no argument {unknown[0]!r}; take {_listed(ARGUMENTS)}.")
        self._batch = int(model_args.get("batch") or config.max_connections or BATCH)
        self._loading = Loading(
            model_args.get("device", "cpu"),
            model_args.get("dtype", "float32"),
            model_args.get("device_map"),
            model_args.get("attention"),
            model_args.get("quantize"),
        )
        folder = model_args.get("adapter")
        self._adapter = None if folder is None else adapter_folder(Path(folder))
        self._worn = ExitStack()
        self._model: AudioModel | None = None
        self._waiting: list[Asked] = []
        self._turn = anyio.Lock()  # whoever holds it uses the model

    def _loaded(self) -> AudioModel:
        """The model, loaded when it is first asked: inspect_ai makes further providers only to look their names up."""
        if self._model is None:
            from undersong.models.adapters import saved_adapter
            from undersong.models.load import load_model

            model = load_model(self.model_name, self._loading)
            self._model = self._worn.enter_context(saved_adapter(model, self._adapter, anywhere=True))
        return self._model

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        name = f"undersong/{self.model_name}"
        refuse_options(config, tools, name)
        try:
            prompt = await anyio.to_thread.run_sync(prompt_of, input, name)
        except Unusable as error:
            return self._failed(str(error))
        asked = Asked(prompt, config.max_tokens or self.max_tokens())
        self._waiting.append(asked)
        async with self._turn:
            if asked.reply is None:  # else the one before answered it too
                await anyio.to_thread.run_sync(self._answer, self._take(asked))
        assert asked.reply is not None
        return self._output(asked, asked.reply)

    def _take(self, first: Asked) -> list[Asked]:
        """A request, even one that a failed batch took out of what waits, and as many with its limit as fit."""
        others = [one for one in self._waiting if one is not first and one.limit == first.limit]
        batch = [first, *others][: self._batch]
        self._waiting = [one for one in self._waiting if one not in batch]
        return batch

    def _answer(self, batch: list[Asked]) -> None:
        """Hear and ask; what cannot be asked of one is an error of that one."""
        model = self._loaded()
        askable = [one for one in batch if self._heard(model, one)]
        replies = model.generate([one.prompt for one in askable], askable[0].limit) if askable else []
        for one, reply in zip(askable, replies, strict=True):
            one.reply = reply
        model.heard.clear()  # else the clips of a whole evaluation would stay in memory

    def _heard(self, model: AudioModel, one: Asked) -> bool:
        from undersong.pipeline.alone.readied import hear_all

        try:
            hear_all(model, [one.prompt.sample])
            model.check_room([one.prompt], one.limit)
            one.tokens = len(model.prompt_ids(one.prompt))
        except UndersongError as error:
            key = (one.prompt.sample.id, one.prompt.set, one.prompt.modality, one.prompt.system)
            one.reply = Reply(*key, "", 0, "error", str(error))
            return False
        return True

    def _output(self, asked: Asked, reply: Reply) -> ModelOutput:
        if reply.error is not None:
            return self._failed(reply.error)
        message = ChatMessageAssistant(content=reply.reply, model=self.model_name, source="generate")
        usage = ModelUsage(
            input_tokens=asked.tokens, output_tokens=reply.tokens, total_tokens=asked.tokens + reply.tokens
        )
        choice = ChatCompletionChoice(message=message, stop_reason=STOPS[reply.finish])
        return ModelOutput(model=self.model_name, choices=[choice], usage=usage)

    def _failed(self, reason: str) -> ModelOutput:
        return ModelOutput.from_content(self.model_name, "", stop_reason="unknown", error=reason)

    async def count_text_tokens(self, text: str) -> int:
        """By the model's own tokenizer; the default would fetch another."""
        async with self._turn:
            model = await anyio.to_thread.run_sync(self._loaded)
        return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def max_tokens(self) -> int:
        return reply_limit(self.model_name)

    def max_connections(self) -> int:
        """As many at once as a batch holds."""
        return self._batch

    def collapse_user_messages(self) -> bool:
        return True

    def close(self) -> None:
        self._worn.close()
        self._model = None


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
