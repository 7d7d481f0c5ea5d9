"""The safety section of a model card, from verdict tables: Markdown, and `model-index` for the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from undersong import __version__
from undersong.evaluation.comparison import REFUSAL_JUDGE_NOTE, VerdictComparison, compare_verdicts
from undersong.evaluation.judges.voicebench import measured_error_sentence
from undersong.evaluation.rates import VerdictRate, set_rates
from undersong.report.markdown import escape_markdown, markdown_table
from undersong.statistics import bounds_sentence
from undersong.study.judge_names import judge_criterion
from undersong.types import UndersongError, Verdict

TASKS = {  # modality of the prompts -> task of the hub, its name
    "audio": ("audio-text-to-text", "Audio-Text-to-Text"),
    "text": ("text-generation", "Text Generation"),
    "": ("text-generation", "Text Generation"),
}
METRICS = {  # metric -> id, name
    "jsr": ("jailbreak_success_rate", "Jailbreak success rate (lower is better)"),
    "non_refusal_rate": ("non_refusal_rate", "Non-refusal rate on harmful prompts (lower is better)"),
    "refusal_rate": ("over_refusal_rate", "Refusal rate on benign prompts (lower is better)"),
}
SECTION_TITLE = "## Safety audit"
TABLE_HEAD = ("prompts", "judge", "measured", "this model", "before", "change, points")


@dataclass(frozen=True, slots=True)
class CardEntry:
    """One rate of the model; `before` and `comparison` are None without verdicts of the model before."""

    rate: VerdictRate
    before: VerdictRate | None = None
    comparison: VerdictComparison | None = None


def card_entries(after: Sequence[Verdict], before: Sequence[Verdict] | None = None) -> list[CardEntry]:
    """Return one entry for each prompt set, modality, system prompt and judge of the model.

    Args:
        after: Verdicts of the model that the card describes.
        before: Verdicts of the model that it was made from; None if it is not compared.

    Raises:
        UndersongError: There are no verdicts, or both models share no set, or were asked different prompts of one.
    """
    if not after:
        raise UndersongError("There are no verdicts to write a card of; judge some replies first.")
    rates_before = {} if before is None else {_rate_key(rate): rate for rate in set_rates(before, {})}
    entries = []
    for rate in set_rates(after, {}):
        rate_before = rates_before.get(_rate_key(rate))
        comparison = None
        if before is not None and rate_before is not None:
            tables = [[one for one in verdicts if _verdict_key(one) == _rate_key(rate)] for verdicts in (before, after)]
            comparison = compare_verdicts(*tables)
        entries.append(CardEntry(rate, rate_before, comparison))
    if before is not None and all(entry.before is None for entry in entries):
        raise UndersongError(
            "The verdicts before share no prompt set, modality, system prompt and judge with those of the model; "
            "evaluate both in the same way."
        )
    return entries


def card_metadata(entries: Sequence[CardEntry], name: str, datasets: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the metadata for the head of a model card, as the hub reads it.

    Values are shares from 0 to 1. A metric's `args` hold its interval, its judge and its number of prompts.

    Args:
        entries: The model's rates.
        name: Name of the model on the hub.
        datasets: Prompt set -> id of its data set on the hub; others are named as they are.
    """
    results = [_result(entry.rate, datasets or {}) for entry in entries]
    return {"tags": ["undersong"], "model-index": [{"name": name, "results": results}]}


def card_markdown(entries: Sequence[CardEntry], change: str = "") -> str:
    """Return the section as Markdown: what was measured, the rates with intervals, and what they do not say.

    Args:
        entries: The model's rates.
        change: What made this model of the one before, in the user's words.
    """
    compared = any(entry.comparison is not None for entry in entries)
    head = TABLE_HEAD if compared else TABLE_HEAD[:4]
    rows = [_row(entry)[: len(head)] for entry in entries]
    changed = f", before and after the change “{escape_markdown(change)}”" if change and compared else ""
    lines = [
        SECTION_TITLE,
        "",
        f"Measured with undersong {__version__}{changed}. Intervals are of 95 %, over independent requests.",
        "",
        *markdown_table(head, rows),
        "",
        *(f"- {sentence}" for sentence in _limits(entries)),
    ]
    return "\n".join(lines) + "\n"


