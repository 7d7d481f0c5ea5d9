"""One budget for every way of hearing: a fresh LoRA learns to repeat what was said, and with it, where asked, the front end.

The package's tuning room proves that encoder and projector stay as they were (`undersong.tuning`); here they may move, so
the loop is its own, over the same batches.  Knows one front end at a time; compares none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import get_cosine_schedule_with_warmup

from experiments.mini.distillation import heard_frames, learning
from recipes.mini.decoder_training import REPEAT, Pair, Pool
from recipes.mini.encoder_cache import States
from recipes.mini.evaluation import REPEATED, Which, sets_of
from recipes.mini.parts import RAW, loading_of, write_parts
from recipes.mini.speech import as_samples, load_clips
from recipes.mini.texts import WRITTEN
from recipes.mini.weights import Base, load_front, save_front
from recipes.mini.work_files import costed
from undersong.evaluation.utility.wer import count_word_errors
from undersong.models.audio_features import AudioFeatures, clip_key
from undersong.models.audio_lm import AudioModel
from undersong.models.load import load_model
from undersong.models.lora import new_lora, save_adapter
from undersong.models.mini import assemble
from undersong.tuning.frame_pruning import audio_token_mask, prune_frames
from undersong.tuning.reproducibility import temporary_seed
from undersong.types import Prompt, Sample, UndersongError


@dataclass(frozen=True)
class Way:
    """A front end to begin with (`read`: as trained, it reads; `distilled`; `spelling`: the trained one's two layers
    alone), and whether the language model's loss teaches it too."""

    begins: str
    learns: bool

    @property
    def name(self) -> str:
        """As options and files have it."""
        return f"{self.begins}{'-learned' if self.learns else ''}"


REFERENCE = Way("read", False)


@dataclass(frozen=True)
class JointRecipe:
    """One learning of a LoRA on the decoder, and of the front end (in float32) where it learns."""

    steps: int = 120
    batch: int = 9
    lora_rate: float = 1e-3
    projector_rate: float = 5e-4
    top_rate: float = 2e-4
    warmup: int = 10
    clip: float = 1.0
    rank: int = 8
    alpha: int = 16
    thin: float = 0.1
    seed: int = 0


def asking(sample: Sample) -> Prompt:
    """To be repeated."""
    return Prompt(sample, "repeat", False, "audio", "plain", None, REPEAT)


class Bench:
    """What all ways share: the decoder with what the trained front end hears, cached states, pairs, held-out clips."""

    def __init__(
        self, work: Path, out: Path, base: Base, front: Path, asked: Any, recipe: JointRecipe, most: int
    ) -> None:
        self.base, self.front, self.recipe, self.out = base, front, recipe, out
        self.clips = load_clips(work)
        self.states = States(work, len(self.clips))
        self.row = {clip["id"]: i for i, clip in enumerate(self.clips)}
        if not (out / "model").is_dir():
            parts = write_parts(out / "parts", base, front, {}, [RAW])
            assemble.assemble_mini(RAW, base.whisper, base.smollm, parts, out / "model")
        self.model = load_model(str(out / "model"), loading_of(asked))
        pool = Pool(work, {}, recipe.seed)
        spoken = pool.spoken(("nq", "alpaca", "self", WRITTEN), recipe.steps * recipe.batch, False)
        self.pairs = [(asking(sample), sample.text or "") for sample in spoken]
        kept = sets_of(self.clips, Which("dev", most))
        held = [clip for name in ("nq, seen voices", "alpaca, seen voices") for clip in kept.get(name, [])]
        self.held = as_samples(work, held)
        self.asked = [asking(sample) for sample in self.held]

    def rows(self, prompts: Sequence[Prompt]) -> list[int]:
        """Of the prompts' clips, in the cache."""
        return [self.row[prompt.sample.id] for prompt in prompts]

    @torch.inference_mode()
    def hear(self, front: Any, prompts: Sequence[Prompt]) -> None:
        """Put the audio features that this front end computes into the model's cache."""
        for start in range(0, len(prompts), 32):
            now = prompts[start : start + 32]
            for prompt, frames in zip(now, heard_frames(front, self.rows(now), self.states)):
                self.model.audio_features[clip_key(prompt.sample)] = AudioFeatures(frames.clone())


