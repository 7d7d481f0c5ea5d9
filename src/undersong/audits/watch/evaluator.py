"""Replies of a base and of its checkpoints to one small set of prompts, judged, with refusal margins.

It uses what `UndersongCallback` uses. The base stays loaded between checkpoints that are adapters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from undersong.audits.watch.checkpoints import TrainerCheckpoint
from undersong.audits.watch.options import (
    PromptOptions,
    PromptSets,
    default_prompt_sets,
    default_voice,
)
from undersong.encoders.batching import ProgressCallback
from undersong.evaluation.contrast_sets import ContrastSets
from undersong.evaluation.judges.registry import check_judge_installed, judge_hash, make_judge
from undersong.evaluation.partial_replies import keep_replies
from undersong.evaluation.prompts import make_prompts
from undersong.evaluation.refusal_margin import MarginSettings, refusal_margins, with_margins
from undersong.evaluation.verdicts import with_finishes
from undersong.models.load_options import LoadOptions
from undersong.settings.defaults import default_max_new_tokens
from undersong.settings.judge_names import default_judge
from undersong.standalone.inputs import cache_all_audio, refusal_texts, usable_samples
from undersong.types import Prompt, Reply, Sample, UndersongError, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from undersong.models.audio_lm import AudioModel


class CheckpointEvaluator:
    """Asks a base and its checkpoints the same prompts.

    Args:
        model: Reference of the base.
        options: Prompts and judge.
        loading: How models are loaded.

    Raises:
        UndersongError: The judge cannot be had. No prompt is read and no model is loaded yet.
    """

    def __init__(self, model: str, options: PromptOptions, loading: LoadOptions) -> None:
        self.model, self.loading, self._options = model, loading, options
        sets = self.sets = options.prompt_sets or default_prompt_sets(model)
        self._size = options.max_prompts or sets.size
        self.judge_name = options.judge or default_judge([model], options.refusal_texts)
        refusals = tuple(refusal_texts(self.judge_name, options.refusal_texts, model))
        self._judge = make_judge(self.judge_name, refusals, loading.device, loading.dtype)
        check_judge_installed(self.judge_name)
        self._margin = MarginSettings(refusals if self.judge_name == "exact" else ())
        self._max_new_tokens = options.max_new_tokens or default_max_new_tokens(model)
        self.voice = options.voice or default_voice(sets, options.modality)
        self.modality = "audio" if self.voice is not None else options.modality or _common_modality(sets)
        self._speech = TemporaryDirectory(prefix="undersong-speech-")  # removed with this object
        self._base: AudioModel | None = None

    @cached_property
    def prompts(self) -> ContrastSets:
        """The prompts, read and spoken at first use, so that a results folder can be refused before.

        Raises:
            UndersongError: A prompt cannot be used.
        """
        harmful, benign = self.sets.harmful, self.sets.benign
        prompts = ContrastSets(
            self._make_prompts(harmful, True, self._options),
            [] if benign is None else self._make_prompts(benign, False, self._options),
        )
        _check_distinct_ids(prompts)
        return prompts

    def _make_prompts(self, corpus: str, harmful: bool, options: PromptOptions) -> list[Prompt]:
        samples = usable_samples(corpus, self.modality if self.voice is None else "text")
        drawn = draw_samples(samples, self._size)
        return make_prompts(
            drawn if self.voice is None else _speak(drawn, self.voice, corpus, self._speech.name),
            set_name="harm" if harmful else "benign",
            harmful=harmful,
            modality=self.modality,
            system="plain" if options.system_prompt is None else "given",
            system_text=options.system_prompt,
            instruction=options.instruction,
        )

    @property
    def key(self) -> dict[str, object]:
        """Everything that results depend on besides the checkpoint; results with another key are not comparable."""
        from undersong.corpora.registry import corpus_hash
        from undersong.models.refs import model_hash

        return {
            "model": model_hash(self.model),
            "sets": [
                None if corpus is None else corpus_hash(corpus) for corpus in (self.sets.harmful, self.sets.benign)
            ],
            "size": self._size,
            "prompt": [self.modality, self.voice, self._options.system_prompt, self._options.instruction],
            "judge": [self.judge_name, judge_hash(self.judge_name) or "", list(self._margin.refusals)],
            "max_new_tokens": self._max_new_tokens,
            "loading": self.loading.cache_key,
        }

    def reply(
        self, checkpoint: TrainerCheckpoint | None, kept: Path | None = None, report: ProgressCallback | None = None
    ) -> list[Reply]:
        """Generate a checkpoint's replies, harmful prompts first, with refusal margins; None: the base's.

        Args:
            checkpoint: The checkpoint, or None.
            kept: File that keeps the replies until all are there, so that a stopped run goes on; None: nothing does.
            report: Receives the progress, if replies are kept.

        Raises:
            UndersongError: The checkpoint does not fit the base, or cannot be read.
        """
        with self._loaded(checkpoint) as model:
            cache_all_audio(model, [prompt.sample for prompt in self.prompts.all_prompts])
            prompts = self.prompts.all_prompts
            keeping = nullcontext() if kept is None else keep_replies(model, kept, len(prompts), report)
            with keeping:
                replies = model.generate(prompts, self._max_new_tokens)
            margins = refusal_margins(model, self.prompts.harmful, self._margin)
        by_key = {prompt.key: margin for prompt, margin in zip(self.prompts.harmful, margins, strict=True)}
        return [replace(reply, refusal_margin=by_key.get(reply.key)) for reply in replies]

    def judge(self, replies: Sequence[Reply]) -> list[Verdict]:
        """Judge replies that `reply` returned."""
        verdicts = self._judge.judge(self.prompts.all_prompts, replies)
        return with_finishes(with_margins(verdicts, replies), replies)

    @contextmanager
    def _loaded(self, checkpoint: TrainerCheckpoint | None) -> Iterator[AudioModel]:
        from undersong.models.adapter_check import check_adapter_weights
        from undersong.models.load import load_model
        from undersong.models.lora import use_adapter

        if checkpoint is not None and not checkpoint.is_adapter:
            self._base = None  # two whole models may not fit into memory
            yield load_model(str(checkpoint.path), self.loading, processor_ref=self.model)
            return
        if self._base is None:
            self._base = load_model(self.model, self.loading)
        adapter: AbstractContextManager[AudioModel] = nullcontext(self._base)
        if checkpoint is not None:
            check_adapter_weights(checkpoint.path)
            adapter = use_adapter(self._base, checkpoint.path, allow_outside_decoder=True)
        with adapter as model:
            yield model


def _check_distinct_ids(prompts: ContrastSets) -> None:
    harmful, benign = ({sample.id for sample in samples} for samples in prompts.samples)
    if shared := sorted(harmful & benign):
        raise UndersongError(
            f"Prompt {shared[0]} is in the harmful and in the benign set ({len(shared)} such); give each an id of "
            "its own."
        )


def prompts_text(prompts: ContrastSets, modality: str, voice: str | None = None) -> str:
    """Describe the prompts: the number of each kind, and the way they are given."""
    kind = "spoken" if modality == "audio" else "typed"
    if voice is not None:
        kind += f" by {voice}"
    return f"{len(prompts.harmful)} harmful and {len(prompts.benign)} benign prompts, {kind}"


def draw_samples(samples: Sequence[Sample], size: int | None) -> list[Sample]:
    """Draw `size` samples, always the same, and of no cluster a second before every cluster has one; None: all."""
    if size is None or size >= len(samples):
        return list(samples)
    order = np.random.default_rng(0).permutation(len(samples))
    drawn_of_cluster: Counter[str] = Counter()
    rounds = []
    for index in order:
        cluster = samples[index].cluster
        rounds.append((drawn_of_cluster[cluster], int(index)))
        drawn_of_cluster[cluster] += 1
    chosen = sorted(range(len(order)), key=lambda position: rounds[position][0])[:size]
    return [samples[index] for index in sorted(rounds[position][1] for position in chosen)]


def _speak(samples: Sequence[Sample], voice: str, corpus: str, folder: str) -> Sequence[Sample]:
    """Speak typed prompts; one that cannot be spoken is an error."""
    from undersong.corpora.tts import Voice, synthesize_speech

    engine, _, name = voice.partition(":")
    spoken, failed = synthesize_speech(samples, [Voice(engine, name)], folder)
    if failed:
        raise UndersongError(
            f"Prompt {failed[0].id} of {corpus} cannot be spoken ({failed[0].reason}; {len(failed)} in all); take it "
            "out, or type the prompts with --modality text."
        )
    return spoken


def _common_modality(sets: PromptSets) -> str:
    """Audio if every prompt has some, else text."""
    from undersong.corpora.registry import open_corpus

    samples: list[Sample] = []
    for corpus in filter(None, (sets.harmful, sets.benign)):
        samples += open_corpus(corpus).samples
    return "audio" if samples and all(sample.audio is not None for sample in samples) else "text"
