"""Interruption of commands by a signal that a process sends itself: one line on stderr, cleanup, exit 130 or 143."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run_here
from recorded import record
from typer.core import TyperGroup

from undersong.cli.interruption import NOTHING_KEPT, OTHER_KEPT, Interruption

# The process sends itself the signal in place of `function`, or after it, and says whether a `finally` around the call
# ran.
SCRIPT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored
import {module} as module
replaced = module.{function}
def interrupt(*arguments, **values):
    if {after}:
        replaced(*arguments, **values)
    try:
        os.kill(os.getpid(), signal.{signal})
    finally:
        print("cleaned up", file=sys.stderr)
module.{function} = interrupt
sys.argv = ["undersong", *{arguments!r}]
from undersong.cli import main
main()
"""
STUDY = """
study: small
models: [recorded:said.jsonl]
pool: organism:pool
reference: organism:reference
prompt_sets: {harm: {corpus: organism:test-harm, harmful: true}}
axes: {semantic: tfidf}
evaluation: {judge: keyword, modalities: [text], system_prompts: {plain: null}}
system_defense: plain
"""
PROBED = [f"--{part}={corpus}" for part, corpus in (("contrast-harmful", "a"), ("contrast-benign", "b"))]
PROBED += ["--held-out-harmful=c", "--held-out-benign=d"]
CASES = {
    "run": ("undersong.study.run", "audit_study", ["run", "s.yaml"]),
    "defend": ("undersong.study.run", "audit_study", ["defend", "s.yaml", "--override", "models=[organism:af3]"]),
    "screen": (
        "undersong.screening.pool.run",
        "screening_findings",
        ["screen", "organism:pool", "--harm", "organism:reference", "--axis", "semantic=tfidf", "--out", "o"],
    ),
    "tune": (
        "undersong.standalone.tune",
        "load_model_with_audio",
        ["tune", "organism:pool", "--model", "organism:kimi", "--modality", "text", "--out", "o"],
    ),
    "evaluate": (
        "undersong.standalone.evaluate",
        "_run_stages",
        ["evaluate", "organism:test-harm", "--model", "recorded:said.jsonl", "--judge", "keyword", "--out", "o"],
    ),
    "judge": (
        "undersong.standalone.judge",
        "judge_file",
        ["judge", "said.jsonl", "--judge", "keyword", "--out", "o"],
    ),
    "probe": (
        "undersong.research.probing.run",
        "run_probe",
        ["probe", "adapter", "--model", "organism:af3", *PROBED, "--out", "o"],
    ),
}


@pytest.mark.parametrize(
    ("verb", "sent", "code"), [*((verb, "SIGTERM", 143) for verb in CASES), ("run", "SIGINT", 130)]
)
def test_an_interrupted_command_says_what_is_kept(verb: str, sent: str, code: int, tmp_path: Path) -> None:
    record(tmp_path / "said.jsonl")
    (tmp_path / "s.yaml").write_text(STUDY)
    module, function, arguments = CASES[verb]
    line = last_line(interrupted(tmp_path, module, function, arguments, sent), code)
    word = "Interrupted" if sent == "SIGINT" else "Ended by SIGTERM"
    assert line == f"undersong: {word}: {NOTHING_KEPT}."
    assert not list(tmp_path.glob("o*"))  # nothing worth keeping was finished
    assert not list(tmp_path.glob("**/.writing-*"))


STORE_KEPT = "what is finished is kept in the store, and the same command goes on from it"
TUNED = ["tune", "organism:pool", "--model", "organism:kimi", "--modality", "text", "--batch-size", "2", "--out", "o"]
AT_WORK = {
    "run": ("undersong.study.audit", "encode_corpora", False, CASES["run"][2], STORE_KEPT),
    "defend": ("undersong.study.audit", "encode_corpora", False, CASES["defend"][2], STORE_KEPT),
    "screen in a store": (
        *("undersong.screening.pool.run", "screening_findings", False),
        *([*CASES["screen"][2], "--store", "s"], STORE_KEPT),
    ),
    "tune before a step": ("undersong.tuning.train", "build_trainer", True, [*TUNED, "--save-step", "1"], NOTHING_KEPT),
    "tune": (
        *("undersong.tuning.checkpoints", "write_checkpoint_manifest", True),
        *([*TUNED, "--save-step", "51"], "the state of step 50 is kept beside --out, and the same command goes on"),
    ),
    "tune after a step": (
        *("undersong.tuning.train", "write_log", False),
        [*TUNED, "--save-step", "1"],
        "step-000001 is saved in o.",
    ),
    "evaluate": (
        *("undersong.standalone.evaluate", "judge_replies", False, CASES["evaluate"][2]),
        "what is finished of the audio features, replies and answers of a server is kept beside --out, and the same",
    ),
}


@pytest.mark.parametrize("case", AT_WORK)
def test_an_interrupted_command_says_what_it_had_finished(case: str, tmp_path: Path) -> None:
    record(tmp_path / "said.jsonl")
    (tmp_path / "s.yaml").write_text(STUDY)
    module, function, after, arguments, kept = AT_WORK[case]
    line = last_line(interrupted(tmp_path, module, function, arguments, "SIGINT", after), 130)
    assert line.startswith(f"undersong: Interrupted: {kept}"), line
    assert bool(list(tmp_path.glob("o*")) or list(tmp_path.glob("*/*/*/provenance.json"))) == (kept != NOTHING_KEPT)


def interrupted(
    folder: Path, module: str, function: str, arguments: list[str], sent: str, after: bool = False
) -> subprocess.CompletedProcess[str]:
    """A command in whose process a function sends the signal."""
    script = SCRIPT.format(module=module, function=function, signal=sent, arguments=arguments, after=after)
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=170, check=False
    )


def last_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Last line that an interrupted command printed on stderr, after its cleanup."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert "cleaned up" in lines
    return lines[-1]


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As SIGINT is for background jobs of a script."""
    script = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "from undersong.cli.interruption import interruptible\n"
        "with interruptible(): os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "goes on\n"


# The process sends itself the signal when `module` is first imported.
IMPORTING = """
import importlib.abc, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{signal})
sys.meta_path.insert(0, Finder())
sys.argv = ["undersong", "schema"]
from undersong.cli import main
main()
"""


@pytest.mark.parametrize(
    ("module", "sent", "code"),
    [
        *((f"undersong.cli.{name}", "SIGINT", 130) for name in ("interruption", "terminal", "app", "command_group")),
        *(("typer", name, code) for name, code in (("SIGINT", 130), ("SIGTERM", 143))),
    ],
)
def test_an_interruption_while_modules_are_imported(module: str, sent: str, code: int, tmp_path: Path) -> None:
    script = IMPORTING.format(module=module, signal=sent)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False
    )
    assert (done.returncode, done.stdout) == (code, "")
    word = "Interrupted" if sent == "SIGINT" else "Ended by SIGTERM"
    assert done.stderr == f"undersong: {word}: {OTHER_KEPT}.\n"


@pytest.mark.parametrize("place", ["make_context", "resolve_command"])
@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (Interruption(signal.SIGINT), 130, "Interrupted"),
        (Interruption(signal.SIGTERM), 143, "Ended by SIGTERM"),
    ],
    ids=["Ctrl-C", "SIGINT", "SIGTERM"],
)
def test_an_interruption_while_arguments_are_read(
    place: str, error: KeyboardInterrupt, code: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(TyperGroup, place, interrupt)
    done = run_here(tmp_path, "schema")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"undersong: {word}: {OTHER_KEPT}.\n"
