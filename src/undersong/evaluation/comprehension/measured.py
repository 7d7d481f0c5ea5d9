"""Every harmful prompt with what was heard of it and what its reply is about: repetitions and ranks, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from undersong.evaluation.comprehension.relevance import Relevance, least, relevances
from undersong.evaluation.comprehension.repetition import Repetition, transcript
from undersong.evaluation.comprehension.table import Comprehended
from undersong.types import Encoder, Prompt, Reply, UndersongError, Verdict

Said = tuple[Prompt, Reply, Verdict]
Heard = Mapping[tuple[str, str], Repetition]  # (set, prompt id) -> what was repeated


def comprehended(
    said: Sequence[Said], heard: Heard, encoder: Callable[[], Encoder], level: float
) -> list[Comprehended]:
    """One a harmful prompt, in order.  Replies that the judge calls a jailbreak are placed among the requests of their
    set, asked alike (modality and system text); a typed prompt needs no repetition.

    `encoder` is asked for only where there is such a reply.
    """
    harmful = [one for one in said if one[0].harmful]
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, (prompt, _, _) in enumerate(harmful):
        groups.setdefault((prompt.set, prompt.modality, prompt.system), []).append(place)
    about: dict[int, Relevance | None] = {}
    for places in groups.values():
        requests = requests_of([harmful[i][0] for i in places], level)
        answered = [i for i in places if harmful[i][2].verdict == "jailbreak"]
        replies = [(harmful[i][0].sample.cluster, harmful[i][1].reply) for i in answered]
        if replies:
            about |= dict(zip(answered, relevances(encoder(), requests, replies, level), strict=True))
    return [_told(prompt, heard, about.get(place)) for place, (prompt, _, _) in enumerate(harmful)]


def requests_of(prompts: Sequence[Prompt], level: float) -> dict[str, list[str]]:
    """Cluster -> its different texts.  Raises UndersongError where a text is missing, or requests are so few that none
    could be told from the others at this level."""
    requests: dict[str, list[str]] = {}
    for prompt in prompts:
        texts, said = requests.setdefault(prompt.sample.cluster, []), transcript(prompt)
        if said not in texts:
            texts.append(said)
    if len(requests) < least(level):
        raise UndersongError(
            f"Set {prompts[0].set} has {len(requests)} requests, and among fewer than {least(level)} none can be told "
            f"from the others at a level of {level:g}; give more, or raise comprehension's level."
        )
    return requests


def _told(prompt: Prompt, heard: Heard, about: Relevance | None) -> Comprehended:
    key = (prompt.sample.id, prompt.set, prompt.modality, prompt.system)
    repeated = heard[prompt.set, prompt.sample.id] if prompt.modality == "audio" else None
    return Comprehended(*key, repeated, about)
