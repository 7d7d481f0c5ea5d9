"""The refusal judges that ship, with one command, on a CPU (extra `encoders`); about three minutes of one core:

    python -m recipes.refusal_judge --data FOLDER_OF_XSTEST [--minilm REF] [--out DIR]

`FOLDER_OF_XSTEST` holds `refusal_labels.csv` (model, type, prompt, completion, final_label), made of XSTest's
`model_completions`.  Writes weights, `card.json` and `CARD.md`; no completion is written anywhere.  Nothing is drawn at
random but the bootstrap of the intervals, whose seed is fixed.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from recipes.refusal_judge.accuracy import against, decide, figures, keyword_hits, longer_hits, on_organisms
from recipes.refusal_judge.card import write_card
from recipes.refusal_judge.training import Bank, Variant, choose, develop, fit, hashed_bank, held_out, minilm_bank
from recipes.refusal_judge.xstest import FILE, read_rows
from undersong.encoders.spec import DEFAULT_SENTENCE_MODEL
from undersong.encoders.text import sentence_encoder
from undersong.evaluation.judges.refusal import RefusalJudge, keyword_pattern_hash, load_refusal_model
from undersong.evaluation.judges.rule_based import keyword_judge
from undersong.store.hashing import hash_file
from undersong.types import Judge


def save(name: str, bank: Bank, variant: Variant, out: Path) -> Path:
    """The weights of all rows with the chosen settings, as `load_linear` reads them."""
    from safetensors.numpy import save_file

    fitted = fit(bank, variant, np.arange(len(bank.rows)))
    file = out / f"{name.replace('+', '-')}.safetensors"
    facts = {"name": name, "opening": variant.opening, "letters": variant.letters, "keywords": keyword_pattern_hash()}
    tensors = {
        "weights": fitted.weights,
        "keyword_bias": np.array([fitted.keyword, fitted.bias]),
        "anchors": bank.anchors.astype(np.float32),
    }
    save_file(tensors, file, metadata={"judge": json.dumps(facts, sort_keys=True)})  # one key: their order is random
    file.chmod(0o644)  # the library leaves it to its owner
    return file


def train(name: str, bank: Bank, out: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What the card says of a judge, and its held-out (n,) bool verdicts."""
    cells: dict[str, Variant] = {}

    def chosen(family: str, fold: int, rows: np.ndarray) -> Variant:
        cells[f"{family}/{fold}"] = choose(develop(bank, rows))
        return cells[f"{family}/{fold}"]

    developed = develop(bank, np.arange(len(bank.rows)))
    final = choose(developed)
    said = held_out(bank, chosen) > 0  # the one look
    file = save(name, bank, final, out)
    return {
        "chosen": asdict(final),
        "developed": [[*astuple(variant), kappa] for variant, kappa in developed.items()],
        "cells": {cell: astuple(variant) for cell, variant in cells.items()},
        "held_out": figures(bank.rows, said),
        "file": {"name": file.name, "bytes": file.stat().st_size, "sha256": hash_file(file)},
    }, said


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.refusal_judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minilm", default=DEFAULT_SENTENCE_MODEL, help="folder or hub id of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, default=Path("src/undersong/data/refusal"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = read_rows(arguments.data)
    texts = [row.completion for row in rows]
    hits, longer = keyword_hits(texts), longer_hits(texts)
    encoder = sentence_encoder(arguments.minilm)
    made = {
        name: train(name, bank, arguments.out)
        for name, bank in (
            ("refusal", hashed_bank(rows, hits)),
            ("refusal+minilm", minilm_bank(rows, hits, encoder)),
        )
    }
    compared = {name: against(rows, hits, said) for name, (_, said) in made.items()}
    linear = RefusalJudge(load_refusal_model(arguments.out / made["refusal"][0]["file"]["name"]))
    minilm = RefusalJudge(
        load_refusal_model(arguments.out / made["refusal+minilm"][0]["file"]["name"]), arguments.minilm
    )
    shipped: dict[str, Judge] = {"keyword": keyword_judge(), "refusal": linear, "refusal+minilm": minilm}
    card = {
        "data": {
            "sha256": hash_file(arguments.data / FILE),
            "rows": len(rows),
            "prompts": len({r.prompt for r in rows}),
            "labels": dict(Counter(row.label for row in rows)),
        },
        "keywords": keyword_pattern_hash(),
        "baselines": {"keyword": figures(rows, hits), "keyword, 250 characters": figures(rows, longer)},
        "judges": {name: facts for name, (facts, _) in made.items()},
        "decided": decide(compared),
        "against_keyword": compared,
        "organisms": {name: on_organisms(judge) for name, judge in shipped.items()},
        "minilm_against_refusal": against(rows, made["refusal"][1], made["refusal+minilm"][1]),
    }
    write_card(card, arguments.out)


if __name__ == "__main__":
    main()
