"""Questions to an OpenAI-compatible server, several at a time: each has an answer, or a reason why it has none.

The `openai` package (extra `served`) does connections, time-outs, and retries with back-off as the server asks for.
What is decided here is what a failure means.  One that concerns one question (a time-out, a 5xx, a rate limit that
outlasts the retries, a filter, nonsense) is that question's answer.  One that concerns all of them stops at once,
because answers are kept as artefacts, and a table of errors would be kept for good: a key, a model or an address that
is refused (401, 403, 404), nobody at the address any more, `patience` failures in a row, or not one answer to all that
was asked, however little that is.

Knows messages; does not know what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from multiprocessing.pool import ThreadPool
from typing import Any, TypeVar

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.evaluation.serving.answers import CONTENT_FILTER, ServerReply, failed_reply, parse_completion
from undersong.evaluation.serving.endpoint import API_KEY_VARIABLE, PLACEHOLDER_KEY, ServedEndpoint, api_key
from undersong.types import UndersongError

Messages = list[dict[str, Any]]
RequestItem = TypeVar("RequestItem")
FATAL_STATUSES = {401: "refuses the key", 403: "refuses the request", 404: "knows no such model or path"}
FILTER_CODES = (CONTENT_FILTER, "content_policy_violation", "invalid_prompt")  # of servers that look at what is asked
CONNECT_TIMEOUT = 5.0  # seconds
MAX_ERROR_CHARACTERS = 160  # characters of what a server says of a failure


@dataclass
class ChatClient:
    """The model at an address.  The key is read when the first question is asked, and is no part of this record.

    `timeout`: seconds without a byte from the server; `retries`: further tries of one question, with a growing pause;
    `parallel`: questions under way at once; `patience`: failures in a row, filters aside, that end the run.
    """

    endpoint: ServedEndpoint
    timeout: float = 120.0
    retries: int = 5
    max_parallel: int = 8
    max_consecutive_failures: int = 10

    def complete(self, messages: Messages, max_new_tokens: int) -> ServerReply:
        """The greedy answer of at most `limit` tokens.  UndersongError: what would befall every other question too."""
        openai, client = self._openai
        # What the package raises holds the request with its key, so it is not chained to what we say.
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
                f"Nobody answers at {self.endpoint.url}, where {self.endpoint.model} should be; start the server or mend "
                "the address, and ask again."
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
        """One answer an item, in order.  `say` makes an item's messages when its turn comes, so that no more than
        `parallel` clips are in memory; `tell` hears how many are done."""
        if not items:
            return []
        _ = self._openai  # made before there are threads
        replies: dict[int, ServerReply] = {}
        counter, consecutive_failures = start_progress(len(items), progress), 0

        def complete_item(i: int) -> tuple[int, ServerReply]:
            return i, self.complete(make_messages(items[i]), max_new_tokens)

        # This pool's threads do not hold up the end of the program, so an error does not wait for a hanging server.
        with ThreadPool(min(self.max_parallel, len(items))) as pool:
            for i, reply in pool.imap_unordered(complete_item, range(len(items))):
                replies[i] = reply
                if reply.error is None:
                    consecutive_failures = 0
                elif not reply.error.startswith(CONTENT_FILTER):
                    consecutive_failures += 1
                if consecutive_failures >= min(self.max_consecutive_failures, len(items)):
                    request_count = "1 question" if consecutive_failures == 1 else f"{consecutive_failures} questions"
                    raise UndersongError(
                        f"{request_count} in a row to {self.endpoint.model} at {self.endpoint.url} had no answer (the "
                        f"last: {reply.error}); mend the server or the request, and ask again."
                    )
                counter.update(len(replies))
        return [replies[i] for i in range(len(items))]

    @cached_property
    def _openai(self) -> tuple[Any, Any]:
        """(the package, its client)."""
        check_openai(self.endpoint.model)
        import openai

        timeout = openai.Timeout(self.timeout, connect=min(self.timeout, CONNECT_TIMEOUT))
        key = api_key(self.endpoint.url)
        return openai, openai.OpenAI(base_url=self.endpoint.url, api_key=key, timeout=timeout, max_retries=self.retries)

    def _is_reachable(self) -> bool:
        """Whether anything answers at the address, whatever it says."""
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
        """What a status means: an answer that is none, or the end of the run."""
        message = body.get("message") if isinstance(body, dict) else None
        # What a server says of a key may repeat a part of it.
        detail = (
            f": {self._server_message(message)}"
            if isinstance(message, str) and message.strip() and status != 401
            else ""
        )
        if code in FILTER_CODES:
            return failed_reply(f"{CONTENT_FILTER}: the server does not answer this (HTTP {status}{detail})")
        if status in FATAL_STATUSES:
            raise UndersongError(
                f"The server at {self.endpoint.url} {FATAL_STATUSES[status]} (HTTP {status}, {self.endpoint.model}{detail}); check "
                f"the model's name, the address and {API_KEY_VARIABLE}."
            )
        return failed_reply(f"HTTP {status}{detail}")

    def _server_message(self, text: str) -> str:
        """What a server said, in one line, without the key that it was asked with."""
        _, client = self._openai
        line = " ".join(text.split())
        return (line if client.api_key == PLACEHOLDER_KEY else line.replace(client.api_key, "***"))[
            :MAX_ERROR_CHARACTERS
        ]


def check_openai(model: str) -> None:
    """Raises UndersongError where served models cannot be asked; `model`: whom the message names."""
    if find_spec("openai") is None:
        raise UndersongError(
            f"Asking the served model {model} needs the openai package; run pip install 'undersong[served]'."
        )
