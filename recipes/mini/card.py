"""The models put together, measured, and told of: `parts-SEED/` as the repository holds them, card.json, CARD.md.

On development prompts by default: `--test` looks at the test sets, and is for when nothing is chosen any more
(rule 14 of docs/contributing/rules.md).  `release.py` puts the seeds' cards together.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.mini.acceptance import examined, fails
from recipes.mini.card_check import pick
from recipes.mini.card_page import page
from recipes.mini.evaluation import TEST_ONLY, Which, measure
from recipes.mini.parts import bytes_of, learned_hashes, loading_of, put_together, write_parts
from recipes.mini.speech import load_clips
from recipes.mini.weights import Base
from recipes.mini.work_files import costed, measured, read_figures, write_figures
from undersong.models.mini.assemble import CARD_FILE, CARD_PAGE, hash_parts
from undersong.models.mini.paths import ALIGNED, UNALIGNED
from undersong.store.atomic import write_atomic

DEV, TEST, FEW = 60, 100, 4  # most prompts a set, but for test sets that are asked whole
SHARED, LEARNED = ("texts", "written", "speech", "cache"), ("answers", "listening", "alignment")  # stages; of a seed


def finish(work: Path, base: Base, front: Path, learned: Sequence[Path], asked: argparse.Namespace) -> None:
    """Measures what is not measured yet; writes the parts of this seed and their card."""
    adapters = dict(zip(("listening", "alignment"), learned))
    which = Which("test", TEST, TEST_ONLY) if asked.test else Which("dev", DEV)
    which = Which(which.split, FEW) if asked.smoke else which
    clips = load_clips(work)
    measure_anew(work, base, front, adapters, asked, clips, which)
    parts = write_parts(work / f"parts-{asked.seed}", base, front, adapters, [UNALIGNED, ALIGNED])
    made = told(read_figures(work), front, adapters, asked.seed)
    card = {
        "seed": asked.seed,
        "front": front.parent.name,
        "bytes": bytes_of(parts),
        "files": hash_parts(parts),
        "dtype": made[measured(which.split, ALIGNED, asked.seed)]["dtype"],
        "rule": _examined(made.get(measured("dev", ALIGNED, asked.seed))),
        "check": pick(clips, which),
        "stages": made,
    }
    write_card(parts, card)
    print(f"{parts}: {card['bytes'] / 1e6:.1f} MB; {verdict(card)}", flush=True)


def measure_anew(
    work: Path,
    base: Base,
    front: Path,
    adapters: dict[str, Path],
    asked: argparse.Namespace,
    clips: Sequence[dict[str, Any]],
    which: Which,
) -> None:
    """Both models on the split's prompts, unless these figures are of these very parts, this dtype and these prompts."""
    loading = loading_of(asked)
    for name in (UNALIGNED, ALIGNED):
        stage = measured(which.split, name, asked.seed)
        how = {"dtype": loading.dtype, "learned": learned_hashes(name, front, adapters)}
        how |= {"most prompts": which.most, "whole": list(which.whole)}
        if how.items() <= read_figures(work).get(stage, {}).items():
            continue
        model = put_together(work, name, base, front, adapters, loading, asked.seed)
        figures: dict[str, Any] = dict(how)
        with costed(figures):
            found = measure(work, model, clips, which)
        write_figures(work, stage, figures | {"sets": found})


def _examined(stage: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    """The acceptance rule on development prompts; None where they were not asked."""
    return None if stage is None else examined(stage["sets"])


def verdict(card: dict[str, Any]) -> str:
    """Whether a seed is accepted, in words."""
    if card["rule"] is None:
        return "not accepted yet: development prompts were not asked"
    lacks = fails(card["rule"])
    return f"not accepted: {', '.join(lacks)}" if lacks else "accepted"


def told(figures: dict[str, Any], front: Path, adapters: dict[str, Path], seed: int) -> dict[str, Any]:
    """The stages that these parts are of.  What was measured before a part was learned anew is of another model: a
    seed is not accepted by it, and no card tells of it."""
    stages = (*SHARED, front.parent.name, *(f"{stage}-{seed}" for stage in LEARNED))
    made = {stage: figures[stage] for stage in stages if stage in figures}
    for name in (UNALIGNED, ALIGNED):
        learned = learned_hashes(name, front, adapters)
        for stage in (measured(split, name, seed) for split in ("dev", "test")):
            if figures.get(stage, {}).get("learned") == learned:
                made[stage] = figures[stage]
    return made


def write_card(parts: Path, card: dict[str, Any]) -> None:
    """`card.json`, and the same to read."""
    write_atomic(parts / CARD_FILE, (json.dumps(card, indent=1, sort_keys=True) + "\n").encode())
    write_atomic(parts / CARD_PAGE, page(card).encode())
