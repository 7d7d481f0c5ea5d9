"""Output of the commands. All of it goes through this module, because ids, names, texts and tensor names in it come
from files that anybody may have written, and a terminal or a CI log obeys what is in them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from undersong.escaping import escape_line, escape_lines, escape_unprintable, escaped_json

if TYPE_CHECKING:
    from rich.table import Table


def echo(line: str, *, err: bool = False) -> None:
    """Print one line; a line break in it is escaped, so that no name begins a line of its own."""
    print(escape_line(line), file=sys.stderr if err else sys.stdout)


def echo_lines(text: str) -> None:
    """Print a text of several lines whose values are escaped already, such as a Markdown table."""
    print(escape_lines(text))


def echo_json(value: Any, indent: int) -> None:
    """Print a value as JSON; unprintable characters are written as JSON's own escapes."""
    print(escaped_json(value, indent))


def cell(value: object) -> str:
    """Return a value as a cell or title of a rich table: on one line, and not as markup."""
    from rich.markup import escape

    return escape(escape_unprintable(str(value)))


def print_table(*tables: Table) -> None:
    """Print rich tables without colors, whose codes could not be distinguished from those in a name."""
    from rich.console import Console

    console = Console(color_system=None, highlight=False)
    for table in tables:
        with console.capture() as capture:
            console.print(table)
        print(escape_lines(capture.get()), end="")


class EscapingStream:
    """A text stream that escapes everything but line breaks, for what libraries print and log.

    It says that it is no terminal, so that libraries send no colors.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._at_line_start = True

    def write(self, text: str) -> int:
        """Write a text; returns its length, as any stream does."""
        lines = text.split("\n")
        escaped = [escape_line(line, self._at_line_start or i > 0) for i, line in enumerate(lines)]
        self._at_line_start = not lines[-1].strip() and (len(lines) > 1 or self._at_line_start)
        encoding = self.stream.encoding or "utf-8"
        with self._named_errors():
            self.stream.write("\n".join(escaped).encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._named_errors():
            self.stream.flush()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Name the stream in an error of the device behind it, such as a full disk."""
        try:
            yield
        except OSError as error:
            error.filename = str(getattr(self.stream, "name", "the output"))
            raise

    def isatty(self) -> bool:
        """False: colors and bars would be escaped."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def escaped_streams() -> Iterator[None]:
    """Put an `EscapingStream` before stdout and stderr; it stays there for the traceback of an unexpected error."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, EscapingStream(stream)) for stream in streams)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        sys.stdout, sys.stderr = streams
        raise
    else:
        sys.stdout, sys.stderr = streams
