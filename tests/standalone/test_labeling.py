"""`undersong label`: its server shows replies blind, takes labels from its page alone, and saves each at once."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from command_line import undersong_in
from labeled import HELP, REFUSAL, label_files, truth_of, write_replies

from undersong.cli import main
from undersong.evaluation.labels import read_sample
from undersong.standalone.labeling import LabelServer, open_label_task
from undersong.types import UndersongError

Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LabelServer]:
    """A running server of four of the replies of two models."""
    files = [write_replies(tmp_path / name, [HELP, REFUSAL] * n) for name, n in (("a.jsonl", 5), ("b.jsonl", 6))]
    with LabelServer(open_label_task(files, tmp_path / "labels.jsonl", n=4)) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server: LabelServer, path: str, body: Any = None, token: str | None = None, host: str | None = None):
    """Status, headers and content of one answer."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=600)
    mark = "&" if "?" in path else "?"
    headers = {} if host is None else {"Host": host}
    text = None if body is None else body if isinstance(body, str) else json.dumps(body)
    path = f"{path}{mark}token={server.token if token is None else token}"
    connection.request("GET" if body is None else "POST", path, text, headers)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_the_page_is_whole_and_warns(server: LabelServer) -> None:
    status, headers, page = ask(server, "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert b"This page shows replies to harmful requests in full." in page
    assert HELP.encode() not in page


def test_replies_are_shown_blind_and_labels_saved_at_once(server: LabelServer, tmp_path: Path) -> None:
    item = json.loads(ask(server, "/reply")[2])
    assert set(item) == {"labeled", "total", "done", "position", "harmful", "prompt", "reply", "choices", "label"}
    assert (item["labeled"], item["total"], item["position"], item["label"]) == (0, 4, 0, None)
    seen = 0
    while not item["done"]:
        label = truth_of(item["reply"])
        item = json.loads(ask(server, "/label", {"position": item["position"], "label": label})[2])
        seen += 1
        assert read_sample(tmp_path / "labels.jsonl").n_labeled == seen
    assert (seen, item["labeled"]) == (4, 4)


def test_one_can_go_back_and_change_a_label(server: LabelServer, tmp_path: Path) -> None:
    ask(server, "/label", {"position": 0, "label": "other"})
    item = json.loads(ask(server, "/reply?position=0")[2])
    assert item["label"] == "other"
    assert json.loads(ask(server, "/label", {"position": 0, "label": "unsure"})[2])["position"] == 1
    sample = read_sample(tmp_path / "labels.jsonl")
    assert sample.labels == {sample.order[0]: "unsure"}


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("/", {"token": "wrong"}, 403),
        ("/reply", {"token": ""}, 403),
        ("/reply", {"host": "elsewhere.example"}, 403),
        ("/label", {"body": {"position": 0, "label": "other"}, "token": "wrong"}, 403),
        ("/label", {"body": {"position": 9, "label": "other"}}, 400),
        ("/label", {"body": {"position": 0, "label": "answer"}}, 400),
        ("/label", {"body": {"position": 1.5, "label": "other"}}, 400),
        ("/label", {"body": {"position": True, "label": "other"}}, 400),
        ("/label", {"body": {"position": "0", "label": "other"}}, 400),
        ("/label", {"body": "no json"}, 400),
        ("/label", {"body": "x" * 5000}, 400),
        ("/other", {"body": {}}, 400),
        ("/other", {}, 404),
        ("/reply?position=-1", {}, 404),
    ],
)
def test_what_is_not_a_request_of_the_page_is_refused(
    server: LabelServer, tmp_path: Path, path: str, more: dict[str, Any], status: int
) -> None:
    found, _, content = ask(server, path, **more)
    assert found == status
    assert HELP.encode() not in content
    assert read_sample(tmp_path / "labels.jsonl").n_labeled == 0


