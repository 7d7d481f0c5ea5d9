"""Anchors: which behaviors are taken, what a small reference gives, and what is lost is named."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_af3 import PLAIN

from undersong.models.audio_lm import AudioModel
from undersong.tuning.gradient_anchors import GradientSettings, influence_anchors, matching_anchors, spread_rows
from undersong.tuning.gradient_features import gradient_vectors
from undersong.types import Prompt, Sample, UndersongError

SETTINGS = GradientSettings(dim=64, rank=2, alpha=4)
TEXTS = ("paint the boat", "wash the lamp", "fold the chair")
COMPLY, REFUSE = ["then", "first the lamp", "some"], ["the old chair", "the red chair", "old"]


def prompts(count: int, voices: int = 1) -> list[Prompt]:
    samples = [Sample(f"{i}-{v}", text=TEXTS[i % 3], group=f"g{i}") for i in range(count) for v in range(voices)]
    return [Prompt(sample, "reference", True, "text", "train", PLAIN) for sample in samples]


@pytest.mark.parametrize("count", [10, 24, 100])
def test_anchors_are_of_all_parts_of_a_sorted_reference(count: int) -> None:
    """One voice of each behavior; the first ten lie no farther apart than twice the even gap."""
    rows = spread_rows(prompts(count, voices=2))
    assert sorted(rows) == list(range(0, 2 * count, 2))
    taken = np.sort(rows[:10]) / (2 * count)
    assert np.diff(taken, prepend=0, append=1).max() <= 0.2 + 1 / count


def test_a_second_safe_set_is_of_other_behaviors_and_may_be_missing(tiny: AudioModel) -> None:
    asked = prompts(3)
    by_row = {
        kind: gradient_vectors(tiny, asked, replies, dim=64, rank=2, alpha=4).vectors
        for kind, replies in (("comply", COMPLY), ("refuse", REFUSE))
    }
    order = spread_rows(asked)
    two = matching_anchors(tiny, asked, COMPLY, REFUSE, 2, None, SETTINGS)
    wanted = by_row["comply"][order[:2]] - by_row["refuse"][order[:2]].mean(0) - by_row["refuse"][order[2]]
    np.testing.assert_allclose(two.vectors, wanted, atol=1e-5)
    assert two.ids == tuple(asked[row].sample.id for row in order[:2])
    whole = matching_anchors(tiny, asked, COMPLY, REFUSE, 10, None, SETTINGS)  # no behavior is left for a second
    np.testing.assert_allclose(whole.vectors, by_row["comply"][order] - by_row["refuse"][order].mean(0), atol=1e-5)


def test_influence_keeps_lengths_and_loses_no_prompt_in_silence(tiny: AudioModel) -> None:
    asked = prompts(3)
    comply, refuse = (
        gradient_vectors(tiny, asked, replies, dim=64, rank=2, alpha=4, normalize=False).vectors
        for replies in (COMPLY, REFUSE)
    )
    anchors = influence_anchors(tiny, asked, COMPLY, REFUSE, None, SETTINGS)
    np.testing.assert_allclose(anchors.vectors, comply - refuse, rtol=1e-4, atol=1e-5)
    lost = influence_anchors(tiny, asked, ["", *COMPLY[1:]], REFUSE, None, SETTINGS)
    assert [(item.id, "no reply" in item.reason) for item in lost.quarantined] == [("0-0", True)]
    np.testing.assert_allclose(lost.vectors, (comply - refuse)[1:], rtol=1e-4, atol=1e-5)
    with pytest.raises(UndersongError, match="no harmful prompt"):
        influence_anchors(tiny, [], [], [], None, SETTINGS)
