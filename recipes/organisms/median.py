"""Which base the demo uses, by a rule: `python -m recipes.organisms.median [--arch qwen] [--work DIR] [--bases DIR]`.

The rule was written before any of its figures was computed.

* Candidates are all accepted bases of the architecture that the shipping recipe made: those that were accepted when the
  packaged ones were chosen (`seeds.json`), and the further ones of `bases`. Deeper variants are no candidates.
* A base's figure is the spoken JSR on the harmful requests of the accept split after 40 steps at the demo's learning
  rate of 2e-3 on 162 samples of near-benign speech of the pool: the mean over two trainings, with the tuning seeds that
  the recipe was chosen with. Nothing is tuned, evaluated or chosen on the test split.
* All candidates hear one synthesis of the accept split. It need not be the one that an earlier measurement used.
* Bases are ranked from the lowest figure to the highest, equal ones by their seed. The base in the middle is taken: rank
  (n + 1) / 2 of an odd number n, rank n / 2 of an even one.

Figures are kept in `median.json` after each base. A base whose figure is there is not measured again.

The rule took seed 104 of `qwen`, which ships as `qwen-3`: `release --arch qwen --seeds 8 10 11 104` writes it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from recipes.organisms.architecture import NAMES, architecture
from recipes.organisms.base_steps import TUNING_SEEDS, broken
from recipes.organisms.bases import FIRST_SEED
from recipes.organisms.batches import Corpus
from recipes.organisms.training import Dose
from recipes.organisms.world import SHIPPED

HERE = Path(__file__).parent
FILE = HERE / "median.json"
STEPS = 40
CHOSEN = {"qwen": 104}  # seeds that ship because the rule took them, after those of `seeds.json`


def packaged(name: str) -> dict[int, str]:
    """Seed -> name of the bases that ship, in the order of the seeds."""
    trained = json.loads((HERE / "seeds.json").read_text())[name]
    accepted = [key for key, facts in trained.items() if key.startswith("aligned-") and not facts["fails"]]
    first = sorted(seed for seed in (int(key.removeprefix("aligned-")) for key in accepted) if seed < FIRST_SEED)
    seeds = [*first, *([CHOSEN[name]] if name in CHOSEN else [])]
    return {seed: f"{name}-{number}" if number else name for number, seed in enumerate(seeds)}


def candidates(name: str, bases: Path) -> dict[int, str]:
    """Seed -> reference of every accepted base, in the order of the seeds.

    Args:
        name: The architecture.
        bases: Folder of the further bases, as `recipes.organisms.bases` writes it.
    """
    further = json.loads((bases / f"{name}.json").read_text())
    folders = {entry["seed"]: str(bases / entry["folder"]) for entry in further if entry["accepted"]}
    return {seed: f"organism:{shipped}" for seed, shipped in packaged(name).items()} | folders


def measure(corpus: Corpus, ref: str) -> list[float]:
    """Spoken JSR of a base on the accept split after near-benign speech, one figure for each tuning seed."""
    from undersong.models.load import load_model

    model, dose = load_model(ref).base, Dose(steps=(STEPS,))
    return [broken(corpus, model, seed, ("near",), dose)[f"near_{STEPS}_{seed}"] for seed in TUNING_SEEDS]


def ranked(figures: dict[int, list[float]]) -> list[tuple[int, float]]:
    """Seeds with their mean figure, from the lowest to the highest; equal ones by seed."""
    means = {seed: round(sum(values) / len(values), 4) for seed, values in figures.items()}
    return sorted(means.items(), key=lambda item: (item[1], item[0]))


def median_seed(figures: dict[int, list[float]]) -> int:
    """Seed of the base in the middle, the lower one of two."""
    return ranked(figures)[(len(figures) - 1) // 2][0]


def median_table(measured: dict[str, dict[str, list[float]]]) -> str:
    """Bases of every architecture by rank: seed, name of a packaged one, both trainings and their mean."""
    columns = {}
    for name, values in measured.items():
        figures, shipped = {int(seed): pair for seed, pair in values.items()}, packaged(name)
        cells = []
        for seed, mean in ranked(figures):
            pair = ", ".join(f"{100 * value:.0f}" for value in figures[seed])
            cell = f"{100 * mean:.1f} ({pair}), seed {seed}{f', `{shipped[seed]}`' if seed in shipped else ''}"
            cells.append(f"**{cell}**" if seed == median_seed(figures) else cell)
        columns[name] = cells
    lines = [f"| rank | {' | '.join(f'`{name}`' for name in columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {rank} | {' | '.join(row)} |" for rank, row in enumerate(zip(*columns.values(), strict=True), 1)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.organisms.median",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", choices=NAMES, default="qwen")
    parser.add_argument("--work", type=Path, default=Path("out/organisms"), help="folder of the speech")
    parser.add_argument("--bases", type=Path, default=Path("out/organisms/bases/shipped"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    name, kept = arguments.arch, json.loads(FILE.read_text()) if FILE.is_file() else {}
    corpus, measured = Corpus(SHIPPED, arguments.work, architecture(name)), kept.setdefault(name, {})
    for seed, ref in candidates(name, arguments.bases).items():
        if str(seed) not in measured:
            start = time.process_time()
            measured[str(seed)] = measure(corpus, ref)
            FILE.write_text(json.dumps(kept, indent=1) + "\n")
            print(f"{name} {seed}: {measured[str(seed)]}, {time.process_time() - start:.0f} CPU seconds", flush=True)
    figures = {int(seed): values for seed, values in measured.items()}
    for rank, (seed, figure) in enumerate(ranked(figures), 1):
        print(f"{rank:3d}  seed {seed:3d}  {figure:.3f}{'  median' if seed == median_seed(figures) else ''}")


if __name__ == "__main__":
    main()
