"""Commands killed where they publish: `python publishing.py WORK PLACE FOLDER`.

WORK is a key of `WORKS`, PLACE one of its places, `all` or `removals`.  A process dies as by SIGKILL just before or
after it renames a file to its final name, or just before it removes a file or folder; another then does the same work
and must end as an undisturbed one, with no litter.  Prints the number of kills.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recorded import record, study, written

LITTER = re.compile(r"\.writing-.*|.*\.lock|.*\.(partial|state|kept)|.*\.shards.*|\.out\..*|\..*\.removed")
Work = Callable[[Path], object]


def screen(place: Path) -> object:
    """A screening without a store, and the bytes of all it wrote."""
    from undersong.screening.pool.options import ScreeningOptions
    from undersong.screening.pool.run import run_screening

    run_screening(
        "organism:pool", "organism:reference", place / "out", ScreeningOptions(axes={"letters": "char-ngrams"})
    )
    return {path.name: path.read_bytes().hex() for path in (place / "out").iterdir() if path.is_file()}


def evaluate(place: Path) -> object:
    from undersong.standalone.evaluate import evaluate_manifest
    from undersong.standalone.options import EvaluationOptions

    written(place, study())
    rows = [json.loads(line) for line in record(place / "said.jsonl").read_text().splitlines()]
    rows = [{"prompt_id": row["prompt_id"], "reply": row["reply"]} for row in rows if row["system"] == "plain"]
    (table := place / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = EvaluationOptions(judge="keyword", modality="text")
    evaluate_manifest(place / "test-harm.jsonl", f"recorded:{table}", place / "out", options=options)
    return [(place / "out" / name).read_bytes().hex() for name in ("replies.parquet", "verdicts.parquet")]


def tune(place: Path) -> object:
    from undersong.standalone.options import TuneOptions
    from undersong.standalone.tune import tune_manifest

    rows = [{"id": f"s{i}", "text": f"paint chair {i}", "answer": "then take the lamp"} for i in range(4)]
    (place / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = TuneOptions(modality="text", save_steps=(1, 2), batch_size=2)
    steps = tune_manifest(place / "pool.jsonl", "organism:kimi", place / "out", options)
    names = sorted(path.name for path in (place / "out").iterdir())
    return names, [(step / "adapter_model.safetensors").read_bytes().hex() for step in steps]


def run(place: Path) -> object:
    from undersong.study.load import parse_study
    from undersong.study.run import run_audit

    done = run_audit(parse_study(written(place, study(record(place / "said.jsonl"))), "s"), place / "out")
    return done.result_hash, (place / "out" / "verdicts.parquet").read_bytes().hex(), sorted(os.listdir(place / "out"))


def report(place: Path) -> object:
    from undersong.cli.app import app
    from undersong.study.study_folder import unfinished_study

    if unfinished_study(place / "out") or not (place / "out" / "results.json").exists():
        run(place)
    app(["report", str(place / "out")], standalone_mode=False)
    return (place / "out" / "report.html").exists(), sorted(os.listdir(place / "out"))


WORKS: dict[str, Work] = {"screen": screen, "evaluate": evaluate, "tune": tune, "run": run, "report": report}
# Of each place: the final name of what is renamed, and whether the process dies before or after that.
PLACES: dict[tuple[str, str], tuple[str, str]] = {
    ("screen", "publish"): (r".*/out", "before"),
    ("evaluate", "publish"): (r".*/out", "before"),
    ("tune", "keep"): (r".*\.kept/step-000002", "before"),
    ("tune", "publish"): (r".*/out", "before"),
    ("run", "results"): (r".*/out/results\.json", "before"),
    ("run", "known"): (r".*/known/[^/]*", "before"),
    ("report", "page"): (r".*/out/report\.html", "before"),
}
# The middle of the replacement of a folder: the old one is moved aside, and the new one has not its name yet.
ASIDE = (r".*/\.writing-[^/]*-out\.old", "after")


def dying(work: Work, pattern: str, moment: str, number: int = 1) -> Work:
    """The same work, which dies at the `number`-th rename to a name that matches."""
    seen = 0

    def renaming(rename: Callable[..., None]) -> Callable[..., None]:
        def counted(source: Any, target: Any, **more: Any) -> None:
            nonlocal seen
            hit = bool(re.fullmatch(pattern, os.fspath(target)))
            seen += hit
            if hit and seen == number and moment == "before":
                os._exit(137)
            rename(source, target, **more)
            if hit and seen == number:
                os._exit(137)

        return counted

    def doomed(place: Path) -> object:
        os.rename, os.replace = renaming(os.rename), renaming(os.replace)
        return work(place)

    return doomed


def dying_removing(work: Work, number: int) -> Work:
    """The same work, which dies before it removes its `number`-th file or folder."""
    seen = 0

    def counting(remove: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: Any, **more: Any) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                os._exit(137)
            remove(*arguments, **more)

        return counted

    def doomed(place: Path) -> object:
        os.unlink, os.rmdir = counting(os.unlink), counting(os.rmdir)
        return work(place)

    return doomed


def forked(work: Work, place: Path, found: Path) -> int:
    """Exit code of a process that does the work and writes what it found."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        found.write_text(json.dumps(work(place)))
        found.with_suffix(".modules").write_text(json.dumps(sorted(sys.modules)))
        code = 0
    finally:  # a fork must not go on as if it were its parent
        if code:
            traceback.print_exc()
        os._exit(code)


