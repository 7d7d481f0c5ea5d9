"""The page of all verbs with their arguments and options, from the command line itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HEAD = """# Commands

This page lists every command with its options, as `undersong COMMAND --help` does.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | `doctor` and `models check` only: a check failed |
| 2 | bad input; one sentence on stderr says how to fix it |

`gate` has [exit codes of its own](../how-to/ci.md).
"""


def page() -> str:
    """Markdown: a section for each verb, in the order of `undersong --help`."""
    from typer.main import get_command

    from undersong.cli.app import app

    whole: Any = get_command(app)
    return HEAD + "".join(_verbs(whole))


def _verbs(group: Any, before: str = "") -> Iterator[str]:
    """A section a verb, and behind it those of the verbs inside it."""
    for name, verb in group.commands.items():
        yield _verb(f"{before}{name}", verb)
        if hasattr(verb, "commands"):
            yield from _verbs(verb, f"{before}{name} ")


def _verb(name: str, verb: Any) -> str:
    usage = [f"undersong {name}", *(_argument(one) for one in verb.params if one.param_type_name == "argument")]
    needed = [one for one in verb.params if one.param_type_name == "option" and one.required]
    usage += [f"{one.opts[0]} {_metavar(one)}" for one in needed]
    rows = "".join(_row(one) for one in verb.params if not getattr(one, "hidden", False))
    table = f"\n| argument or option | default | meaning |\n|---|---|---|\n{rows}" if rows else ""
    return f"\n## {name}\n\n{_prose(verb.help or '')}\n\n```text\n{' '.join(usage)} [OPTIONS]\n```\n{table}"


def _argument(one: Any) -> str:
    name = (one.metavar or one.name).upper() + ("…" if one.nargs == -1 else "")
    return name if one.required else f"[{name}]"


def _metavar(one: Any) -> str:
    return str(one.metavar or one.name.upper())


def _row(one: Any) -> str:
    if one.param_type_name == "argument":
        named = f"`{_argument(one)}`"
    else:
        value = "" if one.is_flag else f" {_metavar(one)}"
        named = ", ".join(f"`{word}{value}`" for word in (*one.opts, *one.secondary_opts))
    cells = (named + (" (needed)" if one.required else ""), _default(one), _prose(getattr(one, "help", "") or ""))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _default(one: Any) -> str:
    value = one.default
    if value is None or value == () or value == [] or one.required or callable(value):
        return ""
    if isinstance(value, bool):
        return "" if not value and not one.secondary_opts else f"`{(one.opts if value else one.secondary_opts)[0]}`"
    return f"`{value}`"


def _prose(text: str) -> str:
    """One line; what looks like HTML or a link stays text."""
    return " ".join(text.split()).replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*")
