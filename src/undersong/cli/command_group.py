"""The group of all commands. What is wrong with the arguments is one sentence, and an interruption while they are read
is one line, as it is later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import typer
from typer.core import TyperGroup

from undersong.cli.interruption import exit_interrupted
from undersong.cli.terminal import echo
from undersong.cli.verb_groups import group_verbs, overview_lines
from undersong.suggestions import did_you_mean
from undersong.types import UndersongError

# Of click, or of the copy of click that newer versions of typer bring: no public name is common to both.
UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])

OVERVIEW_HINT = "`undersong --help` says what each does, and `undersong VERB --help` what it takes."
MIN_SIMILARITY = 0.6  # short names are soon half alike: --bogus and --out
MAX_WITH_WORD = 3  # more options than this with one word in common are no hint


class CommandGroup(TyperGroup):
    """Group of commands that raises UndersongError for arguments it cannot use."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the group's own options. Without any argument, `undersong` names its verbs, and a group inside it shows
        its help.
        """
        if not args and self.no_args_is_help:
            if parent is None:
                for line in (*overview_lines(self.commands), OVERVIEW_HINT):
                    echo(line)
                raise SystemExit(0)
            args = ["--help"]  # typer would show it too, and exit with 2
        with _one_sentence(str(info_name)):
            return super().make_context(info_name, args, parent, **extra)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands under the headings of their groups."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        for name, verbs in group_verbs(self.commands).items():
            with formatter.section(name.capitalize() if ctx.parent is None else "Commands"):
                formatter.write_dl([(verb, self.commands[verb].get_short_help_str(limit)) for verb in verbs])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first argument names."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            fix = (
                did_you_mean(name, self.list_commands(ctx), MIN_SIMILARITY)
                or f"; `{ctx.command_path} --help` lists them"
            )
            raise UndersongError(f"{ctx.command_path} has no command {name!r}{_end(fix)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Parse the options of the command, and run it."""
        with _one_sentence(ctx.command_path, ctx):
            return super().invoke(ctx)


@contextmanager
def _one_sentence(path: str, group_context: Any = None) -> Iterator[None]:
    """Raise UndersongError for a usage error; `path` is the command that has no context of its own yet."""
    try:
        yield
    except KeyboardInterrupt as error:  # typer would exit without a word
        exit_interrupted(error)
    except UsageError as error:
        if group_context is not None and group_context.invoked_subcommand:
            path = f"{path} {group_context.invoked_subcommand}"
        raise UndersongError(_usage_message(error, path)) from None


def _usage_message(error: Any, path: str) -> str:
    """One sentence on a usage error, with the command's path and the way to its help."""
    context = getattr(error, "ctx", None)
    path = path if context is None else context.command_path
    if context is not None and (option := getattr(error, "option_name", None)) and hasattr(error, "possibilities"):
        names = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        options = [name for name in names if name.startswith("-")]
        similar = did_you_mean(option, options, MIN_SIMILARITY) or _with_word(option, options)
        fix = similar or f"; `{path} --help` lists its options"
        return f"{path} has no option {option}{_end(fix)}"
    reason = " ".join(error.format_message().split()).rstrip(".")
    return f"{path}: {reason[:1].lower()}{reason[1:]}; `{path} --help` says what it takes."


def _with_word(option: str, options: Sequence[str]) -> str:
    """The clause `; did you mean …?` with the options that have the one word of an unknown option, or ""."""
    word = option.lstrip("-").rstrip("s")
    names = [name for name in options if word in [part.rstrip("s") for part in name.lstrip("-").split("-")]]
    return f"; did you mean {' or '.join(map(repr, names))}?" if 0 < len(names) <= MAX_WITH_WORD else ""


def _end(clause: str) -> str:
    return clause if clause.endswith("?") else f"{clause}."
