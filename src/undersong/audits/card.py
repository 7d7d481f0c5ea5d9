"""The safety section of a model card, from verdict tables: Markdown, and `model-index` for the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from undersong import __version__
from undersong.evaluation import corrected_rates
from undersong.evaluation.comparison import REFUSAL_JUDGE_NOTE, VerdictComparison, compare_verdicts
from undersong.evaluation.judges.voicebench import measured_error_sentence
from undersong.evaluation.labels import LabelSample
from undersong.evaluation.rates import VerdictRate, cut_replies_text, set_rates
from undersong.pages.markdown_table import escape_markdown, markdown_table
from undersong.settings.judge_names import judge_criterion
from undersong.statistics.judge_correction import CorrectedValue
from undersong.statistics.rates import bounds_sentence
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
LABELED_METRICS = {True: METRICS["jsr"][1], False: METRICS["refusal_rate"][1]}  # what labels count, by harmful


@dataclass(frozen=True, slots=True)
class CardLabels:
    """Labels, and the SHA-256 of the replies of this model and of the one before; None: it has no replies."""

    sample: LabelSample
    after: str
    before: str | None = None


@dataclass(frozen=True, slots=True)
class CardEntry:
    """One rate of the model; `before` and `comparison` are None without verdicts of the model before.

    The corrected rates are None without labels of the replies; the change also without labels of those before.
    """

    rate: VerdictRate
    before: VerdictRate | None = None
    comparison: VerdictComparison | None = None
    corrected: CorrectedValue | None = None
    corrected_before: CorrectedValue | None = None
    corrected_change: CorrectedValue | None = None


def card_entries(
    after: Sequence[Verdict], before: Sequence[Verdict] | None = None, labels: CardLabels | None = None
) -> list[CardEntry]:
    """Return one entry for each prompt set, modality, system prompt and judge of the model.

    Args:
        after: Verdicts of the model that the card describes.
        before: Verdicts of the model that it was made from; None if it is not compared.
        labels: Labels that correct the rates; None without.

    Raises:
        UndersongError: There are no verdicts, or both models share no set, or were asked different prompts of one; or
            the labels are on other replies, or too few.
    """
    if not after:
        raise UndersongError("There are no verdicts to write a card of; judge some replies first.")
    rates_before = {} if before is None else {_rate_key(rate): rate for rate in set_rates(before, {})}
    entries = []
    for rate in set_rates(after, {}):
        rate_before = rates_before.get(_rate_key(rate))
        comparison = None
        tables = [
            [one for one in verdicts if _verdict_key(one) == _rate_key(rate)] for verdicts in (before or (), after)
        ]
        if rate_before is not None:
            comparison = compare_verdicts(*tables)
        corrected = {} if labels is None else _correct(tables[0], tables[1], labels)
        entries.append(CardEntry(rate, rate_before, comparison, **corrected))
    if labels is not None and all(entry.corrected is None for entry in entries):
        names = ", ".join(file.name for file in labels.sample.files)
        raise UndersongError(f"The labels are on other replies ({names}); label those that these verdicts are on.")
    if before is not None and all(entry.before is None for entry in entries):
        raise UndersongError(
            "The verdicts before share no prompt set, modality, system prompt and judge with those of the model; "
            "evaluate both in the same way."
        )
    return entries


def _correct(before: Sequence[Verdict], after: Sequence[Verdict], labels: CardLabels) -> dict[str, CorrectedValue]:
    """Correct a rate, and its change if the replies before were labelled too; nothing if its replies were not drawn."""
    drawn = [
        bool(verdicts) and digest is not None and verdicts[0].key in labels.sample.items_of(digest)
        for verdicts, digest in ((before, labels.before), (after, labels.after))
    ]
    if not drawn[1]:
        return {}
    if drawn[0] and labels.before is not None:
        hashes = labels.before, labels.after
        compared = corrected_rates.correct_comparison(before, after, labels.sample, hashes)
        return {
            "corrected": compared.after.corrected,
            "corrected_before": compared.before.corrected,
            "corrected_change": compared.change,
        }
    (rate,) = corrected_rates.correct_rates(after, labels.sample, labels.after)
    return {"corrected": rate.corrected}


def card_metadata(entries: Sequence[CardEntry], name: str, datasets: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the metadata for the head of a model card, as the hub reads it.

    Values are shares from 0 to 1. A metric's `args` hold its interval, its judge and its number of prompts.

    Args:
        entries: The model's rates.
        name: Name of the model on the hub.
        datasets: Prompt set -> id of its data set on the hub; others are named as they are.
    """
    results = [_result(entry, datasets or {}) for entry in entries]
    return {"tags": ["undersong"], "model-index": [{"name": name, "results": results}]}


