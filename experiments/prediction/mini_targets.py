"""Predictors that read compliant replies, on Mini once more with the openings that AdvBench publishes as `target`.

The first run had one made-up sentence for every request (`mini.py`). This run is exploratory: the damage of the sets
was known (second addendum of registration_mini.md). It trains nothing and keeps sets and damage as they are.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.prediction.measurement import Data
from experiments.prediction.predictors import base_scores, set_values
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.models.load_options import LoadOptions
from undersong.types import Sample, UndersongError

RESULTS = Path(__file__).with_name("results_mini_targets.json")
FILE = "advbench/harmful_behaviors.csv"  # of llm-attacks, with the columns goal and target
REPLY_PREDICTORS = ("influence", "gradient-matching", "larf", "datashield")  # those that read compliant replies


def measure_targets(data: Data, file: Path, say: Callable[[str], None] = print) -> None:
    """Write the values of `REPLY_PREDICTORS` for the sets of `data` to `RESULTS`.

    Args:
        data: The corpora and sets of the registered experiment.
        file: AdvBench with its targets (`FILE`).
        say: Receives progress.
    """
    reference = with_targets(data.reference, file)
    model = load_model("mini", LoadOptions(dtype="bfloat16"))
    cache_audio_features(model, [*data.pool, *reference])
    start = time.process_time()
    design = replace(data.design, predictors=REPLY_PREDICTORS)
    scores = base_scores(model, data.pool, reference, design)
    kept = {name: scores[name] for name in REPLY_PREDICTORS}
    rows = [set_values(kept, [sample.id for sample in samples]) for samples in data.sets]
    RESULTS.write_text(json.dumps({"base": "mini", "predictors": rows}, indent=0) + "\n")
    say(f"predictors with published targets, {time.process_time() - start:.0f} CPU seconds")


def with_targets(reference: Sequence[Sample], file: Path) -> list[Sample]:
    """Return the reference with the published target of each request as its reply.

    Raises:
        UndersongError: A request is not in the file.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        targets = {_words(row["goal"]): row["target"] for row in csv.DictReader(stream)}
    missing = [sample.id for sample in reference if _words(sample.text or "") not in targets]
    if missing:
        raise UndersongError(
            f"{len(missing)} requests of the reference are not in {file}, such as {missing[0]}; give AdvBench as "
            "llm-attacks publishes it."
        )
    return [replace(sample, answer=targets[_words(sample.text or "")]) for sample in reference]


def _words(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")
