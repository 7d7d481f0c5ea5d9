"""Frames that say nothing, left out of training: nothing else changes, and at a share of 1 nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_af3
import tiny_mini
import torch
from safetensors.torch import load_file

from undersong.models.audio_lm import AudioModel
from undersong.models.load import load_model
from undersong.models.mini.assemble import assemble_mini
from undersong.tuning.checkpoints import step_folder
from undersong.tuning.config import LoraRecipe
from undersong.tuning.frame_pruning import audio_token_mask, prune_batch, prune_frames, silent_frames_of_prompt
from undersong.tuning.train import finetune_decoder
from undersong.types import UndersongError

ASKED = [tiny_af3.spoken(4, instruction=" repeat"), tiny_af3.typed("how"), tiny_af3.spoken(2), tiny_af3.spoken(3)]
REPLIES = ["yes", "a longer reply", "no", "well"]
AUDIO = [0, 2, 3]


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> AudioModel:
    """With its ears full; about half of what it hears is made to say nothing."""
    folder = tmp_path_factory.mktemp("thin")
    tiny_mini.save_bases(folder)
    parts = tiny_mini.parts(folder / "parts", folder, adapters=False)
    assemble_mini("mini", str(folder / "whisper"), str(folder / "smollm"), parts, folder / "mini")
    model = load_model(str(folder / "mini"))
    model.audio_features = dict(zip((clip.id for clip in tiny_af3.CLIPS), model.encode_audio(tiny_af3.CLIPS)))
    for heard in model.audio_features.values():
        heard.vectors[::2] *= 1e-3
    return model


def test_at_a_share_of_one_it_is_the_batch_itself(mini: AudioModel) -> None:
    whole, thinned = mini.batch(ASKED, REPLIES), prune_batch(mini, ASKED, REPLIES, 1.0, 0)
    assert whole.keys() == thinned.keys()
    assert all(torch.equal(whole[name], thinned[name]) for name in whole)


def test_only_quiet_frames_go_and_what_is_left_keeps_its_place(mini: AudioModel) -> None:
    whole, thinned = mini.batch(ASKED, REPLIES), prune_batch(mini, ASKED, REPLIES, 0.0, 0)
    for row, prompt in enumerate(ASKED):
        here, there = (batch["attention_mask"][row].bool() for batch in (whole, thinned))
        lost = int(silent_frames_of_prompt(mini, prompt).sum()) if row in AUDIO else 0
        assert int(there.sum()) == int(here.sum()) - lost
        assert not row or lost or row == 1
        kept = thinned["position_ids"][row][there]
        assert (kept.diff() > 0).all()
        assert torch.equal(thinned["inputs_embeds"][row][there], whole["inputs_embeds"][row][here][kept])
        assert torch.equal(thinned["labels"][row][there], whole["labels"][row][here][kept])
        gone = sorted(set(range(int(here.sum()))) - set(kept.tolist()))
        ids = mini.prompt_ids(prompt)
        assert all(ids[place] == mini.processor.audio_token_id for place in gone)
    assert thinned["labels"][:, -1].ne(-100).all()
    assert int((thinned["labels"] != -100).sum()) == int((whole["labels"] != -100).sum())


def test_a_share_is_drawn_by_the_seed_and_the_batch(mini: AudioModel) -> None:
    counts = [int(prune_batch(mini, ASKED, REPLIES, share, 0)["attention_mask"].sum()) for share in (0.0, 0.5, 1.0)]
    assert counts[0] < counts[1] < counts[2]
    once, again, other = (prune_batch(mini, ASKED, REPLIES, 0.5, seed)["position_ids"] for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert once.shape != other.shape or not torch.equal(once, other)


def test_gradients_reach_the_heard_frames_that_are_kept(mini: AudioModel) -> None:
    """A front end can learn through a thinned batch: vectors stand where they were heard; those gone get none."""
    whole = mini.batch(ASKED, REPLIES)
    places = audio_token_mask(mini, ASKED, whole["attention_mask"].bool())
    vectors = torch.cat([mini.features_of(ASKED[row].sample).vectors for row in AUDIO])
    assert torch.equal(whole["inputs_embeds"][places], vectors)
    learned = vectors.clone().requires_grad_(True)
    embeds = whole["inputs_embeds"].masked_scatter(places[..., None], learned)
    thin = prune_frames(mini, whole | {"inputs_embeds": embeds}, ASKED, REPLIES, 0.0, 0)
    thin["inputs_embeds"].sum().backward()
    quiet = torch.cat([silent_frames_of_prompt(mini, ASKED[row]) for row in AUDIO])
    assert learned.grad is not None
    assert torch.equal(learned.grad.abs().sum(1) == 0, quiet)
    assert quiet.any()
    assert not quiet.all()


def trained(model: AudioModel, folder: Path, recipe: LoraRecipe) -> dict[str, torch.Tensor]:
    def keep(name: str, write: Callable[[Path], None]) -> None:
        write(folder / name)

    finetune_decoder(model, ASKED, REPLIES, recipe, 0, keep)
    return load_file(folder / step_folder(3) / "adapter_model.safetensors")


def test_off_it_is_exactly_off(mini: AudioModel, tmp_path: Path) -> None:
    recipe = LoraRecipe(save_steps=(3,), batch_size=4, learning_rate=1e-2, lora_rank=2)
    plain, all_kept, thin = (
        trained(mini, tmp_path / str(share), replace(recipe, silent_frame_share=share)) for share in (None, 1.0, 0.0)
    )
    assert all(torch.equal(plain[name], all_kept[name]) for name in plain)
    assert any(not torch.equal(plain[name], thin[name]) for name in plain)


def test_what_is_no_share_and_who_hears_no_silence_are_refused(tiny: AudioModel, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match=r"silent_frame_share is a share of frames, not 1\.5"):
        LoraRecipe(silent_frame_share=1.5)
    with pytest.raises(
        UndersongError, match=r"leave out --silent-frame-share, or tuning\.silent_frame_share of a study"
    ):
        trained(tiny, tmp_path, LoraRecipe(save_steps=(3,), silent_frame_share=0.1))
