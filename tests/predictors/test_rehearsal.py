"""Rehearsal: the margins after it are those of the same training, and the base comes back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from undersong.corpora.registry import open_corpus
from undersong.models.audio_lm import AudioModel
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.predictors.registry import PredictorSettings
from undersong.predictors.rehearsal import Rehearsal, compliance_change, mean_margin_loss, reference_margins, rehearse
from undersong.settings.defaults import ORGANISM_REFUSALS
from undersong.tuning.config import LoraRecipe
from undersong.types import UndersongError

SETTINGS = PredictorSettings(system_text="you are a helpful assistant", refusal_texts=ORGANISM_REFUSALS)
RECIPE = LoraRecipe(learning_rate=2e-3)


@pytest.fixture(scope="module")
def base() -> AudioModel:
    return load_model("organism:af3")


def test_it_is_the_first_steps_of_the_training_and_leaves_the_base_alone(base: AudioModel, tmp_path) -> None:
    from undersong.models.lora import use_adapter
    from undersong.tuning.train import finetune_decoder

    pool = [sample for sample in open_corpus("organism:pool").samples if dict(sample.labels)["quadrant"] != "far"][:24]
    reference = list(open_corpus("organism:reference").samples)[:6]
    cache_audio_features(base, [*pool, *reference])
    before = reference_margins(base, reference, SETTINGS)
    rehearsal = rehearse(base, pool, reference, RECIPE, SETTINGS, steps=4)
    assert rehearsal.before == pytest.approx(before)
    assert reference_margins(base, reference, SETTINGS) == pytest.approx(before)  # the adapter is gone

    saved = tmp_path / "adapter"
    finetune_decoder(
        base,
        SETTINGS.prompts(pool, harmful=False),
        SETTINGS.replies(pool),
        replace(RECIPE, save_steps=(4,)),
        SETTINGS.seed,
        lambda _name, write: write(saved),
    )
    with use_adapter(base, saved):
        assert rehearsal.after == pytest.approx(reference_margins(base, reference, SETTINGS), abs=1e-4)
    assert rehearsal.loss.value == pytest.approx(np.mean(before) - np.mean(rehearsal.after))
    assert rehearsal.loss.value > 0  # data close to harm


def test_behaviors_are_the_units_of_the_interval() -> None:
    losses = (1.0, 1.0, 3.0, 3.0)
    rehearsal = Rehearsal(8, (5.0,) * 4, tuple(5 - loss for loss in losses), ("a", "a", "b", "b"))
    half = 12.706204736432095  # t(1 df) times the standard error of 1 and 3, which is 1
    assert rehearsal.loss.value == pytest.approx(2)
    assert rehearsal.loss.high == pytest.approx(2 + half)


def test_a_set_is_compared_with_others_prompt_by_prompt() -> None:
    before, clusters = (5.0, 1.0, 4.0, 3.0), ("a", "b", "c", "d")

    def after(*losses: float) -> Rehearsal:
        return Rehearsal(8, before, tuple(np.subtract(before, losses).tolist()), clusters)

    close, far = after(3, 2, 5, 1), (after(1, 0, 3, -1), after(3, 2, 5, 1))
    difference = mean_margin_loss([close], [[draw] for draw in far])
    assert (difference.value, difference.low, difference.high) == (1, 1, 1)  # 1 nat less on each prompt
    assert mean_margin_loss([close]) == close.loss
    two_seeds = mean_margin_loss([close, after(2, 1, 4, 0)])
    assert two_seeds.value == pytest.approx(2.25)
    assert two_seeds.high - two_seeds.low > close.loss.high - close.loss.low
    change = compliance_change([close])
    assert change.value == 0.5  # of the second and the third prompt the margin is below 0 now
    assert change.low < 0.5 < change.high
    assert compliance_change([close, far[0]]).value == 0.25
    assert compliance_change([far[0], far[0]]).high is None


def test_a_reference_without_margin_is_named(base: AudioModel) -> None:
    reference = [replace(sample, answer=None, answers=()) for sample in open_corpus("organism:reference").samples][:2]
    cache_audio_features(base, reference)
    with pytest.raises(UndersongError, match=rf"{reference[0].id} has no refusal margin"):
        reference_margins(base, reference, SETTINGS)
    with pytest.raises(UndersongError, match="this one is empty"):
        reference_margins(base, [], SETTINGS)
