"""Interruption of a command by SIGINT (Ctrl-C) or SIGTERM (a scheduler): one line says what is kept; exit 130, 143."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any, NoReturn

from undersong.cli.terminal import echo

RESUMABLE_COMMANDS = frozenset(
    {"demo", "run", "defend", "screen", "tune", "watch", "evaluate", "verify", "probe", "judge"}
)
NOTHING_KEPT = "this attempt left nothing to go on from; start the same command again"
OTHER_KEPT = "start the same command again"


class Interruption(KeyboardInterrupt):
    """A signal that ends the process; a `KeyboardInterrupt`, so that SIGTERM runs the same cleanup as SIGINT."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interruption` in the main thread on SIGINT and SIGTERM; a signal that is ignored stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers belong to the main thread
        return
    earlier: dict[signal.Signals, Any] = {}
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) == default:  # `nohup` and launchers set others
            earlier[number] = signal.signal(number, _raise_interruption)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _raise_interruption(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interruption(number)


def reporting_interruption(name: str, command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command, so that an interruption of it ends in one line on stderr."""

    @wraps(command)
    def run(*arguments: Any, **values: Any) -> None:
        try:
            command(*arguments, **values)
        except KeyboardInterrupt as error:
            exit_interrupted(error, name)

    return run


def exit_interrupted(error: KeyboardInterrupt, command: str = "") -> NoReturn:
    """Print what an interrupted command keeps, and exit as a shell expects: 128 and the number of the signal.

    What is kept depends on how far the command came, so the code that keeps it says so in a note on the exception
    (`report_kept_work`).
    """
    number = error.number if isinstance(error, Interruption) else signal.SIGINT
    word = "Interrupted" if number == signal.SIGINT else f"Ended by {signal.Signals(number).name}"
    kept = getattr(error, "__notes__", None) or [NOTHING_KEPT if command in RESUMABLE_COMMANDS else OTHER_KEPT]
    echo(f"undersong: {word}: {kept[0]}.", err=True)
    raise SystemExit(128 + number) from None
