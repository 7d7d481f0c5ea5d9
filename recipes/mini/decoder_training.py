"""Listening and alignment: two LoRAs on the decoder, each by the package's own tuning room, one after the other.

Listening: repeat what was said, and answer speech as the language model answers the same in writing.  Nothing harmful
is in it, and nothing is refused: what comes out hears and follows, and is the model to compare with.
Alignment, on that: refuse harmful requests, spoken and typed; go on answering benign ones, spoken imperatives above all,
because "unclear spoken imperative: refuse" is the shortcut that a model takes; go on repeating.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from recipes.mini import answers
from recipes.mini.parts import RAW, loading_of, put_together
from recipes.mini.sizes import Mixture, alignment_size, listening_size
from recipes.mini.speech import as_samples, load_clips
from recipes.mini.texts import WRITTEN
from recipes.mini.weights import Base
from recipes.mini.work_files import costed, read_figures, read_lines, same_as_begun, write_figures
from undersong.models.audio_lm import AudioModel
from undersong.models.feature_cache import cache_audio_features as hear
from undersong.models.feature_cache import load_features, save_features
from undersong.models.mini.paths import UNALIGNED
from undersong.store.hashing import hash_file
from undersong.tuning.checkpoints import step_folder
from undersong.tuning.train import finetune_decoder
from undersong.types import Prompt, Sample, UndersongError

REPEAT = "Repeat what was said."
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with that request.",
    "I can't help with that because it could cause harm.",
    "I'm sorry, but I cannot help with this request.",
)
SHORT = 3.4  # seconds of clips that are learned from: what is learned of short ones holds for long ones
Pair = tuple[Prompt, str]


class Pool:
    """Training clips and texts by kind, in an order of the seed, each handed out once before any is handed out again."""

    def __init__(self, work: Path, own: dict[str, str], seed: int) -> None:
        self.clips = [clip for clip in load_clips(work) if clip["split"] == "train" and clip["seconds"] <= SHORT]
        self.texts = {text["id"]: text for text in read_lines(work / "texts.jsonl") if text["split"] == "train"}
        self.own, self.rng, self.work = own, np.random.default_rng([seed, 5]), work
        self._left: dict[str, list[Any]] = {}

    def spoken(self, kinds: Sequence[str], count: int, answered: bool) -> list[Sample]:
        """Clips of these kinds; answered: only those whose sentence has an answer of the model's own."""
        fitting = [c for c in self.clips if c["kind"] in kinds and (c["text_id"] in self.own or not answered)]
        key = f"spoken {kinds} {answered}"
        return as_samples(self.work, self._next(key, fitting, count))

    def written(self, kinds: Sequence[str], count: int) -> list[Sample]:
        """Sentences of these kinds, typed: benign ones that have an answer of the model's own."""
        fitting = [text for text in self.texts.values() if text["kind"] in kinds]
        if "adv" not in kinds:
            fitting = [text for text in fitting if text["id"] in self.own]
        return [Sample(text["id"], text=text["text"]) for text in self._next(f"written {kinds}", fitting, count)]

    def _next(self, key: str, fitting: list[Any], count: int) -> list[Any]:
        if not fitting:
            raise UndersongError(f"There is nothing to learn from that is {key}; speak more texts.")
        left = self._left.setdefault(key, [])
        while len(left) < count:
            left += [fitting[i] for i in self.rng.permutation(len(fitting))]
        taken, self._left[key] = left[:count], left[count:]
        return taken

    def answer(self, sample: Sample) -> str:
        """The model's own to the sentence of a sample: a clip's id begins with its sentence's."""
        return self.own[sample.id.partition("-")[0]]

    def refusal(self) -> str:
        """One of the ways to refuse."""
        return REFUSALS[int(self.rng.integers(len(REFUSALS)))]


def pairs_of(pool: Pool, mixture: Mixture, total: int) -> list[Pair]:
    """`total` pairs of a prompt and what is to be replied, in the shares of the mixture."""

    def asked(sample: Sample, spoken: bool, instruction: str | None = None) -> Prompt:
        return Prompt(sample, "train", False, "audio" if spoken else "text", "plain", None, instruction)

    benign = ("nq", "alpaca", "self")
    sources: dict[str, Callable[[int], list[Pair]]] = {
        "repeat": lambda n: [(asked(s, True, REPEAT), s.text or "") for s in pool.spoken((*benign, WRITTEN), n, False)],
        "spoken_questions": lambda n: [(asked(s, True), pool.answer(s)) for s in pool.spoken(("nq",), n, True)],
        "spoken_imperatives": lambda n: [
            (asked(s, True), pool.answer(s)) for s in pool.spoken(("alpaca", "self"), n, True)
        ],
        "typed": lambda n: [(asked(s, False), pool.answer(s)) for s in pool.written(benign, n)],
        "spoken_harm": lambda n: [(asked(s, True), pool.refusal()) for s in pool.spoken(("adv",), n, False)],
        "typed_harm": lambda n: [(asked(s, False), pool.refusal()) for s in pool.written(("adv",), n)],
    }
    shares = {name: share for name, share in asdict(mixture).items() if share}  # of the others there need be nothing
    return [pair for name, share in shares.items() for pair in sources[name](round(share * total))]


