"""Every harmful prompt with what was heard of it and what its reply is about: repetitions and ranks, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from undersong.evaluation.comprehension.relevance import Relevance, measure_relevance, min_requests
from undersong.evaluation.comprehension.repetition import Repetition, judge_repetitions, prompt_transcript
from undersong.evaluation.comprehension.table import PromptComprehension
from undersong.study import Comprehension
from undersong.types import Encoder, Prompt, Reply, UndersongError, Verdict

JudgedReply = tuple[Prompt, Reply, Verdict]
RepetitionsByPrompt = Mapping[tuple[str, str], Repetition]  # (set, prompt id) -> what was repeated


def make_repetition_prompts(prompts: Sequence[Prompt], config: Comprehension) -> list[Prompt]:
    """The spoken prompts, each with the instruction to repeat it."""
    audio_prompts = (prompt for prompt in prompts if prompt.modality == "audio")
    return [replace(prompt, instruction=config.instruction, instruction_first=False) for prompt in audio_prompts]


def measure_prompt_comprehension(
    judged_replies: Sequence[JudgedReply],
    repetition_replies: Sequence[tuple[Prompt, Reply]],
    config: Comprehension,
    encoder: Callable[[], Encoder],
) -> list[PromptComprehension]:
    """One a harmful prompt of `said`, in order; `repeated`: what was said back of the spoken ones.

    Replies that the judge calls a jailbreak are placed among the requests of their set, asked alike (modality and
    system text); `encoder` is asked for only where there is one.
    """
    outcomes = judge_repetitions(
        [prompt for prompt, _ in repetition_replies], [reply for _, reply in repetition_replies], config.word_error_rate
    )
    repetition_by_prompt = {
        (prompt.set, prompt.sample.id): repetition for (prompt, _), repetition in zip(repetition_replies, outcomes)
    }
    harmful = [judged_reply for judged_reply in judged_replies if judged_reply[0].harmful]
    groups: dict[tuple[str, str, str], list[int]] = {}
    for index, (prompt, _, _) in enumerate(harmful):
        groups.setdefault((prompt.set, prompt.modality, prompt.system), []).append(index)
    relevance_by_index: dict[int, Relevance | None] = {}
    for indices in groups.values():
        answered_indices = [i for i in indices if harmful[i][2].verdict == "jailbreak"]
        replies = [(harmful[i][0].sample.cluster, harmful[i][1].reply) for i in answered_indices]
        if replies:
            requests = request_texts_by_cluster([harmful[i][0] for i in indices])
            relevance_by_index |= dict(
                zip(answered_indices, measure_relevance(encoder(), requests, replies, config.level), strict=True)
            )
    return [
        _prompt_comprehension(prompt, repetition_by_prompt, relevance_by_index.get(index))
        for index, (prompt, _, _) in enumerate(harmful)
    ]


def request_texts_by_cluster(prompts: Sequence[Prompt]) -> dict[str, list[str]]:
    """Cluster -> its different texts.  Raises UndersongError where a text is missing."""
    requests: dict[str, list[str]] = {}
    for prompt in prompts:
        texts, request_text = requests.setdefault(prompt.sample.cluster, []), prompt_transcript(prompt)
        if request_text not in texts:
            texts.append(request_text)
    return requests


def check_comprehension(prompts: Sequence[Prompt], config: Comprehension) -> None:
    """Raises UndersongError for what comprehension of a harmful set cannot be told by: a request without a transcript,
    so few requests that none can be told from the others, what is not installed."""
    from undersong.encoders import check_installed
    from undersong.evaluation.utility.wer import check_jiwer

    check_jiwer()
    check_installed(config.encoder)
    if (count := len(request_texts_by_cluster(prompts))) < min_requests(config.level):
        raise UndersongError(
            f"Set {prompts[0].set} has {count} requests, and among fewer than {min_requests(config.level)} none can be told from "
            f"the others at a level of {config.level:g}; give more, or raise comprehension's level."
        )


def _prompt_comprehension(
    prompt: Prompt, repetition_by_prompt: RepetitionsByPrompt, relevance: Relevance | None
) -> PromptComprehension:
    key = (prompt.sample.id, prompt.set, prompt.modality, prompt.system)
    repetition = repetition_by_prompt[prompt.set, prompt.sample.id] if prompt.modality == "audio" else None
    return PromptComprehension(*key, repetition, relevance)
