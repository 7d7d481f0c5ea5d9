"""A local server that speaks /v1/chat/completions: it answers from recorded replies, and has mishaps when told to.

with TinyServer(lambda body: "fine") as server:
    server.mishaps = [status(429, retry_after="0.01"), broken(b"<html>")]   # of the next questions, in order
    ... ask at server.url ...
    server.asked    # the bodies it got, in order
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Body = dict[str, Any]
Mishap = Callable[["Handler"], None]


class Http(ThreadingHTTPServer):
    request_queue_size = 64  # with the five of the default, a burst of connections waits for a second


class TinyServer:
    """`reply`: from the body of a request to what the model says, or to a whole `choices[0]`."""

    def __init__(self, reply: Callable[[Body], Any], model: str = "tiny", key: str | None = None) -> None:
        self.reply, self.model, self.key = reply, model, key
        self.mishaps: list[Mishap] = []
        self.asked: list[Body] = []
        self.keys: list[str] = []
        self.most = self._now = 0  # replies being thought about at once
        self.lock = threading.Lock()
        self.closing = threading.Event()  # ends what hangs
        handler = type("TinyHandler", (Handler,), {"tiny": self})
        self._http = Http(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self.ref = f"{model}@{self.url}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> TinyServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Nobody listens at the address any more."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Ends before the answer is sent: after it, the client may ask again at once."""
        with self.lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self.lock:
                self._now -= 1

    def texts(self) -> list[str]:
        """What users said, in the order it came in."""
        return [user_text(body) for body in self.asked]


class Handler(BaseHTTPRequestHandler):
    tiny: TinyServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send(200, {"data": []})

    def do_POST(self) -> None:
        tiny = self.tiny
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with tiny.lock:
            tiny.asked.append(self.body)
            tiny.keys.append(self.headers["Authorization"])
            mishap = tiny.mishaps.pop(0) if tiny.mishaps else answer
        mishap(self)

    def send(
        self, code: int, data: Any, headers: Mapping[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(payload)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)


def answer(handler: Handler) -> None:
    """No mishap, unless the question itself is one."""
    tiny = handler.tiny
    if tiny.key is not None and handler.headers["Authorization"] != f"Bearer {tiny.key}":
        sent = handler.headers["Authorization"][:12]  # as servers do that show a part of it
        return handler.send(
            401, {"error": {"message": f"Incorrect API key provided: {sent}", "code": "invalid_api_key"}}
        )
    if handler.path != "/v1/chat/completions" or handler.body["model"] != tiny.model:
        return handler.send(404, {"error": {"message": f"The model {handler.body['model']} does not exist."}})
    with tiny.counted():
        said = tiny.reply(handler.body)
    choice = said if isinstance(said, dict) else {"message": {"content": said}, "finish_reason": "stop"}
    count = len(str(said).split())
    return handler.send(200, {"model": tiny.model, "choices": [choice], "usage": {"completion_tokens": count}})


def status(code: int, message: str = "", retry_after: str | None = None, error_code: str | None = None) -> Mishap:
    """An HTTP status with an error as OpenAI spells it."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return lambda handler: handler.send(code, {"error": {"message": message, "code": error_code}}, headers)


def hang(handler: Handler) -> None:
    """No answer, however long one waits."""
    handler.close_connection = True
    handler.tiny.closing.wait()


def endless(chunk: bytes, headers: Mapping[str, str] | None = None) -> Mishap:
    """HTTP 200 with a body that ends when the client hangs up or the server closes."""

    def send(handler: Handler) -> None:
        handler.close_connection = True
        handler.send(200, chunk, {"Content-Length": str(2**40), **(headers or {})})
        with suppress(OSError):
            while not handler.tiny.closing.is_set():
                handler.wfile.write(chunk)

    return send


def redirect(code: int, location: str) -> Mishap:
    """A status that sends the client to another address."""
    return lambda handler: handler.send(code, b"", {"Location": location})


def broken(payload: bytes, kind: str = "application/json") -> Mishap:
    """HTTP 200 with something else in it."""
    return lambda handler: handler.send(200, payload, kind=kind)


def choice(**fields: Any) -> Mishap:
    """HTTP 200 with this `choices[0]`."""
    return lambda handler: handler.send(200, {"choices": [fields]})


def cut(handler: Handler) -> None:
    """Half of an answer, and the connection ends."""
    handler.close_connection = True
    handler.send(200, b'{"choices": [', {"Content-Length": "1000"})


def hang_up(handler: Handler) -> None:
    """The connection ends without a word."""
    handler.close_connection = True


def user_text(body: Body) -> str:
    """The text of the last turn, whether its content is a string or parts."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys, and no proxy between the client and this machine; for every test of a file that imports it."""
    for name in ("UNDERSONG_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
