"""`label`: draw replies, show them one by one on a local page, and save what a person calls them."""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from undersong.evaluation.labels import (
    LABELS,
    LabelItem,
    LabelSample,
    RepliesFile,
    append_label,
    draw_sample,
    read_sample,
    write_sample,
)
from undersong.types import Prompt, Reply, Sample, UndersongError

MAX_BODY = 4096  # bytes of a posted label
MAX_DIGITS = 9  # of a position or a length
Exchange = tuple[Prompt, Reply]


@dataclass(frozen=True)
class LabelTask:
    """A label file, and the texts that it does not hold; `total` replies of its order are to be labelled."""

    path: Path
    sample: LabelSample
    exchanges: tuple[Exchange, ...]  # of the items
    total: int

    @property
    def n_labeled(self) -> int:
        """Number of the replies to be labelled that are."""
        return sum(item in self.sample.labels for item in self.sample.order[: self.total])


def open_label_task(
    files: Sequence[Path],
    path: Path,
    *,
    n: int,
    seed: int = 0,
    judge: str = "keyword",
    manifests: Sequence[str] = (),
    harmful: bool = True,
    prompt_set: str = "",
    arm: str | None = None,
    store: Path | None = None,
) -> LabelTask:
    """Open the label file, or draw a sample and start it.

    Args:
        files: Files of replies, folders with a `replies.parquet`, or studies: their results.json, or its folder.
        path: The label file.
        n: Number of replies to label, of all files together.
        seed: Seed of the order, for a new file.
        judge: Judge whose verdicts make the strata, for a new file.
        manifests: Corpora of the prompts, if the files do not have their texts.
        harmful: Kind of the prompts, if the files do not say.
        prompt_set: Name of the prompt set, if the files do not say; of a study, the only set to label.
        arm: Of a study, the only arm to label beside the base.
        store: Store of a study; None: its own.

    Raises:
        UndersongError: A file cannot be read, has no texts of its prompts, or is not the one that the label file is of.
    """
    from undersong.corpora.registry import open_corpus
    from undersong.evaluation.judges.registry import make_judge
    from undersong.results.run_replies import find_results_file, read_study_prompts, read_study_replies
    from undersong.standalone.options import default_set_name
    from undersong.store.hashing import hash_file

    samples = {sample.id: sample for manifest in manifests for sample in open_corpus(manifest).samples} or None
    sources: list[tuple[RepliesFile, list[Exchange]]] = []
    for file in files:
        if (results := find_results_file(file)) is not None:
            prompts = read_study_prompts(results)
            for run in read_study_replies(results, store=store, arm=arm, prompt_set=prompt_set):
                sources.append((RepliesFile(hash_file(run.file), run.title), run.read_exchanges(prompts)))
            continue
        path_of_replies = file / "replies.parquet" if file.is_dir() else file
        exchanges = _read_exchanges(path_of_replies, samples, prompt_set or default_set_name(harmful), harmful)
        sources.append((RepliesFile(hash_file(path_of_replies), str(path_of_replies)), exchanges))
    by_hash = {source.sha256: (source, table) for source, table in reversed(sources)}  # equal replies are read once
    kept = [by_hash[digest] for digest in dict.fromkeys(source.sha256 for source, _ in sources)]
    known, tables = tuple(source for source, _ in kept), [table for _, table in kept]
    all_exchanges = tuple(exchange for table in tables for exchange in table)
    if path.exists():
        sample = read_sample(path)
        if [file.sha256 for file in sample.files] != [file.sha256 for file in known]:
            names = ", ".join(file.name for file in sample.files)
            raise UndersongError(f"{path} has labels of other replies ({names}); name a new file with --out.")
        drawn = [(item.key, item.harmful) for item in sample.items]
        if drawn != [(prompt.key, prompt.harmful) for prompt, _ in all_exchanges]:
            raise UndersongError(
                f"{path} was drawn from other prompts of these replies; repeat --arm, --prompt-set and --benign as "
                "they were, or name a new file with --out."
            )
    else:
        chosen = make_judge(judge, ())
        verdicts = [chosen.judge([prompt for prompt, _ in table], [reply for _, reply in table]) for table in tables]
        sample = draw_sample(known, tables, verdicts, seed)
        write_sample(sample, path)
    return LabelTask(path, sample, all_exchanges, min(n, len(sample.order)))


def _read_exchanges(file: Path, samples: dict[str, Sample] | None, set_name: str, harmful: bool) -> list[Exchange]:
    from undersong.evaluation.replies import read_reply_table

    exchanges = read_reply_table(file, samples, set_name, harmful)
    without = next((prompt for prompt, reply in exchanges if not prompt.sample.text and reply.reply.strip()), None)
    if without is not None:
        raise UndersongError(
            f"{file} has no text of the prompt {without.sample.id}, and a reply cannot be labelled without it; give "
            "the prompts with --manifest, or a column prompt."
        )
    return exchanges