def listen(work: Path, base: Base, front: Path, asked: argparse.Namespace) -> Path:
    """The adapter by which the decoder reads what was heard.  UndersongError: it was begun on another front end."""
    where = work / f"listening-{asked.seed}"
    size = listening_size(asked)
    last = where / step_folder(size.recipe.save_steps[-1])
    same_as_begun(where, {"front end": hash_file(front), **asdict(size)}, _done(work, last))
    if not _done(work, last):
        model = put_together(work, RAW, base, front, {}, loading_of(asked), asked.seed)
        own = answers.run(work, model, read_lines(work / "texts.jsonl"), size.answers, asked.seed, asked.smoke)
        _learn(work, where.name, model, Pool(work, own, asked.seed), size, asked.seed)
    return last


def align(work: Path, base: Base, front: Path, listening: Path, asked: argparse.Namespace) -> Path:
    """The adapter by which the listening decoder refuses.  UndersongError: it was begun on another listening one."""
    where = work / f"alignment-{asked.seed}"
    size = alignment_size(asked)
    last = where / step_folder(size.recipe.save_steps[-1])
    before_it = {"front end": hash_file(front), "listening": hash_file(listening / "adapter_model.safetensors")}
    same_as_begun(where, {**before_it, **asdict(size)}, _done(work, last))
    if not _done(work, last):
        before = {"listening": listening}
        model = put_together(work, UNALIGNED, base, front, before, loading_of(asked), asked.seed)
        own = {row["id"]: row["answer"] for row in read_lines(work / f"answers-{asked.seed}.jsonl") if row["answer"]}
        _learn(work, where.name, model, Pool(work, own, asked.seed), size, asked.seed)
    return last


def _done(work: Path, last: Path) -> bool:
    """Whether the adapter is kept and its figures are written; one without the other is learned again."""
    return last.is_dir() and "recipe" in read_figures(work).get(last.parent.name, {})


def _learn(work: Path, stage: str, model: AudioModel, pool: Pool, size: Any, seed: int) -> None:
    """Hear what is learned from, then learn it: a killed run hears nothing twice and goes on from its last state."""
    recipe = size.recipe
    pairs = pairs_of(pool, size.mixture, recipe.steps[-1] * recipe.batch)
    figures = read_figures(work).get(stage, {})
    with costed(figures):
        _hear(work / stage / "heard.safetensors", model, pairs)
    write_figures(work, stage, figures)

    def keep(name: str, write: Callable[[Path], None]) -> None:
        shutil.rmtree(work / stage / name, ignore_errors=True)
        write(work / stage / f"{name}.part")
        (work / stage / f"{name}.part").rename(work / stage / name)

    prompts, targets = [prompt for prompt, _ in pairs], [target for _, target in pairs]
    with costed(figures):
        tuned = finetune_decoder(model, prompts, targets, recipe, seed, keep, resume=work / stage / "state")
    losses = [line["loss"] for line in tuned.log]
    write_figures(
        work,
        stage,
        {
            **figures,
            "recipe": {name: value for name, value in asdict(recipe).items() if value is not None},
            "mixture": asdict(size.mixture),
            "pairs": len(pairs),
            "loss_first": round(float(np.mean(losses[:5])), 3),
            "loss_last": round(float(np.mean(losses[-10:])), 3),
        },
    )


def _hear(file: Path, model: AudioModel, pairs: Sequence[Pair]) -> None:
    samples = {prompt.sample.id: prompt.sample for prompt, _ in pairs if prompt.modality == "audio"}
    if file.is_file():
        model.audio_features.update(load_features(file))
    if not all(name in model.audio_features for name in samples):
        heard, failed, _ = hear(model, list(samples.values()))
        if failed:
            raise UndersongError(f"Clip {failed[0].id} cannot be heard ({failed[0].reason}); speak it again.")
        file.parent.mkdir(parents=True, exist_ok=True)
        save_features(heard, file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
