"""Which studies may be compared: those whose rates count the same thing, on the same prompts, asked the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from undersong.report import formatting
from undersong.report.arm_comparisons import HeadlineData, headline_data_by_modality
from undersong.results.schema import Results


@dataclass(frozen=True, slots=True)
class StudyComparison:
    """One study.  `differs`: in what it is unlike the first, so that their rates must not be compared; or empty."""

    name: str
    results: Results
    headlines: tuple[HeadlineData, ...]
    differs: tuple[str, ...]

    def headline(self, modality: str) -> HeadlineData | None:
        """Its case of spoken (`audio`) or typed (`text`) prompts; None where it asked none."""
        return next((headline for headline in self.headlines if headline.modality == modality), None)


def compare_studies(studies: Sequence[tuple[str, Results]]) -> tuple[StudyComparison, ...]:
    """`studies`: (how it is told from others of its name, its results); all are held against the first."""
    names = _study_names(studies)
    facts = [_rate_facts(results) for _, results in studies]
    first_facts = facts[0]
    return tuple(
        StudyComparison(
            name,
            results,
            tuple(headline_data_by_modality(results)),
            tuple(_differences(names[0], first_facts, study_facts)),
        )
        for name, (_, results), study_facts in zip(names, studies, facts, strict=True)
    )


def _study_names(studies: Sequence[tuple[str, Results]]) -> list[str]:
    study_names = [results.study.name for _, results in studies]
    labeled_names = [
        name if study_names.count(name) == 1 else f"{name} ({label})" for name, (label, _) in zip(study_names, studies)
    ]
    return [name if labeled_names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(labeled_names, 1)]


def _rate_facts(results: Results) -> dict[str, str]:
    """What a rate depends on beside model and training.  A fact that a study does not tell is left out."""
    evaluation: Mapping[str, Any] = results.study.config.get("evaluation") or {}
    prompt_sets: Mapping[str, Any] = results.study.config.get("sets") or {}
    headline = next(iter(headline_data_by_modality(results)), None)
    facts: dict[str, Any] = {"protocol": results.study.protocol, "judge": results.study.judge}
    if headline is not None:
        set_result = next(
            (
                set_result
                for run in results.runs
                for set_result in run.sets
                if set_result.set == headline.verdict_filter.set
            ),
            None,
        )
        facts["rate"] = headline.verdict_filter.rate_label
        facts["system text"] = (evaluation.get("systems") or {}).get(headline.verdict_filter.system)
        facts["harmful prompts"] = prompt_sets.get(headline.verdict_filter.set)
        if set_result is not None:
            facts["number of prompts"] = f"{set_result.n:,} in {formatting.count(set_result.clusters, 'cluster')}"
    facts |= {"instruction": evaluation.get("instruction"), "most new tokens": evaluation.get("limit")}
    return {key: formatting.value_text(value) for key, value in facts.items() if value is not None}


def _differences(first_name: str, first_facts: Mapping[str, str], study_facts: Mapping[str, str]) -> list[str]:
    differing_keys = [key for key in first_facts if key in study_facts and study_facts[key] != first_facts[key]]
    sentences = [
        f"{key} {study_facts[key]}, where {first_name} has {first_facts[key]}"
        for key in differing_keys
        if len(study_facts[key]) <= 60
    ]
    sentences += [f"other {key} than {first_name}" for key in differing_keys if len(study_facts[key]) > 60]
    if (
        study_facts is not first_facts
        and study_facts.get("protocol") == "published"
        and "protocol" not in differing_keys
    ):
        sentences.append("the published protocol asks every model in its own way, so models are not compared under it")
    return sentences
