"""Two processes, one artifact: one makes it, the other waits and reads."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

Start = Callable[..., "subprocess.Popen[str]"]


def test_two_processes_make_one_artifact(tmp_path: Path, start: Start) -> None:
    processes = [start(tmp_path / "store", "--together") for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    made = [out for out, _ in outputs]
    assert len((tmp_path / "made.log").read_text().split()) == 1  # the second did not make it, even into the bin
    folders = [[line for line in out.splitlines() if line.startswith("/")] for out in made]
    assert folders[0] == folders[1]
    assert len(folders[0]) == 3
    assert not list(tmp_path.glob("store/*/*.partial"))


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path, start: Start) -> None:
    """The holder dies in its second shard; the one that waits takes over and makes that shard alone."""
    holder = start(
        tmp_path / "store", "--together", failpoint="write:synced:4"
    )  # words, its provenance, part 0, part 1
    while holder.poll() is None and not (tmp_path / "made.log").exists():
        time.sleep(0.01)
    waiter = start(tmp_path / "store", "--together")
    out, _ = waiter.communicate(timeout=600)
    assert (holder.wait(timeout=600), waiter.returncode) == (137, 0)
    assert [line for line in out.splitlines() if line.startswith("made")] == ["made part 1"]
    assert len(list(tmp_path.glob("store/adapter/*/provenance.json"))) == 1
