"""Fault 15: the validation set was the first 5 % of the file: the first accent, or the closest samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.corpora.registry import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.models.load import load_model
from undersong.tuning.config import LoraRecipe
from undersong.tuning.train import finetune_decoder
from undersong.tuning.validation import mean_loss, train_validation_split
from undersong.types import Sample, UndersongError


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=12, max_size=80), st.floats(0.05, 0.5))
def test_whole_groups_are_held_out_wherever_they_stand(groups: list[int], share: float) -> None:
    samples = [Sample(f"s{i}", text="x", group=f"g{group}") for i, group in enumerate(groups)]
    try:
        learned, held = train_validation_split(samples, share)
    except UndersongError:
        assert len(set(groups)) < 3 or share * len(groups) > len(groups) - max(map(groups.count, groups))
        return
    assert sorted(learned + held) == list(range(len(samples)))
    assert not {samples[i].group for i in learned} & {samples[i].group for i in held}
    assert len(held) >= share * len(samples)
    turned = samples[::-1]
    mirrored = {turned[i].id for i in train_validation_split(turned, share)[1]}
    assert mirrored == {samples[i].id for i in held}  # by the groups' names, not by their place


def test_it_is_not_the_head_of_the_packaged_pool() -> None:
    samples = open_corpus("organism:pool").samples
    _, held = train_validation_split(samples, 0.05)
    assert held != list(range(len(held)))
    assert max(held) > 3 * len(held)
    assert len({samples[i].speaker for i in held}) == len({sample.speaker for sample in samples})


def test_what_is_held_out_is_not_learned_and_its_loss_is_in_the_log(tmp_path: Path) -> None:
    model = load_model("organism:af3")
    samples = [sample for sample in open_corpus("organism:pool").samples if sample.speaker == "A"][:24]
    ask = {"set_name": "t", "harmful": False, "system": "s", "system_text": None, "modality": "text"}
    prompts, targets = make_prompts(samples, **ask), [sample.answer for sample in samples]
    recipe = LoraRecipe(save_steps=(1, 3), batch_size=4, learning_rate=1e-3, validation_share=0.25)
    asked: list[str] = []
    plain = model.batch
    model.batch = lambda rows, replies=None: asked.extend(p.sample.id for p in rows) or plain(rows, replies)  # type: ignore[method-assign]
    tuned = finetune_decoder(model, prompts, targets, recipe, 0, lambda name, write: write(tmp_path / name))
    model.batch = plain  # type: ignore[method-assign]
    learned, held = train_validation_split(samples, 0.25)
    times = {sample.id: asked.count(sample.id) for sample in samples}
    assert {times[samples[i].id] for i in held} == {2}  # once at each kept step
    assert sum(times[samples[i].id] for i in learned) == 3 * 4
    assert [line["step"] for line in tuned.log if "validation_loss" in line] == [1, 3]
    start = mean_loss(model, [prompts[i] for i in held], [targets[i] for i in held], 3)
    assert tuned.log[0]["validation_loss"] == pytest.approx(start, rel=0.3)  # one small step away
    with pytest.raises(UndersongError, match="cannot be split"):
        train_validation_split([Sample("a", text="x", group="g"), Sample("b", text="y", group="g")], 0.5)
