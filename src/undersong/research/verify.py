"""Comparison of an untuned checkpoint's rates with those of the published study."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from undersong.evaluation.rates import VerdictRate
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.settings.judge_names import HARMBENCH_CLASSIFIER, RATE_LABELS, judge_weights
from undersong.types import UndersongError

PUBLISHED_CORPORA = {"AdvBench": "preset:advbench-spoken"}  # Do-Not-Answer is missing: it must be spoken first


def check_published(ref: str, sets: Mapping[str, str]) -> None:
    """Check that the published study has rates of this model and these sets, before weights are read.

    Raises:
        UndersongError: It has none.
    """
    from undersong.models.refs import family_of_ref

    family = family_of_ref(ref).name
    rates = pretrained_rates(family)
    if not rates:
        raise UndersongError(
            f"The published study has no {family} ({ref}); use Kimi-Audio, Audio Flamingo 3 or Qwen2.5-Omni."
        )
    if unknown_sets := [name for name in sets if name not in rates]:
        raise UndersongError(f"The published study has no set {unknown_sets[0]!r}; name {' or '.join(rates)}.")


def check_outputs(out: Path, sets: Mapping[str, str]) -> None:
    """Check that the folder of each set can be written, before the model is loaded.

    Raises:
        UndersongError: One holds something else.
    """
    from undersong.stages.output_folder import check_output_folder

    for name in sets:
        check_output_folder(out / name, "evaluate")


def verify_checkpoint(
    ref: str, sets: Mapping[str, str], out: Path, judge: str = "harmbench", loading: LoadOptions = DEFAULT_LOAD_OPTIONS
) -> Iterator[str]:
    """Yield one line per set as it is measured, then how to read them. Replies and verdicts go to a folder per set in
    `out`.

    Args:
        ref: The model.
        sets: Corpus of each published set.
        out: The output folder.
        judge: The judge.
        loading: Loading options of the model.

    Raises:
        UndersongError: As `check_published` and `evaluate_manifest`.
    """
    from undersong.models.refs import family_of_ref
    from undersong.standalone.evaluate import evaluate_manifest
    from undersong.standalone.options import EvaluationOptions

    check_published(ref, sets)
    family = family_of_ref(ref)
    rates = pretrained_rates(family.name)
    for name, corpus in sets.items():
        options = EvaluationOptions(name, judge=judge, protocol="published")  # spoken, harmful, no system prompt
        evaluation = evaluate_manifest(corpus, ref, out / name, None, options, loading)
        yield compare_with_published(evaluation.rate, rates[name], judge)
    if ref != family.example:
        yield f"The printed figures are of {family.example}."
    yield (
        f"Printed: {published_source()}; one run each, errored prompts left out, requests spoken by gTTS. Ours: all "
        "prompts count, the interval is over prompts. Two of its own runs of one untuned model differ (Audio Flamingo "
        "3, AdvBench: 7.69 and 9.42 %)."
    )


def compare_with_published(rate: VerdictRate, published: PublishedRate, judge: str) -> str:
    """Our rate and the printed one in one sentence, with what keeps them from being of one kind."""
    name = RATE_LABELS[rate.metric]
    low, high = 100 * (rate.low or 0.0), 100 * (rate.high or 0.0)
    differences = []
    if judge_weights(judge) != HARMBENCH_CLASSIFIER:
        differences.append(f"the judge there was {HARMBENCH_CLASSIFIER}")
    if rate.n != published_prompt_count(published.set_name):
        differences.append(f"there were {published_prompt_count(published.set_name)} prompts there")
    if published.is_possible is False:
        differences.append("no count of prompts gives the printed figure")
    position = "inside" if low <= published.percent <= high else "outside"
    conclusion = (
        f"not to be compared: {', and '.join(differences)}" if differences else f"it lies {position} our interval"
    )
    return (
        f"{published.set_name}: {name} {100 * rate.rate:.2f} % [{low:.2f}, {high:.2f}] of {rate.n} prompts "
        f"(judge {judge}), printed {published.percent:.2f} %; {conclusion}."
    )


@dataclass(frozen=True, slots=True)
class PublishedRate:
    """Cell of a published table: a percentage of one run.

    `study` is the file of studies/paper that stands for it. `is_possible` says whether a whole number of prompts gives
    the percentage; None if this was not checked (usefulness).
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
    """All published rates, table by table."""
    return tuple(PublishedRate(*row) for row in _load_figures()["rows"])


def published_source() -> str:
    """Source of the published rates."""
    return str(_load_figures()["source"])


def published_prompt_count(name: str) -> int:
    """Number of prompts in a published set."""
    return int(_load_figures()["prompts"][name])


def pretrained_rates(family: str) -> dict[str, PublishedRate]:
    """Rates of a family's published checkpoint before any tuning, by set; empty if it was not measured."""
    return {rate.set_name: rate for rate in published_rates() if (rate.study, rate.family) == ("pretrained", family)}