# --- learning -----------------------------------------------------------------------------------------------------------
def try_way(bench: Bench, way: Way, front: Any) -> dict[str, Any]:
    """Learns, repeats the held-out sentences, and keeps what was learned."""
    recipe, model = bench.recipe, bench.model
    figures: dict[str, Any] = {}
    # What the reading front end hears says for all ways which frames are quiet, so that all are thinned alike.
    unheard = [prompt for prompt, _ in bench.pairs if clip_key(prompt.sample) not in model.audio_features]
    bench.hear(load_front(bench.base, bench.front), unheard)
    with temporary_seed(recipe.seed), new_lora(model, recipe.rank, recipe.alpha, 0.0, None) as learner, costed(figures):
        groups = [{"params": [p for p in learner.parameters() if p.requires_grad], "lr": recipe.lora_rate}]
        if way.learns:
            groups += learning(front, recipe.projector_rate, recipe.top_rate, True)
        optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
        schedule = get_cosine_schedule_with_warmup(optimiser, recipe.warmup, recipe.steps)
        losses = []
        for step in range(recipe.steps):
            pairs = bench.pairs[step * recipe.batch : (step + 1) * recipe.batch]
            loss = _loss(bench, way, front, pairs)
            optimiser.zero_grad()
            loss.backward()
            for group in groups:
                torch.nn.utils.clip_grad_norm_(group["params"], recipe.clip)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            if not np.isfinite(losses[-1]):
                raise UndersongError(f"The way {way.name} diverged at step {step}; lower its rates.")
            if (step + 1) % 20 == 0:
                print(f"{way.name}: step {step + 1} of {recipe.steps}, loss {np.mean(losses[-20:]):.3f}", flush=True)
        figures["losses"] = [round(loss, 3) for loss in losses]
        figures |= repeated(bench, front)
        save_front(front, bench.out / way.name / assemble.FRONT_END_FILE)
        save_adapter(model, bench.out / way.name / "listening")
    return figures


def _loss(bench: Bench, way: Way, front: Any, pairs: Sequence[Pair]) -> torch.Tensor:
    """Mean over the replies' tokens, of a thinned batch in which this front end's vectors stand."""
    model, recipe = bench.model, bench.recipe
    prompts, targets = [prompt for prompt, _ in pairs], [target for _, target in pairs]
    batch = model.batch(prompts, targets)
    if way != REFERENCE:
        with torch.set_grad_enabled(way.learns):
            frames = torch.cat(heard_frames(front, bench.rows(prompts), bench.states)).to(batch["inputs_embeds"].dtype)
        places = audio_token_mask(model, prompts, batch["attention_mask"].bool())
        batch["inputs_embeds"] = batch["inputs_embeds"].masked_scatter(places[..., None], frames)
    return reply_loss(model, prune_frames(model, batch, prompts, targets, recipe.thin, recipe.seed))


def reply_loss(model: AudioModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the model's own forward gives as its loss; the head is asked at the replies' tokens alone."""
    labels = batch["labels"][:, 1:]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    states = model.decoder(**inputs, use_cache=False).last_hidden_state[:, :-1]
    asked = labels != -100
    return cross_entropy(model.base.get_output_embeddings()(states[asked]).float(), labels[asked])


# --- measuring ----------------------------------------------------------------------------------------------------------
def repeated(bench: Bench, front: Any) -> dict[str, Any]:
    """Of every held-out sentence, repeated from all frames: errors, words that are right (a reply that runs on may have
    them all, and many errors) and words in all; and the replies, which are to benign sentences.
    """
    bench.hear(front, bench.asked)
    replies = bench.model.generate(bench.asked, REPEATED)
    errors = [count_word_errors(str(sample.text), reply.reply) for sample, reply in zip(bench.held, replies)]
    return {
        "errors": [item.errors for item in errors],
        "right": [item.reference_words - item.substitutions - item.deletions for item in errors],
        "words": [item.reference_words for item in errors],
        "replies": [reply.reply for reply in replies],
    }
