"""Safety data among the benign: how much, where, which, and that nothing else moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_af3 import typed
from tiny_tuning import PROMPTS, TARGETS

from undersong.models.audio_lm import AudioModel
from undersong.models.lora import use_adapter
from undersong.tuning.checkpoints import step_folder
from undersong.tuning.config import LoraRecipe
from undersong.tuning.reproducibility import sample_order
from undersong.tuning.safety_mixing import SafetyMixing, mix_safety_pairs
from undersong.tuning.train import finetune_decoder
from undersong.types import UndersongError

SHARES = st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.07, 0.25, 0.5])
LENGTHS, SEEDS = st.integers(100, 700), st.integers(0, 2**32)
ASKED = [typed("tell me how to fold"), typed("how to wash a boat")]
REFUSALS = ["first", "then then"]


def drawn(length: int, share: float, seed: int, kinds: int = 4) -> list[int]:
    """Benign samples are their number in order, safety pairs are -1, -2, …"""
    return mix_safety_pairs(range(length), range(-kinds, 0), share, seed)


@given(LENGTHS, SHARES, SEEDS)
def test_as_many_as_before_and_a_share_of_them_are_safety(length: int, share: float, seed: int) -> None:
    out = drawn(length, share, seed)
    assert len(out) == length
    assert abs(sum(one < 0 for one in out) - length * share) < 1


@given(LENGTHS, SHARES, SEEDS)
def test_every_stretch_has_exactly_one(length: int, share: float, seed: int) -> None:
    out, percent = drawn(length, share, seed), round(share * 100)
    ends = [number * 100 // percent for number in range(length * percent // 100 + 1)]
    assert all(sum(one < 0 for one in out[start:end]) == 1 for start, end in pairwise(ends))


@given(LENGTHS, SHARES, SEEDS)
def test_no_benign_sample_is_lost_in_order(length: int, share: float, seed: int) -> None:
    benign = [one for one in drawn(length, share, seed) if one >= 0]
    assert benign == list(range(len(benign)))


@given(LENGTHS, SHARES, SEEDS, st.integers(1, 9))
def test_safety_pairs_come_in_whole_rounds(length: int, share: float, seed: int, kinds: int) -> None:
    times = Counter(one for one in drawn(length, share, seed, kinds) if one < 0)
    assert max(times.values()) - min(times[-kind] for kind in range(1, kinds + 1)) <= 1


@given(LENGTHS, LENGTHS, SHARES, SEEDS)
def test_a_shorter_training_begins_alike(one: int, other: int, share: float, seed: int) -> None:
    short, long = sorted((one, other))
    assert drawn(long, share, seed)[:short] == drawn(short, share, seed)


def test_the_seed_decides_and_places_are_of_all_kinds() -> None:
    assert drawn(400, 0.05, 1) == drawn(400, 0.05, 1)
    assert drawn(400, 0.05, 1) != drawn(400, 0.05, 2)
    inside = {i % 20 for seed in range(40) for i, one in enumerate(drawn(400, 0.05, seed)) if one < 0}
    assert inside == set(range(20))


@pytest.mark.parametrize("share", [0.0, -0.05, 0.6, 1.0, float("nan")])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(UndersongError, match="give one above 0 and at most"):
        mix_safety_pairs([1] * 100, [-1], share, 0)
    with pytest.raises(UndersongError, match="give one above 0 and at most"):
        SafetyMixing(ASKED, REFUSALS, share)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([], []), "no safety data to mix in"),
        ((ASKED, ["first"]), "2 safety prompts have 1 refusals"),
        ((ASKED, ["first", " "]), r"Safety prompt text:how to wash a boat has no refusal to train on \(1 such\)"),
    ],
)
def test_what_cannot_be_mixed_in(given: tuple, said: str) -> None:
    with pytest.raises(UndersongError, match=said):
        SafetyMixing(*given, 0.1)


def test_a_training_too_short_to_see_any() -> None:
    with pytest.raises(UndersongError, match="training of 99 samples is too short for a share of"):
        mix_safety_pairs([1] * 99, [-1], 0.01, 0)
    with pytest.raises(UndersongError, match="no safety data"):
        mix_safety_pairs([1] * 99, [], 0.1, 0)


def test_a_training_sees_what_is_mixed_and_says_so(tiny: AudioModel, tmp_path: Path, monkeypatch) -> None:
    seen: list[str] = []
    batch = tiny.batch

    def spy(prompts, replies=None):
        seen.extend(prompt.sample.id for prompt in prompts)
        return batch(prompts, replies)

    monkeypatch.setattr(tiny, "batch", spy)
    recipe = LoraRecipe(
        save_steps=(60,), batch_size=5, learning_rate=1e-2, warmup_steps=0, learning_rate_schedule="constant"
    )
    mixing = SafetyMixing(ASKED, REFUSALS, 0.2)

    def keep(name: str, write: Callable[[Path], None]) -> None:
        write(tmp_path / name)

    tuned = finetune_decoder(tiny, PROMPTS, TARGETS, recipe, 3, keep, mixing=mixing)
    benign = [(PROMPTS[i], TARGETS[i]) for i in sample_order(len(PROMPTS), 300, 3)]
    assert seen == [prompt.sample.id for prompt, _ in mix_safety_pairs(benign, mixing.pairs, 0.2, 3)]
    assert len(tuned.log) == 60
    card = (tmp_path / step_folder(60) / "README.md").read_text()
    assert (
        "on 7 benign samples (audio and text), seed 3. A share of 0.2 of the training samples were refusals of 2"
        in card
    )
    with use_adapter(tiny, tmp_path / step_folder(60)) as worn:
        assert [reply.reply for reply in worn.generate(ASKED, 5)] == REFUSALS  # they are learned, too


def test_another_share_is_another_training_and_none_is_none(tiny: AudioModel, tmp_path: Path) -> None:
    recipe = LoraRecipe(save_steps=(2,), batch_size=4, learning_rate=1e-2)
    made = {}
    for name, mixing in (("none", None), ("some", SafetyMixing(ASKED, REFUSALS, 0.25))):
        finetune_decoder(
            tiny, PROMPTS, TARGETS, recipe, 0, lambda step, write, to=tmp_path / name: write(to / step), mixing=mixing
        )
        made[name] = (tmp_path / name / step_folder(2) / "adapter_model.safetensors").read_bytes()
    assert made["none"] != made["some"]
    assert "refusals of" not in (tmp_path / "none" / step_folder(2) / "README.md").read_text()
    with pytest.raises(UndersongError, match="too short"):
        finetune_decoder(
            tiny, PROMPTS, TARGETS, recipe, 0, lambda *_: None, mixing=replace(SafetyMixing(ASKED, REFUSALS, 0.05))
        )
