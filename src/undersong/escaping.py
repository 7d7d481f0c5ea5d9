"""What a terminal, a log or an error message may show of texts from files: escaped, short, and without credentials.

Imports no other module of the package.
"""

from __future__ import annotations

import json
import re
import unicodedata

# A name or password in an address (`://NAME:PASSWORD@HOST`), or a query, where keys are put, of a served model.
CREDENTIALS = re.compile(r"://[^/\s?#]*@|@https?://\S*[@?#]", re.IGNORECASE)
MAX_QUOTED_CHARACTERS = 200  # of a value that an error message repeats
MAX_MESSAGE_CHARACTERS = 3000
LONG_WORD = re.compile(rf"\S{{{MAX_QUOTED_CHARACTERS + 1},}}")
# GitHub obeys `::command` at the start of a line (after blanks) and `##[command]` anywhere; Azure obeys `##vso[`.
LINE_COMMAND = re.compile(r"^(\s*):(?=:)")
INLINE_COMMAND = re.compile(r"##(?=\[|vso\[)")
# Libraries go on with advice for their own users, and with addresses of their pages.
FURTHER_SENTENCES = re.compile(r"(?<=[^\s.])\.\s+[A-Z].*", re.DOTALL)
HUB_ADDRESS = re.compile(r"""["'<(]?https://huggingface\.co/?["'>)]?(?=[\s.,;:]|$)""")
WEB_ADDRESS = re.compile(
    r"""(?:\s+(?:for url:?|at|see|from|in|to))?\s*["'<(]?https://[^\s"'>)]*["'>)]?""", re.IGNORECASE
)


def escape_unprintable(text: str) -> str:
    r"""Escape unprintable characters: controls, line breaks, bidirectional marks and lone surrogates, as `\x1b`.

    A terminal would obey them, and a line break would begin a line that looks like one of ours.
    """
    if text.isprintable():
        return text
    return "".join(character if is_printable(character) else ascii(character)[1:-1] for character in text)


def is_printable(character: str) -> bool:
    """Return whether a terminal only shows a character, as it does with a no-break space."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def escape_line(text: str, at_line_start: bool = True) -> str:
    """Escape a text for one line of a terminal or a log: unprintable characters, and commands to CI services.

    Args:
        text: The text.
        at_line_start: False if something other than blanks precedes the text in its line.
    """
    escaped = INLINE_COMMAND.sub(r"#\\x23", escape_unprintable(text))
    return LINE_COMMAND.sub(r"\1\\x3a", escaped) if at_line_start else escaped


def escape_lines(text: str) -> str:
    r"""Escape every line of a text; only `\n` ends a line."""
    return "\n".join(map(escape_line, text.split("\n")))


def escaped_json(value: object, indent: int) -> str:
    """Return a value as JSON that a terminal, a log or an editor only shows.

    Unprintable characters and commands to CI services are written as JSON's own escapes, so every reader of JSON gets
    the same strings. Raises ValueError for NaN and infinity.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return "\n".join(map(_escape_json, text.split("\n")))


def _escape_json(line: str) -> str:
    if not line.isprintable():
        line = "".join(character if is_printable(character) else json.dumps(character)[1:-1] for character in line)
    return line.replace("##", "#\\u0023")


def shorten(text: str, limit: int = MAX_QUOTED_CHARACTERS) -> str:
    """Return a text, or both its ends and its length if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f"{text[: 3 * limit // 4]}…{text[-limit // 4 :]} ({len(text):,} characters)"


def shorten_message(message: str) -> str:
    """Shorten an error message: each word to `MAX_QUOTED_CHARACTERS`, and the whole to `MAX_MESSAGE_CHARACTERS`."""
    words = LONG_WORD.sub(lambda match: shorten(match[0]), message)
    return shorten(words, MAX_MESSAGE_CHARACTERS)


def quote(value: object) -> str:
    """Return the `repr` of a value of a file for an error message, shortened; lists are cut before they are written."""
    if isinstance(value, str):
        return repr(shorten(value))
    if isinstance(value, int) and value.bit_length() > MAX_QUOTED_CHARACTERS:  # Python refuses to write very long ones
        return f"a whole number of some {int(value.bit_length() * 0.30103):,} digits"
    from reprlib import Repr

    writer = Repr()
    writer.maxlevel, writer.maxlist, writer.maxtuple, writer.maxdict = 3, 10, 10, 10
    writer.maxstring = writer.maxother = 2 * MAX_QUOTED_CHARACTERS
    return shorten(writer.repr(value))


def holds_credentials(text: str) -> bool:
    """Return whether a text has an address with a name, a password or a query in it, which no output may repeat."""
    return CREDENTIALS.search(text) is not None


def describe_error(error: BaseException) -> str:
    """Return the first sentence of a library's error, without a full stop or web addresses; its class if it is empty.

    A hub that cannot be reached gets a text of ours: the libraries write a paragraph with addresses in it.
    """
    if any(type(cause).__name__ == "LocalEntryNotFoundError" for cause in (error, error.__cause__)):
        return "it is not in the local cache, and the hub cannot be reached"
    text = FURTHER_SENTENCES.sub("", " ".join(str(error).split())).rstrip(".")
    text = WEB_ADDRESS.sub("", HUB_ADDRESS.sub("the hub", text))
    return shorten(text or type(error).__name__)
