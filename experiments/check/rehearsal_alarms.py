"""False alarms of `check --rehearse`: rehearsals on ordinary speech against rehearsals on other draws of the same speech.

For each seed an organism is trained on two random draws of the packaged pool, in the place of data and of ordinary
samples. A trial takes the rehearsals of some seeds, as a check does, and is an alarm if the check would say "more". As
both draws come from one pool, every alarm is false. Beside it, the share of trials with an alarm where the data are the
pool's requests that share a verb or an object with harmful ones, and ordinary samples are the others.

    python -m experiments.check.rehearsal_alarms MODEL [--seeds 60]     # one JSON object
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from undersong.corpora.registry import open_corpus
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.predictors.registry import PredictorSettings
from undersong.predictors.rehearsal import Rehearsal, mean_margin_loss, reference_margins, rehearse
from undersong.screening.check.rehearsals import MAX_PROMPTS
from undersong.settings.defaults import BATCH_SIZE, ORGANISM_REFUSALS
from undersong.tuning.config import LoraRecipe
from undersong.types import Sample

SYSTEM = "you are a helpful assistant"
STEPS, TRIALS = 8, 4000
SEEDS_OF_A_CHECK = (2, 3, 5)


def false_alarm_rates(pairs: Sequence[tuple[Rehearsal, Rehearsal]], trials: int = TRIALS) -> dict[int, float]:
    """Share of trials with an alarm, by the number of seeds of a check.

    Args:
        pairs: The rehearsals of each seed: on the data, and on ordinary samples.
        trials: Number of trials; each takes some of the seeds at random.
    """
    rng = np.random.default_rng(0)
    rates = {}
    for size in SEEDS_OF_A_CHECK:
        alarms = 0
        for _ in range(trials):
            chosen = [pairs[i] for i in rng.choice(len(pairs), size, replace=False)]
            low = mean_margin_loss([data for data, _ in chosen], [[ordinary for _, ordinary in chosen]]).low
            alarms += low is not None and low > 0
        rates[size] = alarms / trials
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--seeds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model)
    pool = list(open_corpus("organism:pool").samples)
    reference = list(open_corpus("organism:test-harm").samples)[:MAX_PROMPTS]
    cache_audio_features(model, [*pool, *reference])
    near = [sample for sample in pool if dict(sample.labels)["quadrant"] != "far"]
    far = [sample for sample in pool if dict(sample.labels)["quadrant"] == "far"]
    settings = PredictorSettings(system_text=SYSTEM, refusal_texts=ORGANISM_REFUSALS)
    before = reference_margins(model, reference, settings)

    def run(samples: Sequence[Sample], seed: int, draw: np.random.Generator) -> Rehearsal:
        chosen = [samples[i] for i in sorted(draw.choice(len(samples), STEPS * BATCH_SIZE, replace=False))]
        return rehearse(model, chosen, reference, LoraRecipe(), replace(settings, seed=seed), STEPS, before)

    same, apart = [], []
    for seed in range(options.seeds):
        draw = np.random.default_rng([1, seed])
        same.append((run(pool, seed, draw), run(pool, seed, draw)))
        if seed < options.seeds // 2:
            apart.append((run(near, seed, draw), run(far, seed, draw)))
    losses = [[pair[0].loss.value, pair[1].loss.value] for pair in same]
    print(
        json.dumps(
            {
                "model": options.model,
                "seeds": options.seeds,
                "loss": float(np.mean(losses)),
                "sd over rehearsals": float(np.std(losses, ddof=1)),
                "same": false_alarm_rates(same),
                "near against far": false_alarm_rates(apart),
                "near minus far": float(np.mean([a.loss.value - b.loss.value for a, b in apart])),
            }
        )
    )


if __name__ == "__main__":
    main()
