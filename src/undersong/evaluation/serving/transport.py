"""HTTP client with bounds that the client of the openai package lacks: no redirects, a largest body, a deadline.

A server that is asked for 256 tokens may send a gigabyte, a kilobyte that unpacks to one, or one byte each minute.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable
from typing import Any

ACCEPTED_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # and zlib's window bits
ENCODING_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


class ReplyOutOfBounds(Exception):
    """The reply was not read to its end; the text says why, in words that fit behind "the server"."""


class Deadline(threading.local):
    """Time at which the request of the current thread ends, and the seconds that it had."""

    at = seconds = float("inf")


def bounded_client(
    openai: Any, *, max_bytes: int, deadline: Deadline, clock: Callable[[], float], **settings: Any
) -> Any:
    """HTTP client for the openai package.

    It raises `ReplyOutOfBounds`, which older versions of the package wrap in an `APIConnectionError`.

    Args:
        openai: The package; its own kind of HTTP client is used, httpx or httpx2.
        max_bytes: Largest body, packed or unpacked.
        deadline: End of the current thread's request, by `clock`.
        clock: Gives the time in seconds.
        settings: Settings of the HTTP client.
    """

    class BoundedClient(openai.DefaultHttpxClient):
        def send(self, request: Any, **options: Any) -> Any:
            options["stream"] = True
            response = super().send(request, **options)
            try:
                chunks = within_deadline(response.iter_raw(), deadline, clock)
                body = read_body(chunks, response.headers.get("content-encoding", ""), max_bytes)
            finally:
                response.close()
            headers = [(name, value) for name, value in response.headers.items() if name not in ENCODING_HEADERS]
            return type(response)(response.status_code, headers=headers, content=body, request=request)

    return BoundedClient(follow_redirects=False, headers={"Accept-Encoding": "gzip"}, **settings)


def within_deadline(chunks: Iterable[bytes], deadline: Deadline, clock: Callable[[], float]) -> Iterable[bytes]:
    """Yield chunks until the deadline.

    Raises:
        ReplyOutOfBounds: It passed before the last chunk.
    """
    for chunk in chunks:
        if clock() > deadline.at:
            raise ReplyOutOfBounds(f"sent no whole answer within {deadline.seconds:g} s")
        yield chunk


def read_body(chunks: Iterable[bytes], encoding: str, max_bytes: int) -> bytes:
    """Unpacked body; no more than `max_bytes` are ever held.

    Args:
        chunks: The body as it was sent.
        encoding: Its Content-Encoding.
        max_bytes: Largest number of bytes, packed or unpacked.

    Raises:
        ReplyOutOfBounds: The body is larger, damaged, or packed in another way than gzip.
    """
    name = encoding.strip().lower()
    if name not in ("", "identity", *ACCEPTED_ENCODINGS):
        raise ReplyOutOfBounds("packed its reply in a way that was not asked for; let it send plain JSON")
    unpacker = zlib.decompressobj(ACCEPTED_ENCODINGS[name]) if name in ACCEPTED_ENCODINGS else None
    body, packed_bytes = bytearray(), 0
    for chunk in chunks:
        packed_bytes += len(chunk)
        try:
            body += chunk if unpacker is None else unpacker.decompress(chunk, max_bytes + 1 - len(body))
        except zlib.error:
            raise ReplyOutOfBounds("sent a reply that cannot be unpacked") from None
        if max(packed_bytes, len(body)) > max_bytes:
            raise ReplyOutOfBounds(f"sent a reply of more than {max_bytes} bytes, which is the limit")
    return bytes(body)
