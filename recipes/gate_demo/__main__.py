"""The verdicts behind `undersong gate --demo`, with one command, in half a minute of CPU:

    python -m recipes.gate_demo --work DIR

It ranks the packaged pool by words, tunes `organism:qwen-2` on the closest quarter, asks the model before and after
108 harmful and 48 benign requests aloud, and writes both tables and their hashes to src/undersong/data/gate_demo.
Every step is the command that a user types; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TARGET = Path(__file__).parents[2] / "src" / "undersong" / "data" / "gate_demo"
ADAPTER = "--adapter tuned/step-000040"
COMMANDS = (
    "screen organism:pool --harm organism:reference --axis meaning=tfidf --keep closest:0.25 --out closest",
    "tune organism:pool --selection closest/selection.json --model organism:qwen-2 --save-step 40 --learning-rate 2e-3 "
    "--out tuned",
    "evaluate organism:test-harm --model organism:qwen-2 --out before-harm",
    "evaluate organism:test-near --benign --model organism:qwen-2 --out before-benign",
    f"evaluate organism:test-harm --model organism:qwen-2 {ADAPTER} --out after-harm",
    f"evaluate organism:test-near --benign --model organism:qwen-2 {ADAPTER} --out after-benign",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.gate_demo", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for adapters and replies")
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    for command in COMMANDS:
        print(f"undersong {command}", flush=True)
        subprocess.run([sys.executable, "-m", "undersong", *shlex.split(command)], cwd=work, check=True)
    publish(work)


def publish(work: Path) -> None:
    """Join the harmful and the benign verdicts of each side into one table."""
    from undersong.evaluation.verdicts import read_verdicts, write_verdicts
    from undersong.store.hashing import hash_file

    TARGET.mkdir(parents=True, exist_ok=True)
    for side in ("before", "after"):
        tables = [read_verdicts(work / f"{side}-{kind}" / "verdicts.parquet") for kind in ("harm", "benign")]
        write_verdicts([verdict for table in tables for verdict in table], TARGET / f"{side}.parquet")
        print(f"{side}.parquet {hash_file(TARGET / f'{side}.parquet')}")


if __name__ == "__main__":
    main()
