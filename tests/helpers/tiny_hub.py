"""A hub on 127.0.0.1 that serves folders as repositories, with byte ranges, and counts the bytes it sends of each file.

A request for more of a weight file than its header is answered, and seen in the counts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "c0ffee" + 34 * "0"
API = re.compile(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/[^?]+)?(?:\?.*)?$")
FILE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/[^/]+/([^?]+)")


@dataclass
class Hub:
    """Repositories by id, and what was sent of their files: `id/file` -> bytes."""

    repositories: Mapping[str, Path]
    address: str = ""
    sent: Counter[str] = field(default_factory=Counter)


@contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve the folders under their ids until the end of the block."""
    hub = Hub(repositories)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(head=True)

        def do_GET(self) -> None:
            self.answer(head=False)

        def log_message(self, *_arguments: object) -> None: ...

        def answer(self, head: bool) -> None:
            if match := API.match(self.path):
                name = match[1]
                siblings = [{"rfilename": file} for file in files(hub.repositories.get(name))]
                body = json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}).encode()
                self.send(body, head, 200 if name in hub.repositories else 404, {"Content-Type": "application/json"})
                return
            match = FILE.match(self.path)
            path = hub.repositories[match[1]] / match[2] if match and match[1] in hub.repositories else None
            if path is None or not path.is_file():
                self.send(b"", head, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                return
            data = path.read_bytes()
            facts = {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted:
                start, end = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
                facts["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
                data = data[start : end + 1]
            if not head:
                hub.sent[f"{match[1]}/{match[2]}"] += len(data)
            self.send(data, head, 206 if wanted else 200, facts)

        def send(self, body: bytes, head: bool, status: int, facts: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in facts.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not head:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files(folder: Path | None) -> list[str]:
    """The files of a repository, by their paths in it."""
    if folder is None:
        return []
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
