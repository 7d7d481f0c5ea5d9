"""The registered prediction experiment (registration.md), resumable:

    python -m experiments.prediction measure BASE [BASE ...] [--work DIR]   # organism:NAME or a model folder
    python -m experiments.prediction mini [--work DIR]   # registration_mini.md
    python -m experiments.prediction mini-targets --data DIR [--work DIR]   # its second addendum
    python -m experiments.prediction page [--work DIR]

`measure` takes about four CPU minutes a base; run two at once on two cores, on different bases. `mini` measures Mini,
which `undersong models get mini` assembles, and speaks its reference with espeak (`pip install '.[tts]'`).
`mini-targets` needs the public text sets, too (a folder with advbench/harmful_behaviors.csv). `page` gathers the files
of all bases into results.json and writes docs/results/prediction.md with its figure.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.prediction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=("measure", "mini", "mini-targets", "page"))
    parser.add_argument("bases", nargs="*", help="bases to measure: organism:NAME or a model folder")
    parser.add_argument("--work", type=Path, default=Path("out/prediction"))
    parser.add_argument("--data", type=Path, help="mini-targets: folder of public text sets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.part == "measure":
        from experiments.prediction.measurement import Data, measure_base

        arguments.work.mkdir(parents=True, exist_ok=True)
        data = Data.packaged()
        for ref in arguments.bases:
            name = Path(ref).name.removeprefix("organism:")
            measure_base(ref, data, arguments.work / f"{name}.json")
    elif arguments.part == "mini":
        from experiments.prediction.measurement import measure_base
        from experiments.prediction.mini import mini_data
        from undersong.models.load_options import LoadOptions

        folder = arguments.work / "mini"
        folder.mkdir(parents=True, exist_ok=True)
        measure_base("mini", mini_data(folder / "clips"), folder / "mini.json", LoadOptions(dtype="bfloat16"))
    elif arguments.part == "mini-targets":
        from experiments.prediction.mini import mini_data
        from experiments.prediction.mini_targets import FILE, measure_targets

        if arguments.data is None:
            parser.error("Give the folder of public text sets as --data.")
        measure_targets(mini_data(arguments.work / "mini" / "clips"), arguments.data / FILE)
    else:
        from experiments.prediction.page import write_page

        write_page(arguments.work)


if __name__ == "__main__":
    main()
