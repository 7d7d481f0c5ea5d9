"""The published studies on the three organisms, and docs/results/paper.md, which sets what they show beside what the paper says:

    python -m experiments.paper [reduced | full] [--files sdqa distant …] [--plan | --page] [--out DIR] [--to docs/results/paper.md]

`make paper` is the reduced design (some half an hour of one core), `make paper-full` the full one (a night).  Resumable:
a killed run goes on from its store, which both designs share, and studies whose results are there are not run again.
The claims and the rule by which a result agrees with one stand in claims.py and agreement.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from experiments.paper.designs import DESIGNS, FILES
from experiments.paper.page import page_of
from experiments.paper.runner import plan_all, run_all
from undersong.store import write_atomic
from undersong.types import UndersongError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("design", nargs="?", choices=list(DESIGNS), default="reduced")
    parser.add_argument("--files", nargs="+", choices=FILES, default=list(FILES), metavar="NAME", help=", ".join(FILES))
    parser.add_argument("--plan", action="store_true", help="only say what would be run, what it costs and can show")
    parser.add_argument("--page", action="store_true", help="only write the page, of the results that are there")
    parser.add_argument("--out", type=Path, default=Path("out/paper"))
    parser.add_argument("--to", type=Path, default=Path("docs/results/paper.md"))
    asked = parser.parse_args()
    design, folder, store = DESIGNS[asked.design], asked.out / asked.design, asked.out / "store"
    try:
        if asked.plan:
            plan_all(design, store, asked.files)
            return 0
        if not asked.page:
            run_all(design, folder, store, asked.files, lambda line: print(line, flush=True))
        write_atomic(asked.to, page_of(design, folder).encode("utf-8", errors="xmlcharrefreplace"))
    except UndersongError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"page {asked.to.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
