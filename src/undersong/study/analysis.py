"""Primary questions of a study: the comparisons that are declared before it is run, and what each name stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import Field, field_validator

from undersong.settings.base import StrictModel, check_distinct
from undersong.suggestions import did_you_mean

AXES, SYSTEM_PROMPT, CLOSENESS_BY_MODALITY = "axes", "system-prompt", "closeness-by-modality"
KIND_PAIRS = (("distant", "closest"), ("random", "closest"), ("distant", "random"))  # the second minus the first


class AnalysisSettings(StrictModel):
    """Questions that the study is run to answer. All other comparisons are exploratory."""

    primary: tuple[str, ...] = Field(
        (),
        description="Primary questions, such as closest-base, closest-random, closest-distant@semantic, system-prompt, "
        "modality-closest or axes; corrected as a family of their own. Default: closest-base.",
    )

    @field_validator("primary")
    @classmethod
    def _check_distinct_questions(cls, primary: tuple[str, ...]) -> tuple[str, ...]:
        if primary:
            check_distinct("primary", primary)
        return primary


class Question(NamedTuple):
    """A name such as `closest-random@semantic`, taken apart; without an axis the first that has the comparison."""

    name: str
    axis: str | None

    @classmethod
    def parse(cls, text: str) -> Question:
        """Take a name apart at its @."""
        name, _, axis = text.partition("@")
        return cls(name, axis or None)


class RuleFacts(NamedTuple):
    """What a selection rule is compared by: its kind, its conditions, and the harm set that closeness is to."""

    kind: str
    conditions: str
    harm_set: str | None


def rule_facts(keep: str, harm_set: str | None) -> RuleFacts:
    """Take a rule such as `closest:0.25+matched(speaker)` apart, without its amount."""
    kind, _, conditions = keep.partition("+")
    return RuleFacts(kind.partition(":")[0], conditions, harm_set)


def rule_pairs(rules: Mapping[str, RuleFacts], plain_harm_sets: Iterable[str | None]) -> Iterator[tuple[str, str, str]]:
    """Yield (a, b, question) for arms that a rule selected; the difference is b - a.

    Contrasts are with random samples, with the same kind without the rule's conditions, and of closest with distant
    under the same conditions. Random samples that match in a property separate closeness from what comes with it.
    Closest samples are compared with these, and these with plain random samples.
    """
    harm_sets = set(plain_harm_sets)
    for name, (kind, conditions, harm_set) in sorted(rules.items()):
        yield "random", name, f"Does {name} data break more than random data"
        if conditions and kind in ("closest", "distant") and harm_set in harm_sets:
            yield kind, name, f"Does {name} data break more than {kind} data without its conditions"
        if conditions and kind == "random" and harm_set in harm_sets:
            yield name, "closest", f"Does closest data break more than {name} data"
        for other_name, (opposite, other_conditions, other_harm_set) in sorted(rules.items()):
            if (kind, opposite, conditions, harm_set) == ("closest", "distant", other_conditions, other_harm_set):
                yield other_name, name, f"Does {name} data break more than {other_name} data"


def answerable_questions(
    *,
    kinds: Sequence[str],
    axes: Sequence[str],
    rules: Mapping[str, RuleFacts],
    first_harm_set: str | None,
    train_modalities: Sequence[str],
    has_system_defense: bool,
) -> list[str]:
    """Names of the comparisons that a study makes, without their axes."""
    arms = [*kinds, *rules]
    names = [f"{arm}-base" for arm in arms]
    names += [f"{b}-{a}" for a, b in KIND_PAIRS if {a, b} <= set(kinds)]
    names += [f"{b}-{a}" for a, b, _ in rule_pairs(rules, [first_harm_set] if kinds else []) if {a, b} <= set(arms)]
    if has_system_defense and "closest" in kinds:
        names.append(SYSTEM_PROMPT)
    if set(train_modalities) == {"audio", "text"}:
        names += [f"modality-{arm}" for arm in arms]
        if {"closest", "distant"} <= set(kinds):
            names.append(CLOSENESS_BY_MODALITY)
    if len(axes) > 1 and "closest" in kinds:
        names.append(AXES)
    return names


def check_primary(primary: Sequence[str], names: Sequence[str], axes: Sequence[str]) -> None:
    """Check that the study can answer each primary question.

    Raises:
        ValueError: A question is none of `names`, or it names an axis that is none of `axes`.
    """
    for text in primary:
        question = Question.parse(text)
        if question.name not in names:
            raise ValueError(
                f"analysis.primary: this study cannot answer {text!r}; name one of "
                f"{', '.join(names) or 'none, because nothing is trained'}{did_you_mean(question.name, list(names))}"
            )
        if question.axis is not None and (question.axis not in axes or question.name == AXES):
            raise ValueError(
                f"analysis.primary: {text!r} names no axis that arms are selected by; take one of {', '.join(axes)}"
                f"{did_you_mean(question.axis, list(axes))}"
            )


def default_primary(names: Sequence[str]) -> tuple[str, ...]:
    """The primary question of a study that declares none: closest against the base, else the first arm."""
    return ("closest-base",) if "closest-base" in names else tuple(names[:1])