class LabelServer(ThreadingHTTPServer):
    """Server of one label task on the loopback address. Whoever knows the token can read replies and label them."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, task: LabelTask, port: int = 0) -> None:
        self.task = task
        self.token = secrets.token_urlsafe(16)
        self._lock = threading.Lock()
        try:
            super().__init__(("127.0.0.1", port), LabelHandler)
        except OSError as error:
            raise UndersongError(f"Port {port} cannot be used ({error.strerror}); leave out --port.") from error

    @property
    def url(self) -> str:
        """Address of the page, with the token."""
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report a fault of ours; a browser that goes away, or sends nothing more, is none."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def item_content(self, position: int | None) -> dict[str, Any]:
        """Return what the page shows of a position in the order; None: the first without a label.

        Nothing in it tells which model gave the reply, or what a judge said.
        """
        task = self.task
        order = task.sample.order[: task.total]
        if position is None:
            position = next((i for i, item in enumerate(order) if item not in task.sample.labels), len(order))
        content: dict[str, Any] = {"labeled": task.n_labeled, "total": task.total, "done": position >= len(order)}
        if position < len(order):
            prompt, reply = task.exchanges[order[position]]
            content |= {
                "position": position,
                "harmful": prompt.harmful,
                "prompt": prompt.sample.text,
                "reply": reply.reply,
                "choices": list(LABELS[prompt.harmful]),
                "label": task.sample.labels.get(order[position]),
            }
        return content

    def save_label(self, position: int, label: str) -> dict[str, Any]:
        """Save a label, and return what comes next.

        Raises:
            ValueError: The position or the label does not exist.
        """
        with self._lock:
            task = self.task
            if not 0 <= position < task.total:
                raise ValueError(f"there is no reply {position}")
            number = task.sample.order[position]
            item: LabelItem = task.sample.items[number]
            if label not in LABELS[item.harmful]:
                raise ValueError(f"there is no label {label!r}")
            append_label(task.path, number, label)
            labels = {**task.sample.labels, number: label}
            self.task = replace(task, sample=replace(task.sample, labels=labels))
            return self.item_content(None)


class LabelHandler(BaseHTTPRequestHandler):
    """Requests of the page: itself, one reply, and a label."""

    server: LabelServer
    timeout = 60

    def do_GET(self) -> None:
        """Send the page, or a reply as JSON."""
        from undersong.pages.label_page import render_label_page

        if not self._is_allowed():
            return
        position = self._query().get("position", [None])[0]
        if self._path() == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", render_label_page())
        elif self._path() == "/reply" and (position is None or _is_number(position)):
            self._send_json(self.server.item_content(None if position is None else int(position)))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """Save a label, and send the next reply; the last label ends the server."""
        if not self._is_allowed():
            return
        length = self.headers.get("Content-Length", "")
        if self._path() != "/label" or not _is_number(length) or int(length) > MAX_BODY:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is no label")
            return
        body = self.rfile.read(int(length))
        try:
            row = json.loads(body)
            position = row["position"]
            if type(position) is not int:  # not True either, which Python counts as 1
                raise ValueError(f"the position {position!r} is no whole number")
            content = self.server.save_label(position, str(row["label"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"this is no label ({error})")
            return
        except OSError as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"the label could not be written ({error.strerror})")
            return
        self._send_json(content)
        if content["done"]:
            self.wfile.flush()
            threading.Thread(target=self.server.shutdown, daemon=True).start()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing: the address of a request has the token."""

    def _is_allowed(self) -> bool:
        """Check the token, and the host, so that no other site can reach the server under a name of its own."""
        hosts = {f"{name}:{self.server.server_port}" for name in ("127.0.0.1", "localhost")}
        token = self._query().get("token", [""])[0]
        if self.headers.get("Host") in hosts and hmac.compare_digest(token.encode(), self.server.token.encode()):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "open the address that the terminal shows")
        return False

    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _query(self) -> dict[str, list[str]]:
        return parse_qs(self.path.partition("?")[2].partition("#")[0])

    def _send_json(self, content: dict[str, Any]) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(content).encode())

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._send(status, "text/plain; charset=utf-8", reason.encode("utf-8", "replace"))

    def _send(self, status: HTTPStatus, media_type: str, body: bytes) -> None:
        from undersong.pages.label_page import label_script

        self.send_response(status)
        policy = (
            f"default-src 'none'; script-src {label_script().source}; style-src 'unsafe-inline'; connect-src 'self'"
        )
        for name, value in (
            ("Content-Type", media_type),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _is_number(text: str) -> bool:
    """True for a whole number of a length that Python converts; it refuses thousands of digits."""
    return text.isdecimal() and len(text) <= MAX_DIGITS
