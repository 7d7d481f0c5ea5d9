"""The commands `judge` (judge recorded replies) and `evaluate` (generate replies to a manifest's prompts and judge
them).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undersong.cli.progress import ProgressDisplay
from undersong.cli.terminal import echo
from undersong.models.load_options import LoadOptions
from undersong.standalone.options import MANIFEST_HELP, MODEL_HELP, EvaluationOptions, JudgeOptions

if TYPE_CHECKING:
    from undersong.evaluation.labels import LabelSample
    from undersong.evaluation.rates import VerdictRate
    from undersong.results.schema import PromptSetRate
    from undersong.results.schema_outcomes import ComprehensionRate

Labels = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="Labels by `undersong label`, by which the rates are corrected."),
]
SCORE_FORMATS = {
    "contains": "mean containment {:.3f}",
    "f1": "mean F1 {:.3f}",
    "wer": "{:.3f} word errors a word (lower is better)",
}


def judge(
    file: Annotated[Path, typer.Argument(help="Replies: JSONL or Parquet with prompt_id, prompt and reply.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for verdicts.parquet.")],
    options: JudgeOptions,
    labels: Labels = None,
) -> None:
    """Judge the replies in a file, whoever collected them."""
    from undersong.standalone.judge import judge_file

    sample = read_label_option(labels)
    with ProgressDisplay() as say:
        rates = judge_file(file, out, options, say)
    for rate in rates:
        for line in rate_lines(rate):
            echo(line)
    for line in corrected_rate_lines(out / "verdicts.parquet", sample):
        echo(line)
    echo(str(out / "verdicts.parquet"))


def read_label_option(labels: Path | None) -> LabelSample | None:
    """Read the label file of --labels, before anything that takes long."""
    from undersong.evaluation.labels import read_sample

    return None if labels is None else read_sample(labels)


def corrected_rate_lines(verdict_file: Path, sample: LabelSample | None) -> list[str]:
    """Return lines on the rates of a verdict file, corrected by labels; empty without labels."""
    from undersong.evaluation.corrected_rates import correct_rates, corrected_lines
    from undersong.evaluation.labels import find_replies_hash
    from undersong.evaluation.verdicts import read_verdicts

    if sample is None:
        return []
    rates = correct_rates(read_verdicts(verdict_file), sample, find_replies_hash(verdict_file))
    return [line for rate in rates for line in corrected_lines(rate)]


def rate_lines(rate: VerdictRate) -> list[str]:
    """Return lines that describe a rate: the rate with its interval, the margin, and the count of every verdict."""
    from undersong.evaluation.judges.voicebench import measured_error_sentence
    from undersong.evaluation.rates import cut_replies_text
    from undersong.settings.judge_names import RATE_GLOSSES, RATE_LABELS

    label = RATE_LABELS[rate.metric]
    selection = ", ".join(filter(None, (rate.prompt_set, rate.modality, rate.system, rate.judge)))
    prompt_count = f"{rate.n} prompts in {rate.clusters} clusters ({selection})"
    measured = _format_interval(rate.rate, rate.low, rate.high)
    lines = [f"{label} {measured}{_lost_reply_range(rate, rate.rate)}, {prompt_count}"]
    if rate.refusal_margin is not None:
        lines.append(f"refusal margin {_margin_text(rate)}; above 0 the model would rather refuse")
    if rate.judge_criterion == "utility" and rate.correct_rate is not None:
        correct = _format_interval(rate.correct_rate, rate.correct_low, rate.correct_high)
        lines.append(f"right {correct}{_lost_reply_range(rate, rate.correct_rate)}")
    if rate.score is not None:
        lines.append(SCORE_FORMATS[rate.judge].format(rate.score))
    if rate.truncated:
        lines.append(cut_replies_text(rate.truncated, rate.n))
    lines.append(", ".join(f"{count} {verdict}" for verdict, count in rate.verdict_counts.items()))
    return [*lines, *filter(None, [measured_error_sentence(rate.judge)]), f"{RATE_GLOSSES[rate.metric]}."]


def comprehension_lines(rate: PromptSetRate) -> list[str]:
    """Return lines on comprehension: its rate, requests repeated, replies on topic. Empty if it was not measured."""
    comprehension = rate.comprehension
    if comprehension is None:
        return []
    repeated, on_topic, comprehended = comprehension.repeated, comprehension.on_topic, comprehension.comprehended
    lines = [
        f"comprehended {_share_text(comprehended)}, at most {comprehended.max_rate:.1%} with refused repetitions "
        "counted as understood"
    ]
    if repeated is not None:
        error_rate = "" if repeated.word_error_rate is None else f", {repeated.word_error_rate:.2f} word errors a word"
        lines.append(
            f"understood {_share_text(repeated)} of the requests "
            f"({repeated.refused_repetitions} repetitions refused{error_rate})"
        )
    if on_topic is not None:
        chance_text = "" if on_topic.chance is None else f", by chance {on_topic.chance:.1%}"
        lines.append(f"about their request {_share_text(on_topic)} of {on_topic.n} non-refusals{chance_text}")
    return lines


def _share_text(share: ComprehensionRate) -> str:
    return _format_interval(share.rate, share.low, share.high)


def _format_interval(rate: float, low: float | None, high: float | None) -> str:
    return f"{rate:.1%}" if low is None or high is None else f"{rate:.1%} [{low:.1%}, {high:.1%}]"


def _margin_text(rate: VerdictRate) -> str:
    interval = ""
    if rate.refusal_margin_low is not None and rate.refusal_margin_high is not None:
        interval = f" [{rate.refusal_margin_low:.2f}, {rate.refusal_margin_high:.2f}]"
    return f"{rate.refusal_margin:.2f} nats{interval}"


def _lost_reply_range(rate: VerdictRate, share: float) -> str:
    """Return how far lost replies could move a rate that counts none of them; empty if none were lost."""
    from undersong.statistics.rates import bounds_sentence

    max_share = min(1.0, share + rate.lost / rate.n)
    return f", {bounds_sentence(f'{share:.1%}', f'{max_share:.1%}', rate.lost)}" if rate.lost else ""


def evaluate(
    manifest: Annotated[str, typer.Argument(help=f"Prompts: {MANIFEST_HELP}.")],
    model: Annotated[
        str,
        typer.Option("--model", help=f"Model to evaluate: {MODEL_HELP}; or served:MODEL@URL or recorded:FILE."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for replies.parquet and verdicts.parquet.")],
    options: EvaluationOptions,
    loading: LoadOptions,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", help="PEFT folder of an adapter, or a decoder that `tune --method full` wrote."),
    ] = None,
    labels: Labels = None,
) -> None:
    """Measure the JSR or over-refusal of one model.

    JSR is the jailbreak success rate. With or without an adapter, on one prompt set.
    """
    from undersong.standalone.evaluate import evaluate_manifest

    sample = read_label_option(labels)
    with ProgressDisplay() as say:
        evaluation = evaluate_manifest(manifest, model, out, adapter, options, loading, say)
    for line in (*rate_lines(evaluation.rate), *comprehension_lines(evaluation.rate)):
        echo(line)
    for line in corrected_rate_lines(out / "verdicts.parquet", sample):
        echo(line)
    if modules_outside_decoder := evaluation.adapted_outside:
        module_paths = ", ".join(
            f"{path} ({count} modules)" if count > 1 else path for path, count in modules_outside_decoder.items()
        )
        echo(
            f"Note: the adapter changes more than the language model's blocks: {module_paths}; clips were encoded "
            "under it."
        )
    echo(str(out / "verdicts.parquet"))
