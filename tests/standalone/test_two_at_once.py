"""Two commands on one output folder: one works, the other is refused or ends alike, and nothing is lost."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import publishing
import pytest
import recorded

import undersong
from undersong.stages.output_folder import locked_output_folder
from undersong.study.study_folder import check_study_folder
from undersong.types import UndersongError

# A command that stops inside its work, says so, and goes on at a line of its input.
HOLDER = """
import sys
from pathlib import Path
import publishing
from undersong.stages import output_folder

sweep, name = output_folder.sweep_leftovers, sys.argv[1]

def wait(target):
    print("locked", flush=True)
    sys.stdin.readline()
    sweep(target)

output_folder.sweep_leftovers = wait
publishing.WORKS[name](Path(sys.argv[2]))
print("done", flush=True)
"""


def environment() -> dict[str, str]:
    source, helpers = Path(undersong.__file__).parents[1], Path(publishing.__file__).parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (source, helpers)))}


@pytest.fixture
def holder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the output folder of a command."""
    command = [sys.executable, "-c", HOLDER, request.param, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "locked\n":
            raise AssertionError(process.communicate()[1])
        yield process
        process.kill()


@pytest.mark.parametrize("holder", ["screen", "evaluate", "tune"], indirect=True)
def test_the_second_is_refused_at_once_and_the_first_loses_nothing(
    holder: subprocess.Popen[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    work = publishing.WORKS[request.node.callspec.params["holder"]]
    before = set(tmp_path.iterdir())
    with pytest.raises(UndersongError, match=f"Another process is writing to {tmp_path / 'out'}; wait until it has"):
        work(tmp_path)
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "pool.jsonl", tmp_path / "said.jsonl"}
    told, errors = holder.communicate("\n")
    assert holder.returncode == 0, errors
    assert told == "done\n"
    assert not publishing.litter(tmp_path)
    (tmp_path / "alone").mkdir()
    alone = json.dumps(work(tmp_path / "alone"))
    assert json.dumps(work(tmp_path)) == alone  # repeated onto what the first wrote
    assert not publishing.litter(tmp_path)


@pytest.mark.parametrize("holder", ["evaluate"], indirect=True)
def test_the_lock_of_a_dead_process_is_free(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / ".out.lock").exists()
    publishing.evaluate(tmp_path)
    assert not publishing.litter(tmp_path)


def test_a_folder_is_free_after_its_command_even_if_that_failed(tmp_path: Path) -> None:
    """The folders that were created for the lock are gone too, and what a killed command kept is still there."""
    for _ in range(2):
        with pytest.raises(KeyError), locked_output_folder(tmp_path / "new" / "deep" / "out"):
            raise KeyError
    assert not (tmp_path / "new").exists()
    kept = [tmp_path / "out.0123456789ab.kept", tmp_path / "out.01234567.partial"]
    others = [tmp_path / "out.txt", tmp_path / "out.v2.partial", tmp_path / "output.01234567.partial"]
    for folder in (*kept, *others):
        folder.mkdir()
    with pytest.raises(KeyError), locked_output_folder(tmp_path / "out"):
        raise KeyError
    assert all(folder.exists() for folder in kept)
    with locked_output_folder(tmp_path / "out"):
        pass
    assert sorted(tmp_path.iterdir()) == sorted(others)


# Both say that they are at the door of the results, and go on together.
RUN = """
import json, sys
from pathlib import Path
from undersong.study import run
from undersong.study.load import parse_study

write = run._write_outputs

def wait(*given):
    print("inside", flush=True)
    sys.stdin.readline()
    return write(*given)

run._write_outputs = wait
run.run_audit(parse_study(json.loads(sys.argv[2]), "s"), Path(sys.argv[1]) / "out")
"""


def test_two_runs_on_one_new_folder_both_end_with_the_results_of_one(tmp_path: Path) -> None:
    """The second waits with its results until the first has written all of its own."""
    (folder := tmp_path / "both").mkdir()
    keys = json.dumps(recorded.written(folder, recorded.study(recorded.record(folder / "said.jsonl"))))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [
        subprocess.Popen([sys.executable, "-c", RUN, str(folder), keys], env=environment(), text=True, **pipes)
        for _ in range(2)
    ]
    first = next(process for process in both if process.stdout in select.select([p.stdout for p in both], [], [])[0])
    (second,) = (process for process in both if process is not first)
    assert first.stdout.readline() == "inside\n", first.communicate()[1]
    assert not (folder / "out" / "results.json").exists()
    first.stdin.write("\n")
    assert first.communicate()[0] == ""
    written = (folder / "out" / "results.json").read_bytes()
    assert second.communicate("\n")[0] == "inside\n"
    assert [process.returncode for process in both] == [0, 0]
    assert not publishing.litter(folder)
    later = (folder / "out" / "results.json").read_bytes()
    first_hash, later_hash = (json.loads(text)["provenance"]["result_hash"] for text in (written, later))
    assert first_hash == later_hash
    assert publishing.run(folder)[0] == first_hash  # and of a run by itself


def test_a_store_that_another_run_has_just_begun_is_no_foreign_folder(tmp_path: Path) -> None:
    """Between the creation of its folders and its first journal it was taken for one."""
    out = tmp_path / "out"
    (out / "store" / "corpus").mkdir(parents=True)
    check_study_folder(out, "s", out / "store")
    (out / "store" / "known").mkdir()
    (out / "store" / "known" / "0123.parquet").write_bytes(b"")
    check_study_folder(out, "s", out / "store")
    check_study_folder(out, "s", tmp_path / "elsewhere")
    (out / "store" / "thesis.txt").write_text("years of work")
    with pytest.raises(UndersongError, match="holds store and no results of a study"):
        check_study_folder(out, "s", out / "store")
    (out / "store" / "thesis.txt").unlink()
    (out / "notes").mkdir()
    with pytest.raises(UndersongError, match="holds notes and no results of a study"):
        check_study_folder(out, "s", out / "store")
