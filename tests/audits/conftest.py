from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from undersong.cli import main

Gate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gate:
    """`undersong gate …` -> exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["undersong", "gate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        seen = capsys.readouterr()
        return int(stopped.value.code or 0), seen.out, seen.err

    return call
