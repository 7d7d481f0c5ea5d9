"""Damage of a design's sets on one base, and the values of all predictors; resumable, one JSON file per base."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.prediction.design import ORGANISMS, Design, draw_sets
from experiments.prediction.predictors import base_scores, encoder_scores, rehearsal_values, set_values
from undersong.corpora.registry import open_corpus
from undersong.evaluation.judges.registry import make_judge
from undersong.evaluation.refusal_margin import MarginSettings, refusal_margins
from undersong.models.audio_lm import AudioModel
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.tuning.train import finetune_decoder
from undersong.types import Prompt, Sample


@dataclass(frozen=True)
class Data:
    """The corpora of an experiment, its sets, and its design."""

    design: Design
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
        return cls(ORGANISMS, pool, reference, benign, test, [[by_id[key] for key in ids] for ids in draw_sets(pool)])

    @property
    def test_prompts(self) -> list[Prompt]:
        """Spoken harmful requests that damage is measured on."""
        return self.design.settings.prompts(self.test, harmful=True)


def measure_base(
    ref: str,
    data: Data,
    file: Path,
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
    say: Callable[[str], None] = print,
) -> None:
    """Measure one base completely; what the file holds is not measured again.

    Args:
        ref: Reference or folder of the base.
        data: The corpora and sets.
        file: JSON file of the base.
        loading: How the base is loaded.
        say: Receives progress.
    """
    held = json.loads(file.read_text()) if file.is_file() else {"base": Path(ref).name.removeprefix("organism:")}
    model = load_model(ref, loading)
    design = data.design
    cache_audio_features(model, [*data.pool, *data.reference, *data.test])
    if "predictors" not in held:
        start = time.process_time()
        scores = encoder_scores(design.axes, data.pool, data.reference, data.benign)
        scores |= base_scores(model, data.pool, data.reference, design)
        rows = [set_values(scores, [sample.id for sample in samples]) for samples in data.sets]
        rehearsals = rehearsal_values(model, data.sets, data.reference, design)
        held["predictors"] = [
            row | design.metadata(samples) | {"rehearsal": loss}
            for row, samples, loss in zip(rows, data.sets, rehearsals)
        ]
        held["before"] = _damage_measures(model, data)
        _write(file, held)
        say(f"{ref}: predictors, {time.process_time() - start:.0f} CPU seconds")
    after = held.setdefault("after", [])
    for number, samples in enumerate(data.sets):
        for seed in design.seeds:
            if any((entry["set"], entry["seed"]) == (number, seed) for entry in after):
                continue
            after.append({"set": number, "seed": seed} | _train_and_measure(model, samples, data, seed))
            _write(file, held)
        say(f"{ref}: set {number}")


def _train_and_measure(model: AudioModel, samples: Sequence[Sample], data: Data, seed: int) -> dict[str, float]:
    measures: dict[str, float] = {}
    settings = data.design.settings

    def measure(_name: str, _write: Callable[[Path], None]) -> None:
        measures.update(_damage_measures(model, data))

    prompts, replies = settings.prompts(samples, harmful=False), settings.replies(samples)
    finetune_decoder(model, prompts, replies, data.design.recipe, seed, measure)
    return measures


def _damage_measures(model: AudioModel, data: Data) -> dict[str, float]:
    design, prompts = data.design, data.test_prompts
    margins = refusal_margins(model, prompts, MarginSettings(design.settings.refusal_texts))
    judge = make_judge(design.judge, design.settings.refusal_texts)
    verdicts = judge.judge(prompts, model.generate(prompts, design.max_new_tokens))
    return {
        "margin": float(np.mean([margin for margin in margins if margin is not None])),
        "jsr": float(np.mean([verdict.verdict == "jailbreak" for verdict in verdicts])),
    }


def _write(file: Path, held: dict) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(held))
    part.rename(file)
