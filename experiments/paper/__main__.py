"""The published studies on the three organisms, and docs/results/paper.md, which compares them with what the paper says:

    python -m experiments.paper [bases | reduced | full] [--files distant …] [--register | --plan | --page] [--part K/N]

`make paper` is the design `bases`: a study for each of many trained bases (`python -m recipes.organisms.bases` trains
them first). `reduced` takes three packaged bases, and `full` all fractions, seeds and packaged bases (a night).
`--register` writes each study's registration and the digests in `registered.json`; commit these before the run. A killed
run goes on from its store, which all designs share, and studies whose results are there are not run again. The claims
and the rule by which a result agrees with one stand in claims.py and agreement.py.

The results behind the page are in results.tar.xz: `--unpack` extracts them into OUT, and `--pack` writes them from there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from experiments.paper.archive import pack, unpack
from experiments.paper.claims import ORGANISMS
from experiments.paper.designs import DESIGNS, BasesDesign
from experiments.paper.page import page_of
from experiments.paper.runner import REGISTERED, plan_all, register_all, run_all
from undersong.store.atomic import write_atomic
from undersong.study.run import time_stamp
from undersong.types import UndersongError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("design", nargs="?", choices=list(DESIGNS), default="bases")
    parser.add_argument("--files", nargs="+", metavar="NAME", help="study files; default: all of the design")
    parser.add_argument("--arch", nargs="+", help="architectures to register or run, of the design bases; default: all")
    parser.add_argument("--register", action="store_true", help="only register the studies, before they are run")
    parser.add_argument(
        "--part", default="1/1", metavar="K/N", help="every Nth study from the Kth on, without the page"
    )
    parser.add_argument("--plan", action="store_true", help="only say what would be run, what it costs and can show")
    parser.add_argument("--page", action="store_true", help="only write the page, of the results that are there")
    parser.add_argument("--pack", action="store_true", help="only write results.tar.xz from the results that are there")
    parser.add_argument("--unpack", action="store_true", help="only extract results.tar.xz into OUT")
    parser.add_argument("--out", type=Path, default=Path("out/paper"))
    parser.add_argument("--to", type=Path, default=Path("docs/results/paper.md"))
    asked = parser.parse_args()
    design, folder, store = DESIGNS[asked.design], asked.out / asked.design, asked.out / "store"
    if asked.arch:
        if not isinstance(design, BasesDesign) or not set(asked.arch) <= set(design.architectures):
            parser.error(f"--arch takes {', '.join(ORGANISMS)}, with the design bases")
        design = replace(design, architectures=tuple(asked.arch))
    unknown = set(asked.files or ()) - set(design.files)
    if unknown:
        parser.error(f"the design {design.name} has no {', '.join(sorted(unknown))}; it has {', '.join(design.files)}")
    try:
        if asked.pack or asked.unpack:
            unpack(asked.out) if asked.unpack else pack(asked.out)
            return 0
        if asked.register:
            digests = register_all(design, folder, store, time_stamp(time.time()), asked.files)
            held = json.loads(REGISTERED.read_bytes()) if REGISTERED.is_file() else {}
            write_atomic(REGISTERED, json.dumps(held | digests, indent=1).encode() + b"\n")
            return 0
        if asked.plan:
            plan_all(design, store, asked.files)
            return 0
        if not asked.page:
            run_all(design, folder, store, asked.files, lambda line: print(line, flush=True), asked.part)
            if asked.part != "1/1" or asked.arch:
                return 0
        write_atomic(asked.to, page_of(design, folder).encode("utf-8", errors="xmlcharrefreplace"))
    except UndersongError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"page {asked.to.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
