"""The seeds' cards together, and the parts that the repository holds: `python -m recipes.mini.release --work DIR`.

Run `recipes/mini --work DIR --seed N` for each seed first, with `--test` at the end.  One seed ships, because three do
not fit into 20 MB: of those accepted the one that repeats best on development questions.  The recipe makes the others,
and the card tells of all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from recipes.mini.acceptance import fails, preferred
from recipes.mini.card import LEARNED, verdict, write_card
from recipes.mini.card_page import summary
from recipes.mini.parts import faults
from undersong.models.mini.assemble import CARD_FILE
from undersong.models.mini.paths import checkout_parts
from undersong.types import UndersongError

LEAST = 3  # seeds that are told of
FRONT_END = "front end"


def chosen(cards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The card of the accepted seed that repeats best.  UndersongError where there is none, or no test figures."""
    accepted = [card for card in cards if card["rule"] is not None and not fails(card["rule"])]
    if not accepted:
        told = "; ".join(f"seed {card['seed']} {verdict(card)}" for card in cards)
        raise UndersongError(f"No seed is accepted: {told}; take more seeds, or fix the recipe.")
    card = min(accepted, key=lambda card: (preferred(card["rule"]), card["seed"]))
    if summary(card)["test"] is None:
        raise UndersongError(f"Seed {card['seed']} is to ship and has no test figures; run the recipe with --test.")
    return card


def ship(work: Path, out: Path, least: int = LEAST) -> dict[str, Any]:
    """Writes `out` whole: the chosen seed's parts, and a card of all seeds.

    Errors: fewer seeds than `least`, seeds of other sentences or another recipe, parts that may not be held.
    """
    cards = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(work.glob(f"parts-*/{CARD_FILE}"))]
    if len(cards) < least:
        raise UndersongError(
            f"{work} holds cards of {len(cards)} seeds, and {least} are told of; run the recipe for more."
        )
    if len({json.dumps(card["stages"]["texts"], sort_keys=True) for card in cards}) > 1:
        raise UndersongError("The seeds were measured on other sentences; make them of one texts stage.")
    for stage in ("speech", FRONT_END, *LEARNED):
        if len({json.dumps(_recipe(card, stage), sort_keys=True) for card in cards}) > 1:
            raise UndersongError(f"Stage {stage} of the seeds was made by different recipes; make them by one.")
    card = chosen(cards)
    seeds = [summary(other) for other in sorted(cards, key=lambda other: other["seed"])]
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(work / f"parts-{card['seed']}", part)
    write_card(part, card | {"seeds": seeds})
    if found := faults(part):
        raise UndersongError(f"These parts may not be held: {'; '.join(found)}; make them again.")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    return card | {"seeds": seeds}


def _recipe(card: dict[str, Any], stage: str) -> dict[str, Any]:
    """How a stage of a card was made, but for its seed and what it cost and came to."""
    name = {FRONT_END: card["front"], "speech": stage}.get(stage, f"{stage}-{card['seed']}")
    made = card["stages"].get(name, {})
    recipe = {key: value for key, value in made.get("recipe", {}).items() if key != "seed"}
    return recipe | {key: made[key] for key in ("mixture", "asked", "clips", "voices", "dtype") if key in made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/mini"))
    parser.add_argument("--out", type=Path, default=checkout_parts())
    parser.add_argument("--seeds", type=int, default=LEAST, help="least number that the card tells of")
    asked = parser.parse_args()
    card = ship(asked.work.resolve(), asked.out, asked.seeds)
    print(f"{asked.out}: seed {card['seed']} of {len(card['seeds'])}, {card['bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except UndersongError as error:
        sys.exit(f"recipes/mini/release.py: {error}")
