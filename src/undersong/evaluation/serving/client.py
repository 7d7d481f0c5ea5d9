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

from undersong.encoders.progress import Watcher, watch
from undersong.evaluation.serving.address import KEY, NO_KEY, Served, api_key
from undersong.evaluation.serving.answers import FILTER, Answer, failed, read_answer
from undersong.types import UndersongError

Messages = list[dict[str, Any]]
Item = TypeVar("Item")
REFUSALS = {401: "refuses the key", 403: "refuses the request", 404: "knows no such model or path"}
FILTER_CODES = (FILTER, "content_policy_violation", "invalid_prompt")  # of servers that look at what is asked
CONNECT = 5.0  # seconds
TOLD = 160  # characters of what a server says of a failure


@dataclass
class Client:
    """The model at an address.  The key is read when the first question is asked, and is no part of this record.

    `timeout`: seconds without a byte from the server; `retries`: further tries of one question, with a growing pause;
    `parallel`: questions under way at once; `patience`: failures in a row, filters aside, that end the run.
    """

    served: Served
    timeout: float = 120.0
    retries: int = 5
    parallel: int = 8
    patience: int = 10

    def ask(self, messages: Messages, limit: int) -> Answer:
        """The greedy answer of at most `limit` tokens.  UndersongError: what would befall every other question too."""
        openai, client = self._openai
        # What the package raises holds the request with its key, so it is not chained to what we say.
        try:
            raw = client.chat.completions.with_raw_response.create(
                model=self.served.model, messages=messages, max_tokens=limit, temperature=0, seed=0
            )
        except openai.APITimeoutError:
            return failed(f"no answer within {self.timeout:g} s")
        except openai.APIConnectionError as error:
            if self._is_there():
                return failed(f"the connection broke ({type(error.__cause__).__name__})")
            raise UndersongError(
                f"Nobody answers at {self.served.url}, where {self.served.model} should be; start the server or mend "
                "the address, and ask again."
            ) from None
        except openai.APIStatusError as error:
            status, code, body = error.status_code, error.code, error.body
        else:
            return read_answer(raw.http_response.content)
        return self._failed(status, code, body)

    def ask_all(
        self,
        items: Sequence[Item],
        limit: int,
        say: Callable[[Item], Messages],
        tell: Watcher | None = None,
    ) -> list[Answer]:
        """One answer an item, in order.  `say` makes an item's messages when its turn comes, so that no more than
        `parallel` clips are in memory; `tell` hears how many are done."""
        if not items:
            return []
        _ = self._openai  # made before there are threads
        answers: dict[int, Answer] = {}
        watched, in_a_row = watch(len(items), tell), 0

        def one(i: int) -> tuple[int, Answer]:
            return i, self.ask(say(items[i]), limit)

        # This pool's threads do not hold up the end of the program, so an error does not wait for a hanging server.
        with ThreadPool(min(self.parallel, len(items))) as pool:
            for i, answer in pool.imap_unordered(one, range(len(items))):
                answers[i] = answer
                if answer.error is None:
                    in_a_row = 0
                elif not answer.error.startswith(FILTER):
                    in_a_row += 1
                if in_a_row >= min(self.patience, len(items)):
                    questions = "1 question" if in_a_row == 1 else f"{in_a_row} questions"
                    raise UndersongError(
                        f"{questions} in a row to {self.served.model} at {self.served.url} had no answer (the "
                        f"last: {answer.error}); mend the server or the request, and ask again."
                    )
                watched.at(len(answers))
        return [answers[i] for i in range(len(items))]

    @cached_property
    def _openai(self) -> tuple[Any, Any]:
        """(the package, its client)."""
        check_openai(self.served.model)
        import openai

        timeout = openai.Timeout(self.timeout, connect=min(self.timeout, CONNECT))
        key = api_key(self.served.url)
        return openai, openai.OpenAI(base_url=self.served.url, api_key=key, timeout=timeout, max_retries=self.retries)

    def _is_there(self) -> bool:
        """Whether anything answers at the address, whatever it says."""
        openai, client = self._openai
        try:
            client.with_options(max_retries=min(self.retries, 2), timeout=CONNECT).models.with_raw_response.list()
        except openai.APIConnectionError:
            return False
        except openai.APIStatusError:
            pass
        return True

    def _failed(self, status: int, code: Any, body: Any) -> Answer:
        """What a status means: an answer that is none, or the end of the run."""
        said = body.get("message") if isinstance(body, dict) else None
        # What a server says of a key may repeat a part of it.
        told = f": {self._told(said)}" if isinstance(said, str) and said.strip() and status != 401 else ""
        if code in FILTER_CODES:
            return failed(f"{FILTER}: the server does not answer this (HTTP {status}{told})")
        if status in REFUSALS:
            raise UndersongError(
                f"The server at {self.served.url} {REFUSALS[status]} (HTTP {status}, {self.served.model}{told}); check "
                f"the model's name, the address and {KEY}."
            )
        return failed(f"HTTP {status}{told}")

    def _told(self, text: str) -> str:
        """What a server said, in one line, without the key that it was asked with."""
        _, client = self._openai
        line = " ".join(text.split())
        return (line if client.api_key == NO_KEY else line.replace(client.api_key, "***"))[:TOLD]


def check_openai(model: str) -> None:
    """Raises UndersongError where served models cannot be asked; `model`: whom the message names."""
    if find_spec("openai") is None:
        raise UndersongError(
            f"Asking the served model {model} needs the openai package; run pip install 'undersong[served]'."
        )
