"""Questions to a served model: what every mishap of a server comes to.  A real server, on this machine."""

from __future__ import annotations

import gzip
import socket
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tiny_server import (  # noqa: F401
    TinyServer,
    answer,
    broken,
    choice,
    cut,
    endless,
    hang,
    hang_up,
    plain_environment,
    redirect,
    status,
    user_text,
)

from undersong.encoders.batching import Progress
from undersong.evaluation.serving.client import MAX_RETRY_AFTER, ChatClient, Messages
from undersong.evaluation.serving.endpoint import parse_endpoint
from undersong.evaluation.serving.journal import ReplyJournal
from undersong.evaluation.serving.server_reply import ServerReply
from undersong.types import UndersongError


@pytest.fixture
def server() -> Iterator[TinyServer]:
    with TinyServer(lambda body: f"to {user_text(body)}") as tiny:
        yield tiny


def client(server: TinyServer, **settings: Any) -> ChatClient:
    return ChatClient(parse_endpoint(server.ref), **{"timeout": 60.0, "retries": 0, **settings})


def asking(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def test_an_answer(server: TinyServer) -> None:
    assert client(server).complete(asking("a b"), 7) == ServerReply("to a b", 3, "stop")
    (body,) = server.asked
    assert body == {
        "model": "tiny", "messages": asking("a b"), "max_tokens": 7, "temperature": 0, "seed": 0,
    }  # fmt: skip
    assert server.keys == ["Bearer none"]


def test_many_are_under_way_at_once_and_answered_in_order(server: TinyServer) -> None:
    together = threading.Barrier(5)
    answered = [threading.Event() for _ in range(41)]

    def last_first(body: dict[str, Any]) -> str:
        """Five at a time, of which the last is answered first."""
        number = int(user_text(body))
        together.wait()
        if number % 5 < 4:
            answered[number + 1].wait()
        answered[number].set()
        return f"to {number}"

    server.reply = last_first
    seen: list[Progress] = []
    items = list(range(40))
    answers = client(server, max_parallel=5, on_progress=seen.append).complete_all(items, 4, lambda i: asking(str(i)))
    assert [answer.text for answer in answers] == [f"to {i}" for i in items]
    assert server.most == 5
    assert [(now.done, now.total) for now in seen] == [(i, 40) for i in range(1, 41)]
    assert client(server).complete_all([], 4, asking) == []


def test_messages_are_made_when_their_turn_comes(server: TinyServer) -> None:
    """So that no more clips than questions under way are in memory."""
    made, lock, ahead = [0], threading.Lock(), []

    def say(i: int) -> Messages:
        with lock:
            made[0] += 1
            ahead.append(made[0] - len(server.asked))
        return asking(str(i))

    client(server, max_parallel=3).complete_all(range(30), 4, say)
    assert max(ahead) <= 3
    # And one that cannot be made ends the run.
    with pytest.raises(UndersongError, match="no audio"):
        client(server).complete_all(range(3), 4, lambda i: (_ for _ in ()).throw(UndersongError("no audio")))


def test_rate_limits_and_server_errors_are_waited_out(server: TinyServer) -> None:
    server.mishaps = [status(429, retry_after="7"), status(503, retry_after="0.05"), status(500), status(503)]
    waits: list[float] = []
    assert client(server, retries=4, sleep=waits.append).complete(asking("a"), 4).text == "to a"
    assert len(server.asked) == 5
    assert waits == [7, 0.05, 2, 4]  # those that the server asks for, else growing ones
    # What outlasts the retries is that question's outcome, in one line.
    server.mishaps = [status(429, "slow\n  down", retry_after="0.01")] * 2
    one = client(server, retries=1, sleep=waits.append)
    assert one.complete(asking("a"), 4) == ServerReply("", 0, "error", "HTTP 429: slow down")
    server.mishaps = [status(500)]
    assert client(server).complete(asking("a"), 4).error == "HTTP 500"


@pytest.mark.parametrize("header", ["100000", "-5", "soon", "nan", "inf"])
def test_a_wait_that_is_too_long_is_not_waited(server: TinyServer, header: str) -> None:
    server.mishaps = [status(429, "full", retry_after=header)] * 3
    waits: list[float] = []
    error = client(server, retries=2, sleep=waits.append).complete(asking("a"), 4).error
    if header == "100000":
        assert error == f"HTTP 429: full (the server asks to wait 100000 s, and the limit is {MAX_RETRY_AFTER:g} s)"
        assert waits == []
    else:  # no number of seconds
        assert error == "HTTP 429: full"
        assert waits == [0.5, 1]


def test_a_time_out_is_an_outcome(server: TinyServer) -> None:
    server.mishaps = [hang]
    assert client(server, timeout=0.2).complete(asking("a"), 4).error == "no answer within 0.2 s"
    assert client(server).complete(asking("b"), 4).error is None


class Clock:
    """Time that passes when it is looked at."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_an_answer_that_comes_byte_by_byte_ends_at_the_limit(server: TinyServer) -> None:
    server.mishaps = [endless(b" ")]
    error = client(server, clock=Clock(0.5), request_limit=20).complete(asking("a"), 4).error
    assert error == "the server sent no whole answer within 20 s"


def test_retries_end_at_the_limit_of_a_request(server: TinyServer) -> None:
    server.mishaps = [status(503, retry_after="30")] * 9
    clock = Clock(0.5)
    one = client(server, retries=8, clock=clock, sleep=clock.sleep, request_limit=100)
    assert one.complete(asking("a"), 4).error == "HTTP 503, and 100 s for one request are over"
    assert len(server.asked) == 4


def test_a_run_ends_at_its_limit_and_keeps_its_answers(server: TinyServer, tmp_path: Path) -> None:
    one = client(server, max_parallel=1, clock=Clock(1), run_limit=10, journal=ReplyJournal(tmp_path / "answers"))
    with pytest.raises(UndersongError, match=r"of 50 requests .* took 10 s, which is the limit.* answers are kept"):
        one.complete_all(range(50), 4, lambda i: asking(str(i)))
    assert 0 < len(server.asked) < 50


def test_one_request_that_never_ends_costs_no_other(server: TinyServer) -> None:
    """Headers that come byte by byte escape the limits of a request."""
    finished: list[Progress] = []

    class Impatient(ChatClient):
        def _patience(self) -> float:
            return 0.0 if len(finished) == 2 else 600.0

    server.reply = lambda body: server.closing.wait() and "" if user_text(body) == "0" else "fine"
    one = Impatient(parse_endpoint(server.ref), retries=0, max_parallel=3)
    one.on_progress = finished.append
    answers = one.complete_all(range(3), 4, lambda i: asking(str(i)))
    assert [answer.error for answer in answers] == ["the server sent no whole answer within 900 s", None, None]
    assert [answer.text for answer in answers] == ["", "fine", "fine"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(server: TinyServer, code: int) -> None:
    with TinyServer(lambda body: "stolen") as other:
        server.mishaps = [redirect(code, f"{other.url}/chat/completions")]
        hosts = [url.split("/")[2] for url in (server.url, other.url)]
        with pytest.raises(
            UndersongError, match=rf"server at {hosts[0]} redirects requests to {hosts[1]} \(HTTP {code}\)"
        ):
            client(server, retries=2).complete(asking("secret"), 4)
        assert other.asked == []
    assert len(server.asked) == 1
    server.mishaps = [redirect(code, "/v2/chat\x1b[2J")]
    with pytest.raises(UndersongError, match=rf"redirects requests to {server.url.split('/')[2].split(':')[0]}"):
        client(server).complete(asking("secret"), 4)


def test_a_reply_without_end_takes_no_memory(server: TinyServer) -> None:
    tracemalloc.start()
    server.mishaps = [endless(b"x" * 2**16), broken(b"x" * 2**22), status(500, "x" * 2**22)]
    errors = [client(server, max_bytes=2**20).complete(asking("a"), 4).error for _ in range(3)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert errors == ["the server sent a reply of more than 1048576 bytes, which is the limit"] * 3
    assert peak < 32 * 2**20


def test_a_reply_that_unpacks_to_a_gigabyte_takes_no_memory(server: TinyServer) -> None:
    bomb = gzip.compress(bytes(2**26))
    whole = gzip.compress(b'{"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}')
    replies = ((bomb, "gzip"), (whole, "gzip"), (b"no gzip", "gzip"), (whole, "br"))

    def packed(payload: bytes, encoding: str) -> Any:
        return lambda handler: handler.send(200, payload, {"Content-Encoding": encoding})

    server.mishaps = [packed(*reply) for reply in replies]
    tracemalloc.start()
    answers = [client(server, max_bytes=2**20).complete(asking("a"), 4) for _ in replies]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [answer.text for answer in answers] == ["", "fine", "", ""]
    assert [answer.error for answer in answers] == [
        "the server sent a reply of more than 1048576 bytes, which is the limit",
        None,
        "the server sent a reply that cannot be unpacked",
        "the server packed its reply in a way that was not asked for; let it send plain JSON",
    ]
    assert peak < 32 * 2**20


def test_what_was_answered_is_not_asked_again(server: TinyServer, tmp_path: Path) -> None:
    journal, items = tmp_path / "store" / "answers", [str(i) for i in range(12)]
    server.mishaps = [answer] * 7 + [status(500)] * 5
    one = client(server, max_parallel=1, max_consecutive_failures=3, journal=ReplyJournal(journal))
    with pytest.raises(UndersongError, match="7 answers are kept, and the next run asks only for the others"):
        one.complete_all(items, 4, asking)
    assert journal.stat().st_mode & 0o777 == 0o600
    with journal.open("a") as file:
        file.write('\n{"key": "torn')
    server.mishaps = []
    server.asked.clear()
    again = client(server, max_parallel=1, journal=ReplyJournal(journal))
    assert [reply.text for reply in again.complete_all(items, 4, asking)] == [f"to {i}" for i in items]
    assert set(server.texts()) == set(items[7:])  # the first client's thread may have sent one of them
    server.asked.clear()
    again.complete_all(items, 5, asking)  # another limit is another request
    assert set(server.texts()) == set(items)


def test_filters_are_outcomes_named_so_and_do_not_end_a_run(server: TinyServer) -> None:
    cutting = choice(message={"content": "half of it"}, finish_reason="content_filter")
    declining = status(400, "flagged", error_code="content_filter")
    server.mishaps = [cutting, declining, status(403, "flagged", error_code="invalid_prompt"), cutting, declining]
    answers = client(server, max_consecutive_failures=2, max_parallel=1).complete_all(list("abcdef"), 4, asking)
    assert [(answer.error or "").partition(":")[0] for answer in answers] == ["content_filter"] * 5 + [""]
    assert {answer.text for answer in answers} == {"", "to f"}


@pytest.mark.parametrize(
    ("code", "says"), [(401, "refuses the key"), (403, "refuses the request"), (404, "no such model")]
)
def test_what_would_befall_all_stops_at_once(server: TinyServer, code: int, says: str) -> None:
    server.mishaps = [status(code, "why")] * 2 + [hang] * 98
    with pytest.raises(UndersongError, match=f"{says}.*HTTP {code}"):
        client(server, max_parallel=2, retries=3).complete_all(range(100), 4, lambda i: asking(str(i)))
    assert len(server.asked) <= 4


def test_a_wrong_model_or_path_is_said(server: TinyServer) -> None:
    with pytest.raises(UndersongError, match=r"HTTP 404, other: The model other does not exist\."):
        ChatClient(parse_endpoint(f"other@{server.url}"), retries=0).complete(asking("a"), 4)
    with pytest.raises(UndersongError, match="knows no such model or path"):
        ChatClient(parse_endpoint(f"tiny@{server.url}/v2"), retries=0).complete(asking("a"), 4)


def test_the_key_is_sent_and_never_shown(server: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSONG_API_KEY", "hush-hush-123")
    server.key = "hush-hush-123"
    one = client(server)
    assert one.complete(asking("a"), 4).text == "to a"
    assert server.keys == ["Bearer hush-hush-123"]
    server.mishaps = [status(400, "bad Bearer hush-hush-123 given")]
    told = one.complete(asking("a"), 4).error
    assert told == "HTTP 400: bad Bearer *** given"
    assert "hush" not in repr(one) + repr(vars(one)["endpoint"])
    server.key = "another"
    server.mishaps = []
    with pytest.raises(UndersongError, match="refuses the key") as error:
        one.complete(asking("a"), 4)
    server.mishaps = [status(403, "you sent hush-hush-123")]
    with pytest.raises(UndersongError, match=r"you sent \*\*\*") as other:
        one.complete(asking("a"), 4)
    for found in (error, other):
        assert "hush" not in str(found.value)
        assert found.value.__cause__ is None
        assert found.value.__suppress_context__ or found.value.__context__ is None


def test_a_server_that_is_not_there_is_said_at_once(server: TinyServer) -> None:
    server.die()
    waits: list[float] = []
    with pytest.raises(UndersongError, match=r"No server is listening at http://127\.0\.0\.1:.* where tiny should be"):
        client(server, retries=5, sleep=waits.append).complete_all(range(50), 4, lambda i: asking(str(i)))
    assert waits == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_of_something_else_is_not_called_absent(scheme: str) -> None:
    """An SSH server answers, and so does an HTTP server that is asked for TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                        connection.recv(65536)

        threading.Thread(target=greet, daemon=True).start()
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/v1"
        waiting = ChatClient(parse_endpoint(f"tiny@{url}"), retries=0)
        with pytest.raises(
            UndersongError, match=rf"Something answers at {url}, but not as an OpenAI-compatible server"
        ):
            waiting.complete(asking("a"), 4)
        listener.shutdown(socket.SHUT_RDWR)


def test_a_server_that_dies_in_the_middle_ends_the_run(server: TinyServer) -> None:
    """Else hundreds of errors would be kept as its replies."""

    def dying(body: dict[str, Any]) -> str:
        if user_text(body) == "7":
            server.die()
        return "fine"

    server.reply = dying
    with pytest.raises(UndersongError, match="No server is listening"):
        client(server, max_parallel=2).complete_all(range(200), 4, lambda i: asking(str(i)))
    assert 5 < len(server.asked) < 200


def test_a_broken_connection_to_a_server_that_lives_is_an_outcome(server: TinyServer) -> None:
    server.mishaps = [hang_up, cut]
    answers = client(server, max_parallel=1).complete_all(list("abc"), 4, asking)
    assert [answer.finish for answer in answers] == ["error", "error", "stop"]
    assert "the connection broke" in (answers[0].error or "")
    server.mishaps = [hang_up]  # and what the retries mend is none
    assert client(server, retries=1).complete(asking("a"), 4).text == "to a"


def test_failures_in_a_row_end_the_run_and_single_ones_do_not(server: TinyServer) -> None:
    def every_third(body: dict[str, Any]) -> Any:
        bad = int(user_text(body)) % 3 != 0
        return {"message": {"content": None if bad else "fine"}, "finish_reason": "stop"}

    server.reply = every_third
    answers = client(server, max_parallel=1, max_consecutive_failures=3).complete_all(
        range(30), 4, lambda i: asking(str(i))
    )
    assert [answer.finish for answer in answers] == ["stop", "error", "error"] * 10
    with pytest.raises(UndersongError, match=r"2 requests in a row to tiny .* without text"):
        client(server, max_parallel=1, max_consecutive_failures=2).complete_all(range(30), 4, lambda i: asking(str(i)))


@pytest.mark.parametrize("mishap", [broken(b'{"choices": ['), status(500), hang])
@pytest.mark.parametrize("items", [1, 3])
def test_a_server_that_answers_nothing_is_an_error_however_little_is_asked(
    server: TinyServer, mishap: Any, items: int
) -> None:
    server.mishaps = [mishap] * items
    with pytest.raises(UndersongError, match=f"{items} requests? in a row to tiny .* failed"):
        client(server, timeout=0.3).complete_all(range(items), 4, lambda i: asking(str(i)))
    # What a filter declines was answered: it is that question's outcome.
    server.mishaps = [status(400, "flagged", error_code="content_filter")] * items
    answers = client(server).complete_all(range(items), 4, lambda i: asking(str(i)))
    assert {answer.finish for answer in answers} == {"error"}


def test_an_error_does_not_wait_for_a_hanging_server(server: TinyServer) -> None:
    server.mishaps = [hang, hang, status(401)]
    with pytest.raises(UndersongError, match="refuses the key"):
        # Whoever waits for the two waits for ten minutes.
        client(server, timeout=600.0, max_parallel=3).complete_all(range(9), 4, lambda i: asking(str(i)))


def test_without_the_package_it_says_what_to_install(server: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UndersongError, match=r"needs the openai package; run pip install -e '.\[served\]'"):
        client(server).complete(asking("a"), 4)
