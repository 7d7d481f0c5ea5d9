"""Questions to a served model: what every mishap of a server comes to.  A real server, on this machine."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tiny_server import TinyServer, broken, choice, cut, hang_up, plain_environment, slow, status, user_text  # noqa: F401

from undersong.encoders.batching import Progress
from undersong.evaluation.serving.client import ChatClient, Messages, ServerReply
from undersong.evaluation.serving.endpoint import parse_endpoint
from undersong.types import UndersongError


@pytest.fixture
def server() -> Iterator[TinyServer]:
    with TinyServer(lambda body: f"to {user_text(body)}") as tiny:
        yield tiny


def client(server: TinyServer, **settings: Any) -> ChatClient:
    return ChatClient(parse_endpoint(server.ref), **{"timeout": 5.0, "retries": 0, **settings})


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
    def late(body: dict[str, Any]) -> str:
        text = user_text(body)
        time.sleep(0.002 * (40 - int(text)))  # the first ones take longest
        return f"to {text}"

    server.reply = late
    seen: list[Progress] = []
    items = list(range(40))
    answers = client(server, max_parallel=5).complete_all(items, 4, lambda i: asking(str(i)), seen.append)
    assert [answer.text for answer in answers] == [f"to {i}" for i in items]
    assert 1 < server.most <= 5
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
    waits = [status(429, retry_after="0.05"), status(503, retry_after="0.05"), status(500, retry_after="0.05")]
    server.mishaps = list(waits)
    start = time.monotonic()
    assert client(server, retries=3).complete(asking("a"), 4).text == "to a"
    assert len(server.asked) == 4
    assert time.monotonic() - start >= 0.15
    # What outlasts the retries is that question's outcome, in one line.
    server.mishaps = [status(429, "slow\n  down", retry_after="0.01")] * 2
    assert client(server, retries=1).complete(asking("a"), 4) == ServerReply("", 0, "error", "HTTP 429: slow down")
    server.mishaps = [status(500)]
    assert client(server).complete(asking("a"), 4).error == "HTTP 500"


def test_a_time_out_is_an_outcome(server: TinyServer) -> None:
    server.mishaps = [slow(1.0)]
    answers = client(server, timeout=0.2, max_parallel=1).complete_all(["a", "b"], 4, asking)
    assert [answer.error for answer in answers] == ["no answer within 0.2 s", None]


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
    server.mishaps = [status(code, "why")] * 100
    with pytest.raises(UndersongError, match=f"{says}.*HTTP {code}"):
        client(server, max_parallel=2, retries=3).complete_all(range(100), 4, lambda i: asking(str(i)))
    assert len(server.asked) <= 6


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
    start = time.monotonic()
    with pytest.raises(UndersongError, match=r"No server is listening at http://127\.0\.0\.1:.* where tiny should be"):
        client(server).complete_all(range(50), 4, lambda i: asking(str(i)))
    assert time.monotonic() - start < 3


def test_a_server_that_dies_in_the_middle_ends_the_run(server: TinyServer) -> None:
    """Else hundreds of errors would be kept as its replies."""

    def dying(body: dict[str, Any]) -> str:
        if user_text(body) == "7":
            threading.Thread(target=server.die).start()
            time.sleep(0.1)
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


@pytest.mark.parametrize("mishap", [broken(b'{"choices": ['), status(500), slow(1.0)])
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
    server.mishaps = [slow(4.0), slow(4.0), status(401)]
    start = time.monotonic()
    with pytest.raises(UndersongError, match="refuses the key"):
        client(server, timeout=4.0, max_parallel=3).complete_all(range(9), 4, lambda i: asking(str(i)))
    assert time.monotonic() - start < 2


def test_without_the_package_it_says_what_to_install(server: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UndersongError, match=r"needs the openai package; run pip install 'undersong\[served\]'"):
        client(server).complete(asking("a"), 4)
