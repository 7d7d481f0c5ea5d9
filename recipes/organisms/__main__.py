"""All of it with one command, on a CPU (extra `tts`), resumable; regenerates what ships and its card:

    python -m recipes.organisms [--arch af3 qwen kimi] [--work DIR] [--out DIR]

Speech once (clips that ship already are kept); then for each architecture seeds in order until three are accepted or
six tried; with af3, the first, the corpora and the reference encoder too.  About 4 minutes of one core for the speech,
2 for the reference encoder, 2 for Kimi's semantic ear, and 3 to 5 for a seed.  The demo's base, `qwen-3`, is not among
them: `bases` trains it with eleven others, `median` says which one it is, and `release` writes it.

    af3   AudioFlamingo3ForConditionalGeneration                one encoder, 25 tokens a second
    qwen  Qwen2_5OmniThinkerForConditionalGeneration            the same, heard without padding
    kimi  KimiAudioForCausalLM of this package                  semantic codes and Whisper states, 12.5 a second

World, splits, batches, trainings and the acceptance rule are shared; `af3.py`, `qwen.py` and `kimi.py` hold what is an
architecture's own.  To add one: a module with the members of `architecture.Architecture`, and its name in
`architecture.NAMES`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from recipes.organisms.architecture import NAMES

FIRST_SEED, WANTED, MOST = 6, 3, 6  # seeds 0-5 belong to earlier recipes (tried.md)


def script(name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-m", f"recipes.organisms.{name}", *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.organisms", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--work", type=Path, default=Path("out/organisms"))
    parser.add_argument("--out", type=Path, default=Path("src/undersong/data/organism"))
    arguments = parser.parse_args()
    work, out = str(arguments.work), str(arguments.out)
    for arch in arguments.arch:
        accepted: list[str] = []
        variants = ["--prompted", str(FIRST_SEED)] if arch == "af3" else []
        for seed in range(FIRST_SEED, FIRST_SEED + MOST):
            script("seed_training", "--arch", arch, "--work", work, "--data", out, "--seeds", str(seed), *variants)
            if not json.loads((arguments.work / arch / f"aligned-{seed}.json").read_text())["fails"]:
                accepted.append(str(seed))
            if len(accepted) == WANTED:
                break
        if arch == "af3":
            script("reference_encoder", "--work", work)
            script("release", "--work", work, "--out", out, "--speech")
        if accepted:
            script("release", "--work", work, "--out", out, "--arch", arch, "--seeds", *accepted)
    script("card", "--work", work, "--data", out)


if __name__ == "__main__":
    main()