def send_raw(server: LabelServer, request: str) -> bytes:
    """The whole answer to a request that no client would make."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=600) as connection:
        connection.sendall(request.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("line", "headers", "body", "status"),
    [
        ("GET /reply?position=" + "9" * 5000 + "&token=TOKEN", "", "", 404),  # Python converts no more than 4300 digits
        ("GET //[?token=TOKEN", "", "", 404),  # no address, says urlsplit
        ("POST /label?token=TOKEN", "Content-Length: " + "9" * 5000, "", 400),
        ("POST /label?token=TOKEN", "Content-Length: 4000", "[" * 4000, 400),  # deeper than Python's stack
        ("POST /label?token=TOKEN", "Content-Length: 40", "{", 400),
        ("POST /label?token=TOKEN", "Content-Length: x", "", 400),
        ("POST /label?token=TOKEN", "", "", 400),
        ("POST /label?token=TOKEN", "Content-Length: 20", '{"position": "\xff"}', 400),
        ("GET //[?token=wrong", "", "", 403),
    ],
)
def test_a_bad_request_leaves_no_traceback(
    server: LabelServer, line: str, headers: str, body: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    host = f"Host: 127.0.0.1:{server.server_port}\r\n"
    head = (
        f"{line.replace('TOKEN', server.token)} HTTP/1.0\r\n{host}{headers}{chr(13) + chr(10) if headers else ''}\r\n"
    )
    answer = send_raw(server, head + body)
    assert answer.startswith(f"HTTP/1.0 {status} ".encode())
    assert answer.rstrip().rpartition(b"\r\n\r\n")[2].count(b"\n") == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_browser_that_goes_away_leaves_no_traceback(server: LabelServer, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (ConnectionResetError("gone"), TimeoutError("timed out"), ZeroDivisionError("ours")):
        try:
            raise error
        except type(error):
            server.handle_error(None, ("127.0.0.1", 1))
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: ours" in shown
    assert "gone" not in shown
    assert "timed out" not in shown


def test_a_port_that_is_taken_is_named(server: LabelServer) -> None:
    with pytest.raises(UndersongError, match=f"Port {server.server_port} cannot be used"):
        LabelServer(server.task, server.server_port)


def test_the_command_says_what_is_labelled_and_serves_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_replies(tmp_path / "a.jsonl", [HELP, REFUSAL] * 5)
    labels = label_files([file], tmp_path / "labels.jsonl", 6)
    monkeypatch.setattr(sys, "argv", ["undersong", "label", str(file), "--out", str(labels), "--n", "6"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    assert f"6 of 6 replies are labelled; use them with --labels {labels}" in capsys.readouterr().out


def test_the_command_serves_until_all_is_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's part is played by a thread that starts when the address is printed."""
    file = write_replies(tmp_path / "a.jsonl", [HELP, REFUSAL] * 5)

    def serve(server: LabelServer, poll_interval: float = 0.5) -> None:
        item = server.item_content(None)
        while not item["done"]:
            item = server.save_label(item["position"], "refusal")

    monkeypatch.setattr(LabelServer, "serve_forever", serve)
    monkeypatch.setattr(sys, "argv", ["undersong", "label", str(file), "--out", str(tmp_path / "l.jsonl"), "--n", "3"])
    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    assert "0 of 3 replies are labelled. Replies to harmful prompts are shown in full." in out
    assert "http://127.0.0.1:" in out
    assert "3 of 3 replies are labelled" in out


def test_an_interruption_says_how_many_labels_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_replies(tmp_path / "a.jsonl", [HELP, REFUSAL] * 5)

    def stop(server: LabelServer, poll_interval: float = 0.5) -> None:
        server.save_label(0, "refusal")
        raise KeyboardInterrupt

    monkeypatch.setattr(LabelServer, "serve_forever", stop)
    monkeypatch.setattr(sys, "argv", ["undersong", "label", str(file), "--out", str(tmp_path / "l.jsonl"), "--n", "3"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert f"1 of 3 labels are in {tmp_path / 'l.jsonl'}, and the same command goes on" in capsys.readouterr().err


def test_the_folders_of_evaluate_need_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the guide, one after the other, on replies that were collected before."""
    undersong = undersong_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"p{i}", "text": f"do thing {i}"} for i in range(40)]
    (tmp_path / "harm.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, texts in (("before", [REFUSAL] * 40), ("after", [HELP] * 20 + [REFUSAL] * 20)):
        key = {"set": "harm", "modality": "text", "system": "plain"}
        replies = [{"prompt_id": f"p{i}", **key, "reply": text} for i, text in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, replies)))
        arguments = ("--model", f"recorded:{name}.jsonl", "--judge", "keyword", "--modality", "text", "--out", name)
        code, _, err = undersong("evaluate", "harm.jsonl", *arguments)
        assert code == 0, err

    def serve(server: LabelServer, poll_interval: float = 0.5) -> None:
        item = server.item_content(None)
        while not item["done"]:
            assert item["prompt"].startswith("do thing")
            item = server.save_label(item["position"], truth_of(item["reply"]))

    monkeypatch.setattr(LabelServer, "serve_forever", serve)
    code, out, err = undersong("label", "before", "after", "--out", "labels.jsonl", "--n", 60)
    assert code == 0, err
    assert "60 of 60 replies are labelled" in out
    code, out, err = undersong("compare", "before", "after", "--labels", "labels.jsonl")
    assert code == 0, err
    assert "Corrected by 60 labels, the JSR changed by +50.0 points" in out