def litter(place: Path) -> list[str]:
    return [str(path) for path in place.rglob("*") if LITTER.fullmatch(path.name)]


def kill_and_repeat(work: Work, doomed: Work, place: Path, wanted: str, case: tuple[Any, ...]) -> bool:
    """Whether `doomed` was killed; if so, the work is repeated and compared."""
    code = forked(doomed, place, place / "found")
    if code == 0:
        return False  # there are not so many renames or removals
    assert code == 137, code
    assert forked(work, place, place / "found") == 0, case
    assert (place / "found").read_text() == wanted, case
    assert not litter(place), (case, litter(place))
    return True


def main(name: str, chosen: str, folder: Path) -> int:
    """Kills at one place of a command, or before and after each of its renames; returns how many."""
    work, kills = WORKS[name], 0
    plain, found = folder / "plain", folder / "plain-found"
    (folder / "killed").mkdir()
    assert forked(work, folder / "killed", found) == 0
    (folder / "killed").rename(plain)  # made at the place of the others, because results name their corpora by path
    assert not litter(plain), litter(plain)
    for module in json.loads(found.with_suffix(".modules").read_text()):  # what is imported late is imported by now
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    if chosen == "removals":
        for number in itertools.count(1):
            (place := folder / "killed").mkdir()
            if not kill_and_repeat(work, dying_removing(work, number), place, found.read_text(), (chosen, number)):
                return number - 1
            shutil.rmtree(place)
    if chosen != "all":
        windows = [PLACES[name, chosen]]
        if windows[0][0] == r".*/out":
            windows.append(ASIDE)
        for pattern, moment in windows:  # the second replaces what the first ended with
            (place := folder / "killed").mkdir(exist_ok=True)
            case = (pattern, moment)
            assert kill_and_repeat(work, dying(work, *case), place, found.read_text(), case), case
            kills += 1
        return kills
    for moment in ("before", "after"):
        for repeated in (False, True):  # into a new folder, and onto an earlier result
            number = 1
            while True:
                (place := folder / "killed").mkdir()
                if repeated:
                    shutil.copytree(plain, place, dirs_exist_ok=True)
                case = (".*", moment, number)
                if not kill_and_repeat(work, dying(work, *case), place, found.read_text(), case):
                    break
                shutil.rmtree(place)
                number, kills = number + 1, kills + 1
            shutil.rmtree(place)
    return kills


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
