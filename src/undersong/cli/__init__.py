"""The command line. `--help` imports none of torch, transformers, scipy, matplotlib."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from contextlib import suppress

# One torch thread a process unless told otherwise: two oversubscribed OpenMP threads were measured 12-40x slower than
# one on tiny models, because they spin against every other process.  Must be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Our own lines say what is going on; a bar for every model load would bury them.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
# Nor is every retry of a hub that cannot be reached worth a line: the error says so once.
os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def main() -> None:
    """The console script: what a user can fix is one sentence on stderr and exit code 2."""
    try:
        from undersong.cli.interruption import interruptible
        from undersong.cli.terminal import escaped_streams

        with escaped_streams(), interruptible():
            _run_app()
    except KeyboardInterrupt as error:  # also while modules are imported
        from undersong.cli.interruption import exit_interrupted

        exit_interrupted(error)


def _run_app() -> None:
    from undersong.cli.app import app
    from undersong.cli.terminal import echo
    from undersong.escaping import shorten_message
    from undersong.types import UndersongError

    # peft asks transformers for a name it deprecated: nothing a user can fix
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\b")
    try:
        _check_arguments(sys.argv[1:])
        try:
            app(prog_name="undersong")  # the name that every message gives, also for `python -m undersong`
        finally:
            _flush_output()
    except UndersongError as error:
        echo(f"undersong: {shorten_message(str(error))}", err=True)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        _exit_on_missing_extra(error)
    except OSError as error:
        _exit_on_disk_error(error)


def _flush_output() -> None:
    """Flush stdout while an error is still reported; at the end of the interpreter it would be a traceback."""
    with suppress(BrokenPipeError):  # the reader has what it wanted
        sys.stdout.flush()


def _exit_on_missing_extra(error: ModuleNotFoundError) -> None:
    """The core installs without the packages of extras; any other missing module is a fault of ours."""
    from undersong.cli.terminal import echo
    from undersong.extras import EXTRA_BY_PACKAGE, missing_package_sentence

    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_BY_PACKAGE:
        raise error
    echo(f"undersong: {missing_package_sentence(package)}", err=True)
    raise SystemExit(2) from None


def _check_arguments(arguments: list[str]) -> None:
    """Check that no argument carries a password, before any output, plan or artifact repeats it."""
    from undersong.escaping import holds_credentials
    from undersong.types import UndersongError

    if any(map(holds_credentials, arguments)):
        raise UndersongError(
            "An address among the arguments has a name, a password or a query in it, and outputs keep addresses; "
            "remove it, and set UNDERSONG_API_KEY if it was a key."
        )


PATH_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.EISDIR)


def _exit_on_disk_error(error: OSError) -> None:
    """A disk that is full or closed to us is for the user to fix; every other OSError is ours."""
    from undersong.cli.terminal import echo
    from undersong.escaping import shorten
    from undersong.store.atomic import DISK_FULL_ERRNOS, NO_ACCESS_ERRNOS

    if error.errno not in (*DISK_FULL_ERRNOS, *NO_ACCESS_ERRNOS, *PATH_ERRORS) or error.filename is None:
        raise error
    path = shorten(os.fsdecode(error.filename))
    if error.filename == getattr(sys.stdout, "name", None):  # what it buffers would fail again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    echo(f"undersong: cannot use {path}: {error.strerror}; make room, give access, or choose another path.", err=True)
    raise SystemExit(2) from None
