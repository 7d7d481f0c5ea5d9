"""Comparison of an untuned checkpoint's rates with those of the published study."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.study.judge_names import HARMBENCH_CLASSIFIER, RATE_LABELS, judge_weights
from undersong.types import UndersongError

PUBLISHED_CORPORA = {"AdvBench": "preset:advbench-spoken"}  # what can be fetched; Do-Not-Answer has to be spoken first


def check_published(ref: str, sets: Mapping[str, str]) -> None:
    """A model, or a set, that the published study has no figure of; told before weights are read."""
    from undersong.models.refs import family_of_ref

    family = family_of_ref(ref).name
    rates = pretrained_rates(family)
    if not rates:
        raise UndersongError(
            f"The published study has no {family} ({ref}); take Kimi-Audio, Audio Flamingo 3 or Qwen2.5-Omni."
        )
    if unknown_sets := [name for name in sets if name not in rates]:
        raise UndersongError(f"The published study has no set {unknown_sets[0]!r}; name {' or '.join(rates)}.")


def verify_checkpoint(
    ref: str, sets: Mapping[str, str], out: Path, judge: str = "harmbench", loading: LoadOptions = DEFAULT_LOAD_OPTIONS
) -> Iterator[str]:
    """One line a set, as it is measured, then what they are worth.  `sets`: published set -> corpus of its prompts.

    Replies and verdicts go to a folder of each set in `out`.  Errors: as of `refuse_unpublished` and `evaluate`.
    """
    from undersong.models.refs import family_of_ref
    from undersong.pipeline.standalone import EvaluationOptions, evaluate_manifest

    check_published(ref, sets)
    family = family_of_ref(ref)
    rates = pretrained_rates(family.name)
    for name, corpus in sets.items():
        options = EvaluationOptions(name, judge=judge, protocol="published")  # spoken, harmful, no system prompt
        entry = evaluate_manifest(corpus, ref, out / name, None, options, loading)
        yield compare_with_published(entry, rates[name], judge)
    if ref != family.example:
        yield f"The printed figures are of {family.example}."
    yield (
        f"Printed: {published_source()}; one run each, errored prompts left out, requests spoken by gTTS. Ours: all "
        "prompts "
        "count, the interval is over prompts. Two of its own runs of one untuned model differ (Audio Flamingo 3, "
        "AdvBench: 7.69 and 9.42 %)."
    )


def compare_with_published(entry: Mapping[str, Any], published: PublishedRate, judge: str) -> str:
    """Our rate and the printed one in one sentence, with what keeps them from being of one kind."""
    from undersong.evaluation.rates import attack_rate_name

    key = attack_rate_name(judge)
    name = RATE_LABELS[key]
    low, high = 100 * entry["low"], 100 * entry["high"]
    differences = []
    if judge_weights(judge) != HARMBENCH_CLASSIFIER:
        differences.append(f"the judge there was {HARMBENCH_CLASSIFIER}")
    if entry["n"] != published_prompt_count(published.set_name):
        differences.append(f"there were {published_prompt_count(published.set_name)} prompts there")
    if published.is_possible is False:
        differences.append("no count of prompts gives the printed figure")
    position = "inside" if low <= published.percent <= high else "outside"
    conclusion = (
        f"not to be compared: {', and '.join(differences)}" if differences else f"it lies {position} our interval"
    )
    return (
        f"{published.set_name}: {name} {100 * entry[key]:.2f} % [{low:.2f}, {high:.2f}] of {entry['n']} prompts "
        f"(judge {judge}), printed {published.percent:.2f} %; {conclusion}."
    )


@dataclass(frozen=True, slots=True)
class PublishedRate:
    """One cell of a published table: a percentage, of one run.  `study`: the file of studies/paper that stands for it.

    `possible`: whether a whole number of all prompts gives it; None where nobody checked (usefulness).
    """

    study: str
    family: str
    condition: str
    fraction: int | None  # percent of the pool
    set_name: str
    percent: float
    is_possible: bool | None


@cache
def _load_figures() -> dict[str, Any]:
    text = resources.files("undersong").joinpath("data/paper/figures.json").read_text(encoding="utf-8")
    figures_file: dict[str, Any] = json.loads(text)
    return figures_file


def published_rates() -> tuple[PublishedRate, ...]:
    """Every cell, table by table."""
    return tuple(PublishedRate(*row) for row in _load_figures()["rows"])


def published_source() -> str:
    """Where they were printed."""
    return str(_load_figures()["source"])


def published_prompt_count(name: str) -> int:
    """How many prompts a published set has."""
    return int(_load_figures()["prompts"][name])


def pretrained_rates(family: str) -> dict[str, PublishedRate]:
    """The rates of a family's published checkpoint before any tuning, by set; empty: it was not measured."""
    return {rate.set_name: rate for rate in published_rates() if (rate.study, rate.family) == ("pretrained", family)}