def card_markdown(entries: Sequence[CardEntry], change: str = "", notes: Sequence[str] = ()) -> str:
    """Return the section as Markdown: what was measured, the rates with intervals, and what they do not say.

    Args:
        entries: The model's rates.
        change: What made this model of the one before, in the user's words.
        notes: Sentences on how the replies before and after were generated differently.
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
        *_corrected_lines(entries),
        *(f"- {sentence}" for sentence in (*_limits(entries), *map(escape_markdown, notes))),
    ]
    return "\n".join(lines) + "\n"


def card_text(
    entries: Sequence[CardEntry],
    name: str,
    datasets: Mapping[str, str],
    change: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Return the metadata between `---` lines, and the section under it: the start of a README.md.

    Args:
        entries: The model's rates.
        name: Name of the model on the hub.
        datasets: Prompt set -> id of its data set on the hub.
        change: As for `card_markdown`.
        notes: As for `card_markdown`.
    """
    content = card_metadata(entries, name, datasets)
    # YAML leaves bidirectional marks as they are, unless all that is not ASCII is escaped.
    is_plain = json.dumps(content, ensure_ascii=False).isprintable()
    metadata = yaml.safe_dump(content, sort_keys=False, allow_unicode=is_plain)
    return f"---\n{metadata}---\n{card_markdown(entries, change, notes)}"


def _rate_key(rate: VerdictRate) -> tuple[str, bool, str, str, str]:
    return rate.prompt_set, rate.harmful, rate.modality, rate.system, rate.judge


def _verdict_key(verdict: Verdict) -> tuple[str, bool, str, str, str]:
    return verdict.set, verdict.harmful, verdict.modality, verdict.system, verdict.judge


def _corrected_lines(entries: Sequence[CardEntry]) -> list[str]:
    """The rates that labels correct, under a line that says so; nothing without."""
    corrected = [(entry, entry.corrected) for entry in entries if entry.corrected is not None]
    if not corrected:
        return []
    compared = any(entry.corrected_change is not None for entry, _ in corrected)
    head = (*TABLE_HEAD, "labels") if compared else (*TABLE_HEAD[:4], "labels")
    rows = []
    for entry, value in corrected:
        change = entry.corrected_change
        before = (_value_text(entry.corrected_before), _points(change)) if compared else ()
        labels = value.labeled if change is None else change.labeled
        metric = LABELED_METRICS[entry.rate.harmful]
        rows.append((*_prompt_cells(entry.rate), metric, _value_text(value), *before, str(labels)))
    return [
        "The same rates, corrected for the errors of the judge by labels that people gave to a random sample of the "
        "replies:",
        "",
        *markdown_table(head, rows),
        "",
    ]


def _value_text(value: CorrectedValue | None) -> str:
    return "" if value is None else f"{value.value:.1%} ({value.low:.1%} to {value.high:.1%})"


def _points(value: CorrectedValue | None) -> str:
    return "" if value is None else f"{100 * value.value:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def _result(entry: CardEntry, datasets: Mapping[str, str]) -> dict[str, Any]:
    rate = entry.rate
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
        **({} if rate.truncated is None else {"cut_replies": rate.truncated}),
        "judge": rate.judge,
        "undersong": __version__,
    }
    if entry.corrected is not None:
        value = entry.corrected
        arguments |= {
            "corrected": round(value.value, 4),
            "corrected_low": round(value.low, 4),
            "corrected_high": round(value.high, 4),
            "labels": value.labeled,
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
    change = ""
    if comparison is not None:
        paired = comparison.paired
        change = (
            f"{100 * paired.difference:+.1f} ({100 * paired.clustered_low:+.1f} to {100 * paired.clustered_high:+.1f})"
        )
    return (
        *_prompt_cells(rate),
        METRICS[rate.metric][1],
        _rate_text(rate),
        "" if entry.before is None else _rate_text(entry.before),
        change,
    )


def _prompt_cells(rate: VerdictRate) -> tuple[str, str]:
    prompts = ", ".join(filter(None, (rate.prompt_set, rate.modality, rate.system)))
    size = f"{rate.n} in {rate.clusters} clusters" if rate.clusters < rate.n else str(rate.n)
    return f"{prompts or 'prompts'} ({'harmful' if rate.harmful else 'benign'}, {size})", rate.judge


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
    for entry in entries:
        for model, one in (("", entry.rate), (", before", entry.before)):
            if one is not None and one.truncated:
                prompts = escape_markdown(", ".join(filter(None, (one.prompt_set, one.modality))) or "the prompts")
                sentences.append(f"{prompts}{model}: {cut_replies_text(one.truncated, one.n)}.")
    return sentences
