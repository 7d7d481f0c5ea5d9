"""A real checkpoint against the published study: asked as there, before any tuning, its rates beside the printed ones.

Says how they compare and decides nothing: the printed ones are single runs on other recordings of the same requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.published import Figure, pretrained, prompts_of, source
from undersong.study.judges import CLASSIFIER, RATES, judge_weights
from undersong.types import UndersongError

CORPORA = {"AdvBench": "preset:advbench-spoken"}  # what can be fetched; Do-Not-Answer has to be spoken first


def refuse_unpublished(ref: str, sets: Mapping[str, str]) -> None:
    """A model, or a set, that the published study has no figure of; told before weights are read."""
    from undersong.models.identify import family_named

    family = family_named(ref).name
    known = pretrained(family)
    if not known:
        raise UndersongError(
            f"The published study has no {family} ({ref}); take Kimi-Audio, Audio Flamingo 3 or Qwen2.5-Omni."
        )
    if unknown := [name for name in sets if name not in known]:
        raise UndersongError(f"The published study has no set {unknown[0]!r}; name {' or '.join(known)}.")


def verify(
    ref: str, sets: Mapping[str, str], out: Path, judge: str = "harmbench", loading: Loading = PLAIN
) -> Iterator[str]:
    """One line a set, as it is measured, then what they are worth.  `sets`: published set -> corpus of its prompts.

    Replies and verdicts go to a folder of each set in `out`.  Errors: as of `refuse_unpublished` and `evaluate`.
    """
    from undersong.models.identify import family_named
    from undersong.pipeline.alone import Question, evaluate_manifest
    from undersong.study.protocols import published_manner

    refuse_unpublished(ref, sets)
    family = family_named(ref)
    manner, known = published_manner(family.name, "audio"), pretrained(family.name)
    for name, corpus in sets.items():
        question = Question(
            name, judge=judge, instruction=manner.instruction, limit=manner.limit, first=manner.first
        )  # spoken, harmful, no system text
        entry = evaluate_manifest(corpus, ref, out / name, None, question, loading)
        yield beside(entry, known[name], judge)
    if ref != family.example:
        yield f"The printed figures are of {family.example}."
    yield (
        f"Printed: {source()}; one run each, errored prompts left out, requests spoken by gTTS. Ours: all prompts "
        "count, the interval is over prompts. Two of its own runs of one untuned model differ (Audio Flamingo 3, "
        "AdvBench: 7.69 and 9.42 %)."
    )


def beside(entry: Mapping[str, Any], printed: Figure, judge: str) -> str:
    """Our rate and the printed one in one sentence, with what keeps them from being of one kind."""
    from undersong.pipeline.results.rates import attack_name

    key = attack_name(judge)
    name = RATES[key]
    low, high = 100 * entry["low"], 100 * entry["high"]
    apart = []
    if judge_weights(judge) != CLASSIFIER:
        apart.append(f"the judge there was {CLASSIFIER}")
    if entry["n"] != prompts_of(printed.set):
        apart.append(f"there were {prompts_of(printed.set)} prompts there")
    if printed.possible is False:
        apart.append("no count of prompts gives the printed figure")
    where = "inside" if low <= printed.percent <= high else "outside"
    told = f"not to be compared: {', and '.join(apart)}" if apart else f"it lies {where} our interval"
    return (
        f"{printed.set}: {name} {100 * entry[key]:.2f} % [{low:.2f}, {high:.2f}] of {entry['n']} prompts "
        f"(judge {judge}), printed {printed.percent:.2f} %; {told}."
    )
