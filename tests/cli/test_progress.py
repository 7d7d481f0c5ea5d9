"""Progress: lines in a log, one live display on a terminal, and nothing of a name is taken for an order."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from undersong.cli.progress import ProgressDisplay
from undersong.cli.terminal import EscapingStream
from undersong.encoders.batching import Progress, watch_progress, watch_worker


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Set in the test itself: pytest puts its own stream there after the fixtures."""
    stream = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", EscapingStream(stream))
    return stream


def test_a_log_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as say:
        say("a line")
        report = watch_progress("training", say)
        assert report is not None
        report(Progress(1, 40, 1.0, "loss 2.000"))  # too early for a line
        report(Progress(20, 40, 20.0, "loss 1.250"))
    assert capsys.readouterr().err.splitlines() == [
        "a line",
        "training: 20 of 40, 1 a second, 20 s left, loss 1.250",
    ]


def test_a_terminal_gets_a_bar_with_count_rate_and_note(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    with ProgressDisplay() as say:
        report = watch_progress("asking [bold]al\x1b[2J", say)
        assert report is not None
        report(Progress(20, 40, 10.0, "loss 1.250"))
        say("a line above [red]the bar")
        say._bars.refresh()
    shown = terminal.getvalue()
    assert "20/40" in shown
    assert "2/s, loss 1.250" in shown
    assert "a line above [red]the bar" in shown  # names are no markup
    assert "asking [bold]al" in shown
    assert "al\x1b[2J" not in shown


def test_the_display_ends_with_its_context_also_by_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    say = ProgressDisplay()

    def interrupted() -> None:
        with say:
            say.watch("asking")(Progress(1, 2, 1.0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert say._bars is None
    written = terminal.getvalue()
    say("below")
    assert terminal.getvalue() == f"{written}below\n"


def test_a_pass_that_is_done_leaves_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    open_terminal(monkeypatch)
    with ProgressDisplay() as say:
        report = say.watch("asking")
        report(Progress(1, 2, 1.0))
        report(Progress(2, 2, 2.0))
        assert say._bars.tasks == []


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with ProgressDisplay() as say:
        say.watch("asking")(Progress(1, 2, 20.0))
    assert terminal.getvalue() == "asking: 1 of 2, 0.05 a second, 20 s left\n"


def test_a_further_pass_of_a_task_has_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as say:
        report = watch_progress("judging", say)
        assert report is not None
        for seconds in (15.0, 30.0):
            report(Progress(int(seconds), 30, seconds))
        report(Progress(5, 10, 12.0))  # the second question
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["judging: 15 of 30", "judging: 30 of 30", "judging: 5 of 10"]


def test_a_model_or_judge_that_counts_is_watched_and_others_are_left_alone() -> None:
    class Client:
        on_progress: Any = None

    class Judge:
        client = Client()

    judge, seen = Judge(), list[Progress]()
    with watch_worker(judge, seen.append):
        judge.client.on_progress(Progress(1, 2, 1.0))
    assert [progress.done for progress in seen] == [1]
    assert judge.client.on_progress is None
    with watch_worker(object(), seen.append):
        pass
