"""Client of an OpenAI-compatible server: parallel requests with retries, each bounded in time and size.

A failed request is recorded as its result; if all requests fail, the run stops.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from multiprocessing.context import TimeoutError as NothingFinished
from multiprocessing.pool import ThreadPool
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.evaluation.serving.endpoint import API_KEY_VARIABLE, PLACEHOLDER_KEY, ServedEndpoint, api_key
from undersong.evaluation.serving.server_reply import CONTENT_FILTER, ServerReply, failed_reply, parse_completion
from undersong.evaluation.serving.transport import Deadline, ReplyOutOfBounds, bounded_client
from undersong.extras import install_hint
from undersong.types import UndersongError

Messages = list[dict[str, Any]]
RequestItem = TypeVar("RequestItem")
FATAL_STATUSES = {401: "refuses the key", 403: "refuses the request", 404: "knows no such model or path"}
FILTER_CODES = (CONTENT_FILTER, "content_policy_violation", "invalid_prompt")  # error codes of servers' prompt filters
CONNECT_TIMEOUT = 5.0  # seconds
MAX_ERROR_CHARACTERS = 160  # length to which a server's error message is cut
MAX_REPLY_BYTES = 8 * 2**20  # of a reply, packed or unpacked; 256 tokens take a few thousand
MAX_RETRY_AFTER = 120.0  # seconds that a server may ask to wait
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds before a retry if the server asks for none
RETRIED_STATUSES = (408, 409, 429)  # and all from 500 on


class AnswerJournal(Protocol):
    """Keeps answers, so that the next run does not ask again."""

    def __len__(self) -> int:
        """Number of answers."""
        ...

    def find(self, request: Any) -> ServerReply | None:
        """Kept answer to a request, or None."""
        ...

    def add(self, request: Any, reply: ServerReply) -> None:
        """Keep an answer."""
        ...


@dataclass
class ChatClient:
    """Client of the model at an endpoint. The key is read at the first request and is not stored in this record.

    Attributes:
        endpoint: Model and address.
        timeout: Seconds without a byte from the server.
        retries: Further tries of one request, with growing pauses, or those that the server asks for.
        max_parallel: Number of requests at once.
        max_consecutive_failures: Failures in a row, filters aside, that stop the run.
        request_limit: Seconds of one request, with its retries and pauses.
        run_limit: Seconds of all requests of one call.
        max_bytes: Largest body of a reply.
        journal: Keeps the answers of a run that stops; None: nothing does.
        on_progress: Called with the number of finished items of `complete_all`; None: nothing is.
        clock: Gives the time in seconds.
        sleep: Waits a number of seconds.
    """

    endpoint: ServedEndpoint
    timeout: float = 120.0
    retries: int = 5
    max_parallel: int = 8
    max_consecutive_failures: int = 10
    request_limit: float = 900.0
    run_limit: float = 86_400.0
    max_bytes: int = MAX_REPLY_BYTES
    journal: AnswerJournal | None = None
    on_progress: ProgressCallback | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _deadline: Deadline = field(default_factory=Deadline, init=False, repr=False)

    def complete(self, messages: Messages, max_new_tokens: int) -> ServerReply:
        """Request a greedy reply of at most `max_new_tokens` tokens.

        Raises:
            UndersongError: The failure would affect every other request too.
        """
        self._deadline.at, self._deadline.seconds = self.clock() + self.request_limit, self.request_limit
        for failures in range(self.retries + 1):
            reply, pause = self._try_once(messages, max_new_tokens)
            if pause is None or failures == self.retries:
                break
            pause = pause or min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE)
            if self.clock() + pause > self._deadline.at:
                return failed_reply(f"{reply.error}, and {self.request_limit:g} s for one request are over")
            self.sleep(pause)
        return reply

    def _try_once(self, messages: Messages, max_new_tokens: int) -> tuple[ServerReply, float | None]:
        """Reply, and if the request may be tried again the seconds that the server asks to wait before (0: it does
        not); None if another try would be in vain."""
        openai, client = self._openai
        # Errors of the package hold the request with its key, so they are not chained to ours.
        try:
            response = client.chat.completions.with_raw_response.create(
                model=self.endpoint.model, messages=messages, max_tokens=max_new_tokens, temperature=0, seed=0
            )
        except openai.APITimeoutError:
            return failed_reply(f"no answer within {self.timeout:g} s"), 0
        except ReplyOutOfBounds as error:
            return failed_reply(f"the server {error}"), None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, ReplyOutOfBounds):
                return failed_reply(f"the server {error.__cause__}"), None
            cause = type(error.__cause__).__name__
        except openai.APIStatusError as error:
            cause = None
            status, code, body, headers = error.status_code, error.code, error.body, error.response.headers
        else:
            return parse_completion(response.http_response.content), None
        if cause is None:
            return self._failed_status(status, code, body, headers)
        failure = self._connection_failure()
        if failure is None:
            return failed_reply(f"the connection broke ({cause})"), 0
        if not _is_refusal_to_connect(failure):
            raise UndersongError(
                f"Something answers at {self.endpoint.url}, but not as an OpenAI-compatible server does "
                f"({type(failure).__name__}); fix the address, or start the server of {self.endpoint.model} there."
            )
        raise UndersongError(
            f"No server is listening at {self.endpoint.url}, where {self.endpoint.model} should be; "
            "start the server or fix the address, and try again."
        )

    def complete_all(
        self,
        items: Sequence[RequestItem],
        max_new_tokens: int,
        make_messages: Callable[[RequestItem], Messages],
    ) -> list[ServerReply]:
        """Request one reply per item, in order.

        Args:
            items: The items.
            max_new_tokens: Token limit of a reply.
            make_messages: Makes an item's messages when its turn comes, so that at most `max_parallel` clips are in
                memory.

        Raises:
            UndersongError: Too many requests failed in a row.
        """
        if not items:
            return []
        _ = self._openai  # create the client before the threads start
        replies: dict[int, ServerReply] = {}
        started: set[int] = set()
        counter, consecutive_failures = start_progress(len(items), self.on_progress), 0
        end = self.clock() + self.run_limit

        def complete_item(i: int) -> tuple[int, ServerReply]:
            started.add(i)
            return i, self._complete_or_find(make_messages(items[i]), max_new_tokens)

        # The threads of this pool are daemons, so an error does not wait for a hanging server.
        with ThreadPool(min(self.max_parallel, len(items))) as pool:
            finished = pool.imap_unordered(complete_item, range(len(items)))
            while len(replies) < len(items):
                try:
                    i, reply = finished.next(timeout=self._patience())
                except NothingFinished:
                    if len(started) < len(items) or not replies:
                        raise self._give_up("No request", f"was finished within {self._patience():g} s") from None
                    hanging = failed_reply(f"the server sent no whole answer within {self.request_limit:g} s")
                    replies |= dict.fromkeys(started - replies.keys(), hanging)
                    break
                replies[i] = reply
                if reply.error is None:
                    consecutive_failures = 0
                elif not reply.error.startswith(CONTENT_FILTER):
                    consecutive_failures += 1
                if consecutive_failures >= min(self.max_consecutive_failures, len(items)):
                    request_count = "1 request" if consecutive_failures == 1 else f"{consecutive_failures} requests"
                    raise self._give_up(f"{request_count} in a row", f"failed (the last: {reply.error})")
                if len(replies) < len(items) and self.clock() > end:
                    raise self._give_up(
                        f"{len(replies)} of {len(items)} requests",
                        f"took {self.run_limit:g} s, which is the limit",
                    )
                counter.update(len(replies))
        return [replies[i] for i in range(len(items))]

    def _complete_or_find(self, messages: Messages, max_new_tokens: int) -> ServerReply:
        """Kept answer, or else the server's, which is then kept."""
        if self.journal is None:
            return self.complete(messages, max_new_tokens)
        request = [self.endpoint.model, self.endpoint.url, max_new_tokens, messages]
        reply = self.journal.find(request)
        if reply is None:
            reply = self.complete(messages, max_new_tokens)
            if reply.error is None:
                self.journal.add(request, reply)
        return reply

    def _patience(self) -> float:
        """Seconds after which some request must have ended by its own limits; a server that sends headers byte by byte
        escapes those."""
        return self.request_limit + 2 * (self.timeout + CONNECT_TIMEOUT)

    def _give_up(self, requests: str, outcome: str) -> UndersongError:
        kept = (
            ""
            if self.journal is None
            else f" ({len(self.journal)} answers are kept, and the next run asks only for the others)"
        )
        return UndersongError(
            f"{requests} to {self.endpoint.model} at {self.endpoint.url} {outcome}; fix the server or the request, "
            f"and try again{kept}."
        )

    @cached_property
    def _openai(self) -> tuple[Any, Any]:
        """The openai package, and its client."""
        check_openai(self.endpoint.model)
        import openai

        timeout = openai.Timeout(self.timeout, connect=min(self.timeout, CONNECT_TIMEOUT))
        key = api_key(self.endpoint.url)
        http_client = bounded_client(
            openai,
            max_bytes=self.max_bytes,
            deadline=self._deadline,
            clock=self.clock,
            timeout=timeout,
            base_url=self.endpoint.url,
        )
        # Retries are ours: the package would neither end them by a deadline nor say how long a server wants to wait.
        client = openai.OpenAI(
            base_url=self.endpoint.url, api_key=key, timeout=timeout, max_retries=0, http_client=http_client
        )
        return openai, client

    def _connection_failure(self) -> BaseException | None:
        """Ask the server for its models; None if it answers, with any status, else why it does not."""
        openai, client = self._openai
        try:
            client.with_options(
                max_retries=min(self.retries, 2), timeout=CONNECT_TIMEOUT
            ).models.with_raw_response.list()
        except (ReplyOutOfBounds, openai.APIStatusError):
            return None
        except openai.APIConnectionError as error:
            return None if isinstance(error.__cause__, ReplyOutOfBounds) else error.__cause__ or error
        return None

    def _failed_status(self, status: int, code: Any, body: Any, headers: Any) -> tuple[ServerReply, float | None]:
        """Failed reply for a status and the pause before a retry as in `_try_once`, or an error that stops the run."""
        message = body.get("message") if isinstance(body, dict) else None
        # A server's message about a key may repeat a part of it.
        detail = (
            f": {self._server_message(message)}"
            if isinstance(message, str) and message.strip() and status != 401
            else ""
        )
        if 300 <= status < 400:
            raise self._redirect_error(status, headers.get("location", ""))
        if code in FILTER_CODES:
            return failed_reply(f"{CONTENT_FILTER}: the server does not answer this (HTTP {status}{detail})"), None
        if status in FATAL_STATUSES:
            raise UndersongError(
                f"The server at {self.endpoint.url} {FATAL_STATUSES[status]} "
                f"(HTTP {status}, {self.endpoint.model}{detail}); "
                f"check the model's name, the address and {API_KEY_VARIABLE}."
            )
        if status not in RETRIED_STATUSES and status < 500:
            return failed_reply(f"HTTP {status}{detail}"), None
        pause = retry_after_seconds(headers.get("retry-after", ""))
        if pause > MAX_RETRY_AFTER:
            asked = f"the server asks to wait {pause:g} s, and the limit is {MAX_RETRY_AFTER:g} s"
            return failed_reply(f"HTTP {status}{detail} ({asked})"), None
        return failed_reply(f"HTTP {status}{detail}"), pause

    def _redirect_error(self, status: int, location: str) -> UndersongError:
        """Error about a redirect; prompts go to no address that was not named."""
        host = urlsplit(self.endpoint.url).netloc
        try:
            parts = urlsplit(location)
            target = "".join(
                filter(str.isprintable, f"{parts.hostname or host}{f':{parts.port}' if parts.port else ''}")
            )
        except ValueError:
            target = "another address"
        return UndersongError(
            f"The server at {host} redirects requests to {target[:MAX_ERROR_CHARACTERS]} (HTTP {status}), where "
            f"nothing was sent; if you trust that address, name it as the address of {self.endpoint.model}."
        )

    def _server_message(self, text: str) -> str:
        """Server's message in one line, without the key."""
        _, client = self._openai
        line = " ".join(text.split())
        return (line if client.api_key == PLACEHOLDER_KEY else line.replace(client.api_key, "***"))[
            :MAX_ERROR_CHARACTERS
        ]


def retry_after_seconds(header: str) -> float:
    """Seconds of a Retry-After header; 0 if it gives no positive number of seconds."""
    try:
        seconds = float(header)
    except ValueError:  # a date, or nothing
        return 0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0


def check_openai(model: str) -> None:
    """Check that the openai package is installed.

    Raises:
        UndersongError: It is missing; the message names `model`.
    """
    if find_spec("openai") is None:
        raise UndersongError(f"The served model {model} needs the openai package; run {install_hint('served')}.")


def _is_refusal_to_connect(error: BaseException | None) -> bool:
    """True if no connection was made at all; a failed handshake of TLS is one with something that answers."""
    if not type(error).__name__.startswith("Connect"):  # ConnectError, ConnectTimeout
        return False
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return False
        error = error.__cause__ or error.__context__
    return True
