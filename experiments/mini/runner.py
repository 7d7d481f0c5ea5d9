"""The parts of studies/mini_small.yaml over several processes, in one store, and then their results into docs/results/mini.md:

    python -m experiments.mini [--workers 2] [--set axes.semantic=text:FOLDER …] [--only proximity …] [--plan]

An arm is a task, and so are a part's results once its arms are done; parts are taken in the file's order, and a part
that waits for its last arm does not hold up the next one.  Resumable: a killed run goes on from its store.  What each
task cost is kept in OUT/cost.json.  `--page` writes the page alone, of the results that there are.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from experiments.paper.runner import keep_cost
from undersong.corpora.registry import is_local_corpus
from undersong.models.load_options import LoadOptions
from undersong.study.load import load_studies
from undersong.study.schema import Study
from undersong.types import UndersongError

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "studies" / "mini_small.yaml"


@dataclass(frozen=True)
class Task:
    """An arm of a study, or its results: an empty `arm`."""

    study: Study
    arm: str
    out: Path
    store: Path
    loading: LoadOptions

    @property
    def name(self) -> str:
        """As progress tells it."""
        return f"{self.study.study}: {self.arm or 'results'}"


def do(task: Task) -> float:
    """In a process of its own; CPU seconds."""
    import torch

    from undersong.study.run import run_arm, run_audit

    torch.set_num_threads(1)
    began = sum(os.times()[:4])
    folder = task.out / task.study.study
    if task.arm:
        run_arm(task.study, task.arm, folder, task.store, loading=task.loading)
    else:
        run_audit(task.study, folder, task.store, loading=task.loading)
    return sum(os.times()[:4]) - began


def tasks_of(study: Study, out: Path, store: Path, loading: LoadOptions) -> list[Task]:
    """The arms of a part and, last, its results.  Those that were made before are only looked up: the store knows model,
    corpora and dtype, which a results file of the same study does not tell."""
    from undersong.study.arm_jobs import arm_names

    return [Task(study, arm, out, store, loading) for arm in (*arm_names(study), "")]


def run_all(studies: Sequence[Study], out: Path, loading: LoadOptions, workers: int) -> None:
    """Every part, as far as its store does not hold it yet.

    Raises what the first task that fails raises, once those that were begun are done.
    """
    todo = [task for study in studies for task in tasks_of(study, out, out / "store", loading)]
    running: dict[Future[float], Task] = {}
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            while todo or running:
                while len(running) < workers and (task := _next(todo, list(running.values()))) is not None:
                    todo.remove(task)
                    running[pool.submit(do, task)] = task
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    seconds = future.result()
                    keep_cost(out, task.study.study, seconds)
                    print(f"{task.name}: {seconds:.0f} CPU s, {len(todo) + len(running)} tasks left", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _next(todo: Sequence[Task], running: Sequence[Task]) -> Task | None:
    """The first that nothing has to be waited for: results wait for their part's arms."""
    busy = {task.study.study for task in running}
    for task in todo:
        if task.arm or task.study.study not in busy:
            return task
    return None


def chosen(name: str, studies: Sequence[Study], only: Sequence[str] | None) -> list[Study]:
    """The parts of these names, in the file's order; None: all.  UndersongError for a name that none has."""
    parts = {one.study.removeprefix(f"{name}-"): one for one in studies}
    if lost := [part for part in only or () if part not in parts]:
        raise UndersongError(f"{name} has no part {lost[0]}; it has {', '.join(parts)}.")
    return [one for part, one in parts.items() if not only or part in only]


def check_corpora(studies: Sequence[Study]) -> None:
    """UndersongError where a corpus is not here."""
    if lost := [ref for study in studies for ref in study.corpora if not is_local_corpus(ref)]:
        raise UndersongError(f"{lost[0]} is not there; make the study's corpora with experiments/mini/corpora.py.")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.mini", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--workers", type=int, default=2, help="processes, a core each")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts of the file's matrix")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("out/mini-small"))
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "results" / "mini.md")
    parser.add_argument("--plan", action="store_true", help="only say what is to be made, and what that can show")
    parser.add_argument("--page", action="store_true", help="only write the page")
    asked = parser.parse_args()
    try:
        held = load_studies(asked.study, asked.sets)
        wanted = chosen(held.name, held.studies, asked.only)
        if not asked.page:
            from recipes.mini.parts import loading_of

            check_corpora(wanted)
            loading = loading_of(asked)
            if asked.plan:
                _plan(wanted, asked.out / "store", loading)
                return 0
            run_all(wanted, asked.out, loading, asked.workers)
        from experiments.mini.results_page import write_page

        write_page(held.name, asked.out, asked.to)
    except UndersongError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"page {asked.to.resolve()}")
    return 0


def _plan(studies: Sequence[Study], store: Path, loading: LoadOptions) -> None:
    from undersong.study.planning.plan import plan_study
    from undersong.study.planning.power import design_lines

    for study in studies:
        print(study.study)
        for line in (plan_study(study, store, loading).summary, *design_lines(study)):
            print(f"  {line}")
