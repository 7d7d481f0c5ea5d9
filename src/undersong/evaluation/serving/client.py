"""Client of an OpenAI-compatible server: parallel requests with retries, and strict parsing of chat completions.

A failed request is recorded as its result; if all requests fail, the run stops.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.evaluation.serving.endpoint import API_KEY_VARIABLE, PLACEHOLDER_KEY, ServedEndpoint, api_key
from undersong.types import UndersongError

CONTENT_FILTER = "content_filter"
# Finish reasons of a complete reply; some servers give none.
STOP_REASONS = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", None)


@dataclass(frozen=True, slots=True)
class ServerReply:
    """Reply of a server.

    `tokens` is the number of generated tokens, 0 if the server does not count them. `error` is one line, if `finish` is
    `error`.
    """

    text: str
    tokens: int
    finish: str  # stop | length | error
    error: str | None = None


def failed_reply(reason: str) -> ServerReply:
    """Reply that records a failed request."""
    return ServerReply("", 0, "error", reason)


def parse_completion(body: bytes) -> ServerReply:
    """Parse the first choice of a chat completion.

    A body of another shape, a cut by a filter, and an end by anything but the model or the limit are errors: half of an
    answer is not judged as a whole one.
    """
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, not text, or nested too deeply
        return failed_reply("the server sent no JSON")
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return failed_reply("the server sent no choices")
    finish = choice.get("finish_reason")
    if finish == CONTENT_FILTER:
        return failed_reply(f"{CONTENT_FILTER}: the server cut the answer")
    if finish not in ("length", *STOP_REASONS):
        return failed_reply("the answer ended by neither the model nor the limit")
    text = _message_text(choice.get("message"))
    if text is None:
        return failed_reply("the server sent an answer without text")
    return ServerReply(
        replace_lone_surrogates(text),
        _completion_tokens(completion.get("usage")),
        "length" if finish == "length" else "stop",
    )


def _message_text(message: Any) -> str | None:
    """Text of a message; a model that declines may do so in the field `refusal`."""
    fields = message if isinstance(message, dict) else {}
    for text in (fields.get("content"), fields.get("refusal")):
        if text is not None:
            return text if isinstance(text, str) else None
    return None


def _completion_tokens(usage: Any) -> int:
    token_count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return (
        token_count
        if isinstance(token_count, int) and not isinstance(token_count, bool) and 0 <= token_count < 2**31
        else 0
    )


def replace_lone_surrogates(text: str) -> str:
    """Text without lone surrogates, which JSON can spell but tables cannot store."""
    return text.encode("utf-8", "replace").decode("utf-8")


Messages = list[dict[str, Any]]
RequestItem = TypeVar("RequestItem")
FATAL_STATUSES = {401: "refuses the key", 403: "refuses the request", 404: "knows no such model or path"}
FILTER_CODES = (CONTENT_FILTER, "content_policy_violation", "invalid_prompt")  # error codes of servers' prompt filters
CONNECT_TIMEOUT = 5.0  # seconds
MAX_ERROR_CHARACTERS = 160  # length to which a server's error message is cut


@dataclass
class ChatClient:
    """Client of the model at an endpoint. The key is read at the first request and is not stored in this record.

    Attributes:
        endpoint: Model and address.
        timeout: Seconds without a byte from the server.
        retries: Further tries of one request, with growing pauses.
        max_parallel: Number of requests at once.
        max_consecutive_failures: Failures in a row, filters aside, that stop the run.
    """

    endpoint: ServedEndpoint
    timeout: float = 120.0
    retries: int = 5
    max_parallel: int = 8
    max_consecutive_failures: int = 10

    def complete(self, messages: Messages, max_new_tokens: int) -> ServerReply:
        """Request a greedy reply of at most `max_new_tokens` tokens.

        Raises:
            UndersongError: The failure would affect every other request too.
        """
        openai, client = self._openai
        # Errors of the package hold the request with its key, so they are not chained to ours.
        try:
            response = client.chat.completions.with_raw_response.create(
                model=self.endpoint.model, messages=messages, max_tokens=max_new_tokens, temperature=0, seed=0
            )
        except openai.APITimeoutError:
            return failed_reply(f"no answer within {self.timeout:g} s")
        except openai.APIConnectionError as error:
            if self._is_reachable():
                return failed_reply(f"the connection broke ({type(error.__cause__).__name__})")
            raise UndersongError(
                f"No server is listening at {self.endpoint.url}, where {self.endpoint.model} should be; "
                "start the server or fix the address, and try again."
            ) from None
        except openai.APIStatusError as error:
            status, code, body = error.status_code, error.code, error.body
        else:
            return parse_completion(response.http_response.content)
        return self._failed_status(status, code, body)

    def complete_all(
        self,
        items: Sequence[RequestItem],
        max_new_tokens: int,
        make_messages: Callable[[RequestItem], Messages],
        progress: ProgressCallback | None = None,
    ) -> list[ServerReply]:
        """Request one reply per item, in order.

        Args:
            items: The items.
            max_new_tokens: Token limit of a reply.
            make_messages: Makes an item's messages when its turn comes, so that at most `max_parallel` clips are in
                memory.
            progress: Called with the number of finished items.

        Raises:
            UndersongError: Too many requests failed in a row.
        """
        if not items:
            return []
        _ = self._openai  # create the client before the threads start
        replies: dict[int, ServerReply] = {}
        counter, consecutive_failures = start_progress(len(items), progress), 0

        def complete_item(i: int) -> tuple[int, ServerReply]:
            return i, self.complete(make_messages(items[i]), max_new_tokens)

        # The threads of this pool are daemons, so an error does not wait for a hanging server.
        with ThreadPool(min(self.max_parallel, len(items))) as pool:
            for i, reply in pool.imap_unordered(complete_item, range(len(items))):
                replies[i] = reply
                if reply.error is None:
                    consecutive_failures = 0
                elif not reply.error.startswith(CONTENT_FILTER):
                    consecutive_failures += 1
                if consecutive_failures >= min(self.max_consecutive_failures, len(items)):
                    request_count = "1 request" if consecutive_failures == 1 else f"{consecutive_failures} requests"
                    raise UndersongError(
                        f"{request_count} in a row to {self.endpoint.model} at {self.endpoint.url} failed (the last: "
                        f"{reply.error}); fix the server or the request, and try again."
                    )
                counter.update(len(replies))
        return [replies[i] for i in range(len(items))]

    @cached_property
    def _openai(self) -> tuple[Any, Any]:
        """The openai package, and its client."""
        check_openai(self.endpoint.model)
        import openai

        timeout = openai.Timeout(self.timeout, connect=min(self.timeout, CONNECT_TIMEOUT))
        key = api_key(self.endpoint.url)
        return openai, openai.OpenAI(base_url=self.endpoint.url, api_key=key, timeout=timeout, max_retries=self.retries)

    def _is_reachable(self) -> bool:
        """Check that a server answers at the address, with any status."""
        openai, client = self._openai
        try:
            client.with_options(
                max_retries=min(self.retries, 2), timeout=CONNECT_TIMEOUT
            ).models.with_raw_response.list()
        except openai.APIConnectionError:
            return False
        except openai.APIStatusError:
            pass
        return True

    def _failed_status(self, status: int, code: Any, body: Any) -> ServerReply:
        """Failed reply for a status, or an error for a status that stops the run."""
        message = body.get("message") if isinstance(body, dict) else None
        # A server's message about a key may repeat a part of it.
        detail = (
            f": {self._server_message(message)}"
            if isinstance(message, str) and message.strip() and status != 401
            else ""
        )
        if code in FILTER_CODES:
            return failed_reply(f"{CONTENT_FILTER}: the server does not answer this (HTTP {status}{detail})")
        if status in FATAL_STATUSES:
            raise UndersongError(
                f"The server at {self.endpoint.url} {FATAL_STATUSES[status]} "
                f"(HTTP {status}, {self.endpoint.model}{detail}); "
                f"check the model's name, the address and {API_KEY_VARIABLE}."
            )
        return failed_reply(f"HTTP {status}{detail}")

    def _server_message(self, text: str) -> str:
        """Server's message in one line, without the key."""
        _, client = self._openai
        line = " ".join(text.split())
        return (line if client.api_key == PLACEHOLDER_KEY else line.replace(client.api_key, "***"))[
            :MAX_ERROR_CHARACTERS
        ]


def check_openai(model: str) -> None:
    """Check that the openai package is installed.

    Raises:
        UndersongError: It is missing; the message names `model`.
    """
    if find_spec("openai") is None:
        raise UndersongError(f"The served model {model} needs the openai package; run pip install 'undersong[served]'.")
