"""What a command says while it works: lines in a log, and above them one live display of bars on a terminal."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from undersong.cli.terminal import EscapingStream, echo
from undersong.escaping import escape_line

if TYPE_CHECKING:
    from undersong.encoders.batching import Progress, ProgressCallback


class ProgressDisplay:
    """Receiver of progress: call it with a line, and ask it to `watch` a pass over many items.

    On a terminal every pass is a bar with its count, rate, time left and note, and lines scroll by above the bars. In a
    log, or with TERM=dumb, a pass is a line now and then. The context ends the display, so that what follows is
    printed below it.
    """

    def __init__(self) -> None:
        stream: Any = sys.stderr.stream if isinstance(sys.stderr, EscapingStream) else sys.stderr
        self._terminal = stream if stream.isatty() and os.environ.get("TERM") != "dumb" else None
        self._bars: Any = None  # rich.progress.Progress, from the first bar on

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, line: str) -> None:
        """Print one line."""
        if self._bars is None:
            echo(line, err=True)
        else:
            from rich.text import Text

            self._bars.console.print(Text(escape_line(line)), soft_wrap=True)

    def watch(self, task: str) -> ProgressCallback:
        """Return a callback for the progress of a pass; its bar goes away when the pass is done."""
        from undersong.encoders.batching import progress_lines

        if self._terminal is None:
            return progress_lines(task, self)
        task_id: Any = None

        def report(progress: Progress) -> None:
            nonlocal task_id
            bars = self._start_bars()
            if task_id is None:
                task_id = bars.add_task(escape_line(task), total=progress.total, note="")
            note = f"{progress.rate:.3g}/s" + (f", {progress.note}" if progress.note else "")
            bars.update(task_id, completed=progress.done, note=escape_line(note))
            if progress.done >= progress.total:
                bars.remove_task(task_id)
                task_id = None

        return report

    def _start_bars(self) -> Any:
        if self._bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
                console=Console(file=self._terminal, highlight=False),
                transient=True,
                redirect_stdout=False,  # the answer goes to stdout when the display has ended
                redirect_stderr=False,
            )
            self._bars.start()
        return self._bars
