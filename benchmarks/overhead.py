"""What store, statistics and report take of a demo's CPU time, in one process that runs it whole."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the share is of the work

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from undersong.store.store import Artifact, Store
from undersong.study import run as running
from undersong.study.load import packaged_study


class Clock:
    """CPU seconds by what is on top: what is inside something else is not counted twice."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._on: list[str] = ["work"]
        self._since = time.process_time()

    def _count(self) -> None:
        now = time.process_time()
        self.spent[self._on[-1]] = self.spent.get(self._on[-1], 0.0) + now - self._since
        self._since = now

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        self._count()
        self._on.append(name)
        try:
            yield
        finally:
            self._count()
            self._on.pop()

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.on(name):
                return call(*args, **kwargs)

        return counted


def main() -> None:
    clock, get_or_make = Clock(), Store.get_or_make

    def kept(self: Store, stage: str, version: Any, config: Any, inputs: Any, make: Any, **rest: Any) -> Artifact:
        with clock.on("store"):
            return get_or_make(self, stage, version, config, inputs, clock.timed("work", make), **rest)

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(Store, "get_or_make", kept),
        mock.patch.object(Artifact, "checked", clock.timed("store", Artifact.verify)),
        mock.patch.object(running, "assemble_results", clock.timed("statistics", running.assemble_results)),
        mock.patch.object(running, "_write_outputs", clock.timed("report", running._write_outputs)),
        clock.on("work"),
    ):
        running.run_audit(packaged_study("demo"), Path(folder))
    whole = sum(clock.spent.values())
    shares = {name: clock.spent[name] for name in ("store", "statistics", "report")}
    told = ", ".join(f"{name} {seconds:.1f} s ({seconds / whole:.1%})" for name, seconds in shares.items())
    print(f"overhead: {told}; together {sum(shares.values()) / whole:.1%} of {whole:.0f} CPU s")


if __name__ == "__main__":
    main()
