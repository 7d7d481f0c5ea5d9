"""Facts that a rate depends on besides model and training, and how studies differ in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from undersong.results.schema import Results
from undersong.results.schema_base import value_text
from undersong.settings.defaults import default_max_new_tokens

MAX_STATED_CHARACTERS = 60  # longer values are named and not quoted


def study_titles(studies: Sequence[tuple[str, Results]]) -> list[str]:
    """Return a unique title for each study: its name, with its label or number where another has the same."""
    study_names = [results.study.name for _, results in studies]
    labeled_names = [
        name if study_names.count(name) == 1 else f"{name} ({label})" for name, (label, _) in zip(study_names, studies)
    ]
    return [name if labeled_names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(labeled_names, 1)]


def evaluation_facts(
    results: Results, prompt_set: str | None = None, system: str | None = None, rate_label: str | None = None
) -> dict[str, str]:
    """Return the facts besides model and training that a rate depends on, as far as the study records them.

    Args:
        results: Results of the study.
        prompt_set: The harmful set; None leaves out what concerns it.
        system: Name of the system prompt.
        rate_label: Label of the rate.
    """
    evaluation, prompt_sets = (as_mapping(results.study.config.get(key)) for key in ("evaluation", "prompt_sets"))
    facts: dict[str, Any] = {"protocol": results.study.protocol, "judge": results.study.judge}
    if prompt_set is not None:
        set_rate = next((rate for run in results.runs for rate in run.rates if rate.prompt_set == prompt_set), None)
        facts["rate"] = rate_label
        facts["system text"] = as_mapping(evaluation.get("system_prompts")).get(system or "")
        facts["harmful prompts"] = prompt_sets.get(prompt_set)
        if set_rate is not None:
            clusters = f"{set_rate.clusters:,} cluster{'' if set_rate.clusters == 1 else 's'}"
            facts["number of prompts"] = f"{set_rate.n:,} in {clusters}"
    facts |= {"instruction": evaluation.get("instruction"), "max new tokens": _max_new_tokens(results, evaluation)}
    return {key: value_text(value) for key, value in facts.items() if value is not None}


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a part of a study's config, which another program may have written; empty unless it is a mapping."""
    return value if isinstance(value, Mapping) else {}


def _max_new_tokens(results: Results, evaluation: Mapping[str, Any]) -> Any:
    """The limit of new tokens, which depends on the models if the study does not set it."""
    if not evaluation or not results.study.models:
        return None
    return evaluation.get("max_new_tokens") or max(map(default_max_new_tokens, results.study.models))


def fact_differences(first_name: str, first_facts: Mapping[str, str], study_facts: Mapping[str, str]) -> list[str]:
    """Return one phrase for each fact in which a study differs from the first; empty if their rates may be compared."""
    differing_keys = [key for key in first_facts if key in study_facts and study_facts[key] != first_facts[key]]
    phrases = [
        f"{key} {study_facts[key]}, where {first_name} has {first_facts[key]}"
        for key in differing_keys
        if len(study_facts[key]) <= MAX_STATED_CHARACTERS
    ]
    phrases += [
        f"other {key} than {first_name}" for key in differing_keys if len(study_facts[key]) > MAX_STATED_CHARACTERS
    ]
    if (
        study_facts is not first_facts
        and study_facts.get("protocol") == "published"
        and "protocol" not in differing_keys
    ):
        phrases.append("the published protocol asks every model in its own way, so models are not compared under it")
    return phrases
