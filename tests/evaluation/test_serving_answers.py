"""What a server's answer is read as, and that nonsense is an outcome of its own.  A real server, on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tiny_server import TinyServer, broken, choice, plain_environment  # noqa: F401

from undersong.evaluation.serving.client import ChatClient
from undersong.evaluation.serving.endpoint import parse_endpoint
from undersong.evaluation.serving.server_reply import ServerReply, parse_completion


@pytest.fixture
def server() -> Iterator[TinyServer]:
    with TinyServer(lambda body: "fine") as tiny:
        yield tiny


def ask(server: TinyServer) -> ServerReply:
    return ChatClient(parse_endpoint(server.ref), timeout=60.0, retries=0).complete(
        [{"role": "user", "content": "a"}], 4
    )


NONSENSE = {
    "html": (broken(b"<html>Welcome</html>", "text/html"), "no JSON"),
    "bytes": (broken(b"\xff\xfe\x00\x01"), "no JSON"),
    "half": (broken(b'{"choices": ['), "no JSON"),
    "nested": (broken(b"[" * 100_000), "no JSON"),
    "list": (broken(b"[1, 2]"), "no choices"),
    "no choices": (broken(b'{"object": "x"}'), "no choices"),
    "empty choices": (broken(b'{"choices": []}'), "no choices"),
    "odd choices": (broken(b'{"choices": {"0": 1}}'), "no choices"),
    "odd choice": (broken(b'{"choices": ["yes"]}'), "no choices"),
    "error inside": (broken(b'{"error": {"message": "busy"}}'), "no choices"),
    "no message": (choice(finish_reason="stop"), "without text"),
    "null": (choice(message={"content": None}, finish_reason="stop"), "without text"),
    "number": (choice(message={"content": 7}, finish_reason="stop"), "without text"),
    "parts": (choice(message={"content": [{"type": "text", "text": "yes"}]}, finish_reason="stop"), "without text"),
    "tools": (choice(message={"content": "x"}, finish_reason="tool_calls"), "neither the model nor the limit"),
    "odd end": (choice(message={"content": "x"}, finish_reason=["stop"]), "neither the model nor the limit"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_an_outcome(server: TinyServer, name: str) -> None:
    mishap, says = NONSENSE[name]
    server.mishaps = [mishap]
    answer = ask(server)
    assert (answer.text, answer.tokens, answer.finish) == ("", 0, "error")
    assert says in (answer.error or "")


def test_ends_and_counts(server: TinyServer) -> None:
    server.mishaps = [
        choice(message={"content": "half"}, finish_reason="length"),
        choice(message={"content": "whole"}, finish_reason=None),
        choice(message={"content": None, "refusal": "I cannot."}, finish_reason="stop"),
        choice(message={"content": ""}, finish_reason="stop"),
    ]
    found = [ask(server) for _ in range(4)]
    assert found == [
        ServerReply("half", 0, "length"),
        ServerReply("whole", 0, "stop"),
        ServerReply("I cannot.", 0, "stop"),
        ServerReply("", 0, "stop"),
    ]
    one = {"choices": [{"message": {"content": "a\ud800b"}, "finish_reason": "stop"}]}
    for count, tokens in ((5, 5), (-1, 0), (True, 0), ("5", 0), (1e9, 0), (2**80, 0), (None, 0)):
        body = json.dumps({**one, "usage": {"completion_tokens": count}}).encode()
        assert parse_completion(body) == ServerReply("a?b", tokens, "stop")  # no table could hold half a surrogate pair
