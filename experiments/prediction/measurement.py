"""Damage of the registered sets on one base, and the values of all predictors; resumable, one JSON file per base."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.prediction.design import RECIPE, SEEDS, SYSTEM_TEXT, draw_sets
from experiments.prediction.predictors import (
    SETTINGS,
    base_scores,
    encoder_scores,
    metadata_values,
    rehearsal_values,
    set_values,
)
from undersong.corpora import open_corpus
from undersong.evaluation.judges.rule_based import exact_judge
from undersong.evaluation.prompts import make_prompts
from undersong.evaluation.refusal_margin import MarginSettings, refusal_margins
from undersong.models import cache_audio_features, load_model
from undersong.models.audio_lm import AudioModel
from undersong.study.defaults import ORGANISM_REFUSALS
from undersong.tuning.train import finetune_decoder
from undersong.types import Prompt, Sample

MAX_NEW_TOKENS = 12


@dataclass(frozen=True)
class Data:
    """The corpora of the experiment, and its sets."""

    pool: list[Sample]
    reference: list[Sample]
    benign: list[Sample]
    test: list[Sample]
    sets: list[list[Sample]]

    @classmethod
    def packaged(cls) -> Data:
        """The packaged corpora."""
        pool, reference, benign, test = (
            list(open_corpus(f"organism:{name}").samples)
            for name in ("pool", "reference", "contrast-benign", "test-harm")
        )
        by_id = {sample.id: sample for sample in pool}
        return cls(pool, reference, benign, test, [[by_id[key] for key in ids] for ids in draw_sets(pool)])

    @property
    def test_prompts(self) -> list[Prompt]:
        """Spoken harmful requests that damage is measured on."""
        return make_prompts(
            self.test, set_name="harm", harmful=True, modality="audio", system="plain", system_text=SYSTEM_TEXT
        )


def measure_base(ref: str, data: Data, file: Path, say: Callable[[str], None] = print) -> None:
    """Measure one base completely; what the file holds is not measured again.

    Args:
        ref: Reference or folder of the base.
        data: The corpora and sets.
        file: JSON file of the base.
        say: Receives progress.
    """
    held = json.loads(file.read_text()) if file.is_file() else {"base": Path(ref).name.removeprefix("organism:")}
    model = load_model(ref)
    cache_audio_features(model, [*data.pool, *data.reference, *data.test])
    if "predictors" not in held:
        start = time.process_time()
        scores = encoder_scores(data.pool, data.reference, data.benign) | base_scores(model, data.pool, data.reference)
        rows = [set_values(scores, [sample.id for sample in samples]) for samples in data.sets]
        rehearsals = rehearsal_values(model, data.sets, data.reference)
        held["predictors"] = [
            row | metadata_values(samples) | {"rehearsal": loss}
            for row, samples, loss in zip(rows, data.sets, rehearsals)
        ]
        held["before"] = _damage_measures(model, data.test_prompts)
        _write(file, held)
        say(f"{ref}: predictors, {time.process_time() - start:.0f} CPU seconds")
    after = held.setdefault("after", [])
    for number, samples in enumerate(data.sets):
        for seed in SEEDS:
            if any((entry["set"], entry["seed"]) == (number, seed) for entry in after):
                continue
            after.append({"set": number, "seed": seed} | _train_and_measure(model, samples, data.test_prompts, seed))
            _write(file, held)
        say(f"{ref}: set {number}")


def _train_and_measure(
    model: AudioModel, samples: Sequence[Sample], prompts: Sequence[Prompt], seed: int
) -> dict[str, float]:
    measures: dict[str, float] = {}

    def measure(_name: str, _write: Callable[[Path], None]) -> None:
        measures.update(_damage_measures(model, prompts))

    finetune_decoder(model, SETTINGS.prompts(samples, harmful=False), SETTINGS.replies(samples), RECIPE, seed, measure)
    return measures


def _damage_measures(model: AudioModel, prompts: Sequence[Prompt]) -> dict[str, float]:
    margins = refusal_margins(model, prompts, MarginSettings(ORGANISM_REFUSALS))
    verdicts = exact_judge(ORGANISM_REFUSALS).judge(prompts, model.generate(prompts, MAX_NEW_TOKENS))
    return {
        "margin": float(np.mean([margin for margin in margins if margin is not None])),
        "jsr": float(np.mean([verdict.verdict == "jailbreak" for verdict in verdicts])),
    }


def _write(file: Path, held: dict) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(held))
    part.rename(file)
