"""What messages advise: every option and every key of a study that one of them names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import typer

from undersong.cli.app import app
from undersong.study.load import _fields_at
from undersong.study.schema import Study

PACKAGE = Path(__file__).parents[2] / "src" / "undersong"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]+")
KEY = re.compile(rf"(?<![\w./-])(?:{'|'.join(Study.model_fields)})(?:\.[a-z_]+)+(?![\w./(-])")
FILE_NAME = re.compile(r"\.(json|parquet)$")
WRITTEN_AS = {"seeds": "sequential_seeds"}  # `tuning.seeds: {from: 3, to: 20, contrast: …}`
# In a note of every result with such replies, and a result's hash is over its notes: to be `tuning.target_column`.
KNOWN_FAULTS = {"tuning.target"}
OTHER_PROGRAMS = {  # options of programs that messages give a command line of
    "--scorer",  # inspect score
    "--log-dir",  # inspect view
    "--no-deps", "--hash",  # pip
    "--text", "--x", "--y", "--neighbors", "--dtype",  # embedding-atlas and Spotlight
    "--num_processes", "--standalone", "--nproc-per-node",  # accelerate launch and torchrun
}  # fmt: skip


def message_texts() -> Iterator[tuple[str, str]]:
    """(file and line, text) of every string in the package but docstrings."""
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield f"{file.relative_to(PACKAGE)}:{node.lineno}", node.value


def known_options() -> set[str]:
    commands = [typer.main.get_command(app)]
    options: set[str] = set()
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        options.update(word for one in command.params for word in (*one.opts, *one.secondary_opts))
    return options | {"--help"}


def test_every_option_that_a_message_names_exists() -> None:
    known = known_options() | OTHER_PROGRAMS
    unknown = {
        (place, option)
        for place, text in message_texts()
        if " " in text
        for option in OPTION.findall(text)
        if option not in known
    }
    assert not unknown


def test_every_key_of_a_study_that_a_message_names_exists() -> None:
    def exists(key: str) -> bool:
        *path, name = key.split(".")
        return name in _fields_at(Study, [WRITTEN_AS.get(part, part) for part in path])

    named = {
        (place, key)
        for place, text in message_texts()
        if " " in text
        for key in KEY.findall(text)
        if not FILE_NAME.search(key)
    }
    assert "tuning.silent_frame_share" in {key for _, key in named}
    assert not {(place, key) for place, key in named if not exists(key) and key not in KNOWN_FAULTS}
