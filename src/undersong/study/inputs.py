"""Checks of what a study reads, by its manifests and configs alone: a plan and a run make them before any audio is
decoded or any weight is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from undersong.study.checks import StudySamples, check_overlap
from undersong.study.schema import PromptSet, Study
from undersong.types import Reply, Sample, UndersongError


def check_study_inputs(study: Study) -> None:
    """Check the columns, answers, audio and overlap of the corpora of a study that are on this machine.

    Corpora of a hub are checked when they are fetched.

    Raises:
        UndersongError: The study could not be run to its end.
    """
    from undersong.corpora.column_names import STUDY_COLUMN_ADVICE, check_audio_or_text

    samples_by_ref = {ref: samples for ref in study.corpora if (samples := _local_samples(study, ref)) is not None}
    for ref, samples in samples_by_ref.items():
        check_audio_or_text(ref, samples, STUDY_COLUMN_ADVICE)
    if study.pool in samples_by_ref:
        _check_pool(study, samples_by_ref[study.pool])
    for name, ref in study.harm_sets.items():
        if ref in samples_by_ref:
            _check_harm_set(study, name, ref, samples_by_ref[ref])
    for name, prompt_set in study.prompt_sets.items():
        if prompt_set.corpus in samples_by_ref:
            _check_prompt_set(study, name, prompt_set, samples_by_ref[prompt_set.corpus])
    check_overlap(study, _study_samples(study, samples_by_ref))


def _local_samples(study: Study, ref: str) -> tuple[Sample, ...] | None:
    """Samples of a corpus as its manifest has them; None if they are not on this machine."""
    from undersong.corpora.registry import is_local_corpus, open_corpus

    return open_corpus(ref, study.columns.get(ref)).samples if is_local_corpus(ref) else None


def _study_samples(study: Study, samples_by_ref: Mapping[str, Sequence[Sample]]) -> StudySamples:
    """Samples of each role as the manifests have them, before any audio is decoded."""
    from undersong.corpora.manifest import filter_samples

    def read(
        ref: str | None, filters: Mapping[str, Sequence[str]] | None = None, noise: str | None = None
    ) -> list[Sample]:
        samples = samples_by_ref.get(ref or "", ())
        selected = filter_samples(samples, filters) if samples and filters else samples
        return [_with_audio_identity(sample, noise) for sample in selected]

    mechanism, selection = study.mechanism, study.selection
    contrast = (
        {}
        if mechanism is None
        else {"harmful": read(mechanism.contrast_harmful), "benign": read(mechanism.contrast_benign)}
    )
    return StudySamples(
        read(study.pool, selection.filters, selection.noise),
        {name: read(ref) for name, ref in study.harm_sets.items()},
        {name: read(prompts.corpus, prompts.filters, prompts.noise) for name, prompts in study.prompt_sets.items()},
        read(study.benign_reference),
        contrast,
        {ref: read(ref) for defense in study.defenses.values() for ref in defense.corpora.values()},
    )


def _with_audio_identity(sample: Sample, noise: str | None) -> Sample:
    """The sample with a mark in place of the hash of its decoded audio: the same file or the same bytes sound alike.

    With noise added, no clip is equal to a clean one.
    """
    if sample.audio is None or noise is not None:
        return replace(sample, pcm_hash=None)
    audio = sample.audio if isinstance(sample.audio, bytes) else os.path.abspath(sample.audio).encode()
    return replace(sample, pcm_hash=hashlib.sha256(audio).hexdigest())


def _check_pool(study: Study, samples: Sequence[Sample]) -> None:
    """Check that the pool can be trained on, but for the share that may be unusable."""
    from undersong.corpora.column_names import columns_sentence
    from undersong.corpora.manifest import filter_samples
    from undersong.stages.black_box_models import trainable_models

    if not trainable_models(study.models) or not (study.selection.kinds or study.selection.rules):
        return
    pool, allowed = filter_samples(samples, study.selection.filters), study.proximity.max_quarantined
    target = study.tuning.target_column
    lacking = [sample for sample in pool if not sample.column(target)]
    if len(lacking) > allowed * len(pool):
        raise UndersongError(
            f"{len(lacking)} of {len(pool)} items of the pool {study.pool} have no reply in the column {target!r} to "
            f"learn, the first: {lacking[0].id}; {columns_sentence(pool)}; name one as tuning.target_column, or map it "
            "by `columns`."
        )
    for modality in study.tuning.modalities:
        lacking = _without(pool, modality)
        if len(lacking) > allowed * len(pool):
            raise UndersongError(
                f"{len(lacking)} of {len(pool)} items of the pool {study.pool} have no {modality} to train on, the "
                f"first: {lacking[0].id}; {columns_sentence(pool)}; map one by `columns`, or leave {modality} out of "
                "tuning.modalities."
            )


def _check_harm_set(study: Study, name: str, ref: str, samples: Sequence[Sample]) -> None:
    """Check that every item of a reference harm set can be measured on every axis."""
    from undersong.corpora.column_names import columns_sentence
    from undersong.encoders.spec import parse_encoder

    for axis, encoder in study.axes.items():
        spec = parse_encoder(encoder)
        needed = "text" if spec.needs_text else "audio" if spec.needs_audio else None
        if spec.code or needed is None or not (lacking := _without(samples, needed)):
            continue
        raise UndersongError(
            f"Axis {axis}: {len(lacking)} of {len(samples)} items of the harm set {name} have no {needed}, the first: "
            f"{lacking[0].id}; {columns_sentence(samples)}; map one by `columns` of {ref}, or leave the axis out."
        )


def _check_prompt_set(study: Study, name: str, prompt_set: PromptSet, samples: Sequence[Sample]) -> None:
    """Check that every prompt can be given in every modality, and that a judge by rules finds what it needs."""
    from undersong.corpora.manifest import filter_samples
    from undersong.evaluation.judges.registry import check_judge_installed, make_judge
    from undersong.evaluation.judges.rule_based import FunctionJudge
    from undersong.evaluation.prompts import make_prompts
    from undersong.settings.judge_names import UTILITY_KINDS, split_judge

    prompted = filter_samples(samples, prompt_set.filters)
    prompts = []
    for modality in study.evaluation.modalities:
        if prompt_set.noise is not None and modality == "text":
            continue  # noise does not apply to text
        if lacking := _without(prompted, modality):
            raise UndersongError(
                f"{len(lacking)} of {len(prompted)} prompts of the set {name} ({prompt_set.corpus}) have no "
                f"{modality}, the first: {lacking[0].id}; add it, or leave {modality} out of evaluation.modalities."
            )
        prompts = make_prompts(
            prompted, set_name=name, harmful=prompt_set.harmful, modality=modality, system="plain", system_text=None
        )
    judge_name = prompt_set.judge or study.evaluation.judge
    if split_judge(judge_name)[0] not in ("exact", *UTILITY_KINDS):
        return
    try:
        check_judge_installed(judge_name)
    except UndersongError:
        return  # a plan lists all missing packages, and a run stops for them
    judge = make_judge(judge_name, study.refusal_texts)
    if isinstance(judge, FunctionJudge):  # a reply that means nothing shows whether an answer is missing
        judge.judge(prompts, [Reply(*prompt.key, "-", 0, "stop") for prompt in prompts])


def _without(samples: Sequence[Sample], modality: str) -> list[Sample]:
    if modality == "audio":
        return [sample for sample in samples if sample.audio is None]
    return [sample for sample in samples if not (sample.text or "").strip()]
