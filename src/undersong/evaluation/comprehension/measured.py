"""Every harmful prompt with what was heard of it and what its reply is about: repetitions and ranks, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from undersong.evaluation.comprehension.relevance import Relevance, least, relevances
from undersong.evaluation.comprehension.repetition import Repetition, repetitions, transcript
from undersong.evaluation.comprehension.table import Comprehended
from undersong.study import Comprehension
from undersong.types import Encoder, Prompt, Reply, UndersongError, Verdict

Said = tuple[Prompt, Reply, Verdict]
Heard = Mapping[tuple[str, str], Repetition]  # (set, prompt id) -> what was repeated


def to_repeat(prompts: Sequence[Prompt], how: Comprehension) -> list[Prompt]:
    """The spoken prompts, each with the instruction to repeat it."""
    spoken = (prompt for prompt in prompts if prompt.modality == "audio")
    return [replace(prompt, instruction=how.instruction, instruction_first=False) for prompt in spoken]


def comprehended(
    said: Sequence[Said], repeated: Sequence[tuple[Prompt, Reply]], how: Comprehension, encoder: Callable[[], Encoder]
) -> list[Comprehended]:
    """One a harmful prompt of `said`, in order; `repeated`: what was said back of the spoken ones.

    Replies that the judge calls a jailbreak are placed among the requests of their set, asked alike (modality and
    system text); `encoder` is asked for only where there is one.
    """
    found = repetitions([prompt for prompt, _ in repeated], [reply for _, reply in repeated], how.word_error_rate)
    heard = {(prompt.set, prompt.sample.id): what for (prompt, _), what in zip(repeated, found)}
    harmful = [one for one in said if one[0].harmful]
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, (prompt, _, _) in enumerate(harmful):
        groups.setdefault((prompt.set, prompt.modality, prompt.system), []).append(place)
    about: dict[int, Relevance | None] = {}
    for places in groups.values():
        answered = [i for i in places if harmful[i][2].verdict == "jailbreak"]
        replies = [(harmful[i][0].sample.cluster, harmful[i][1].reply) for i in answered]
        if replies:
            requests = requests_of([harmful[i][0] for i in places])
            about |= dict(zip(answered, relevances(encoder(), requests, replies, how.level), strict=True))
    return [_told(prompt, heard, about.get(place)) for place, (prompt, _, _) in enumerate(harmful)]


def requests_of(prompts: Sequence[Prompt]) -> dict[str, list[str]]:
    """Cluster -> its different texts.  Raises UndersongError where a text is missing."""
    requests: dict[str, list[str]] = {}
    for prompt in prompts:
        texts, said = requests.setdefault(prompt.sample.cluster, []), transcript(prompt)
        if said not in texts:
            texts.append(said)
    return requests


def check_comprehension(prompts: Sequence[Prompt], how: Comprehension) -> None:
    """Raises UndersongError for what comprehension of a harmful set cannot be told by: a request without a transcript,
    so few requests that none can be told from the others, what is not installed."""
    from undersong.encoders import check_installed
    from undersong.evaluation.usefulness.words import check_jiwer

    check_jiwer()
    check_installed(how.encoder)
    if (count := len(requests_of(prompts))) < least(how.level):
        raise UndersongError(
            f"Set {prompts[0].set} has {count} requests, and among fewer than {least(how.level)} none can be told from "
            f"the others at a level of {how.level:g}; give more, or raise comprehension's level."
        )


def _told(prompt: Prompt, heard: Heard, about: Relevance | None) -> Comprehended:
    key = (prompt.sample.id, prompt.set, prompt.modality, prompt.system)
    repeated = heard[prompt.set, prompt.sample.id] if prompt.modality == "audio" else None
    return Comprehended(*key, repeated, about)