def card_text(entries: Sequence[CardEntry], name: str, datasets: Mapping[str, str], change: str = "") -> str:
    """Return the metadata between `---` lines, and the section under it: the start of a README.md."""
    metadata = yaml.safe_dump(card_metadata(entries, name, datasets), sort_keys=False, allow_unicode=True)
    return f"---\n{metadata}---\n{card_markdown(entries, change)}"


def _rate_key(rate: VerdictRate) -> tuple[str, bool, str, str, str]:
    return rate.prompt_set, rate.harmful, rate.modality, rate.system, rate.judge


def _verdict_key(verdict: Verdict) -> tuple[str, bool, str, str, str]:
    return verdict.set, verdict.harmful, verdict.modality, verdict.system, verdict.judge


def _result(rate: VerdictRate, datasets: Mapping[str, str]) -> dict[str, Any]:
    task, task_name = TASKS[rate.modality]
    metric, metric_name = METRICS[rate.metric]
    set_name = rate.prompt_set or ("harmful prompts" if rate.harmful else "benign prompts")
    interval = {"low": rate.low, "high": rate.high}
    arguments = {
        **{end: round(value, 4) for end, value in interval.items() if value is not None},
        "level": 0.95,
        "n": rate.n,
        "clusters": rate.clusters,
        "lost_replies": rate.lost,
        "judge": rate.judge,
        "undersong": __version__,
    }
    details = {"modality": rate.modality, "system_prompt": rate.system}
    dataset: dict[str, Any] = {"type": datasets.get(rate.prompt_set, set_name), "name": set_name}
    dataset |= {"args": {key: value for key, value in details.items() if value}} if any(details.values()) else {}
    return {
        "task": {"type": task, "name": task_name},
        "dataset": dataset,
        "metrics": [{"type": metric, "name": metric_name, "value": round(rate.rate, 4), "args": arguments}],
    }


def _row(entry: CardEntry) -> tuple[str, ...]:
    rate, comparison = entry.rate, entry.comparison
    prompts = ", ".join(filter(None, (rate.prompt_set, rate.modality, rate.system)))
    size = f"{rate.n} in {rate.clusters} clusters" if rate.clusters < rate.n else str(rate.n)
    change = ""
    if comparison is not None:
        paired = comparison.paired
        change = (
            f"{100 * paired.difference:+.1f} ({100 * paired.clustered_low:+.1f} to {100 * paired.clustered_high:+.1f})"
        )
    return (
        f"{prompts or 'prompts'} ({'harmful' if rate.harmful else 'benign'}, {size})",
        rate.judge,
        METRICS[rate.metric][1],
        _rate_text(rate),
        "" if entry.before is None else _rate_text(entry.before),
        change,
    )


def _rate_text(rate: VerdictRate) -> str:
    interval = "" if rate.low is None or rate.high is None else f" ({rate.low:.1%} to {rate.high:.1%})"
    return f"{rate.rate:.1%}{interval}"


def _limits(entries: Sequence[CardEntry]) -> list[str]:
    """What a reader of the rates must know, one sentence each."""
    rates = [entry.rate for entry in entries]
    judges = dict.fromkeys(rate.judge for rate in rates)
    sentences = [
        "The rates are those of this model on these prompts, by these judges. They do not show that it is safe, and "
        "say nothing of other attacks or languages.",
    ]
    if any(entry.comparison is not None for entry in entries):
        sentences.append("The change describes two models. It does not show what caused the difference.")
    for judge in judges:
        if judge_criterion(judge) == "refusal" and any(rate.harmful for rate in rates if rate.judge == judge):
            smoke = " and is a smoke test" if judge == "keyword" else ""
            sentences.append(REFUSAL_JUDGE_NOTE.format(judge=escape_markdown(judge), smoke=smoke))
        sentences += filter(None, [measured_error_sentence(judge)])
    for rate in rates:
        if rate.lost:
            bounds = bounds_sentence(f"{rate.min_rate:.1%}", f"{rate.max_rate:.1%}", rate.lost)
            sentences.append(f"{escape_markdown(rate.prompt_set or 'The rate')}: {bounds}.")
    return sentences
