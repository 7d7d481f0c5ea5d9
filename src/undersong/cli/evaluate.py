"""The commands `judge` (judge recorded replies) and `evaluate` (generate replies to a manifest's prompts and judge
them).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undersong.cli.options import MANIFEST_HELP, MODEL_HELP, Attention, Device, DeviceMap, Dtype, Quantize

if TYPE_CHECKING:
    from undersong.evaluation.rates import VerdictRate
    from undersong.results.schema import PromptSetRate
    from undersong.results.schema_outcomes import ComprehensionRate

JUDGE_HELP = (
    "exact | keyword (a smoke test) | refusal | refusal+minilm[:REF] | harmbench[:REF] | llama-guard[:REF] | "
    "wildguard[:REF] | cost[:REF] | llm:MODEL@URL | strongreject:MODEL@URL; of usefulness: choice | bbh | contains | "
    "f1 | wer; your own code: python:FILE.py:FUNCTION | python-refusal:… | python-utility:…."
)

SET_HELP = "Name of the prompt set (default: harm, or benign under --benign)"

SCORE_FORMATS = {
    "contains": "mean containment {:.3f}",
    "f1": "mean F1 {:.3f}",
    "wer": "{:.3f} word errors a word (lower is better)",
}


def judge(
    file: Annotated[Path, typer.Argument(help="Replies: JSONL or Parquet with prompt_id, prompt, reply.")],
    name: Annotated[str, typer.Option("--judge", help=JUDGE_HELP)],
    out: Annotated[Path, typer.Option("--out", help="Folder for verdicts.parquet.")],
    manifest: Annotated[
        str | None, typer.Option("--manifest", help="Where the prompts' texts and answers are, if not in FILE.")
    ] = None,
    set_name: Annotated[str | None, typer.Option("--set", help=f"{SET_HELP}, for rows that give none.")] = None,
    harmful: Annotated[
        bool, typer.Option("--harmful/--benign", help="What the prompts are, for rows that do not say.")
    ] = True,
    refusal_texts: Annotated[
        list[str] | None, typer.Option("--refusal", help="A reply that is a refusal (exact judge); repeatable.")
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
) -> None:
    """Judge replies from a file, whoever collected them."""
    from undersong.models.load_options import LoadOptions
    from undersong.pipeline.standalone.evaluate import judge_file

    loading = LoadOptions(device, dtype)
    for rate in judge_file(
        file, name, out, manifest, default_set_name(set_name, harmful), harmful, tuple(refusal_texts or ()), loading
    ):
        for line in rate_lines(rate):
            typer.echo(line)
    typer.echo(str(out / "verdicts.parquet"))


def default_set_name(name: str | None, harmful: bool) -> str:
    """The name of a prompt set: that of `--set`, or one that says what its prompts are."""
    return name or ("harm" if harmful else "benign")


def rate_lines(rate: VerdictRate) -> list[str]:
    """A rate as a reader takes it in: what was asked, the rate with its interval, every verdict's count."""
    from undersong.study.judge_names import RATE_LABELS

    label = RATE_LABELS[rate.metric]
    selection = ", ".join(filter(None, (rate.prompt_set, rate.modality, rate.system, rate.judge)))
    prompt_count = f"{rate.n} prompts in {rate.clusters} clusters ({selection})"
    measured = _format_interval(rate.rate, rate.low, rate.high)
    lines = [f"{label} {measured}{_lost_reply_range(rate, rate.rate)}, {prompt_count}"]
    if rate.judge_criterion == "utility" and rate.correct_rate is not None:
        correct = _format_interval(rate.correct_rate, rate.correct_low, rate.correct_high)
        lines.append(f"right {correct}{_lost_reply_range(rate, rate.correct_rate)}")
    if rate.score is not None:
        lines.append(SCORE_FORMATS[rate.judge].format(rate.score))
    if rate.truncated:
        lines.append(f"{rate.truncated} replies were cut at the limit of tokens; a judge sees no more than that")
    return [*lines, ", ".join(f"{count} {verdict}" for verdict, count in rate.verdict_counts.items())]


def comprehension_lines(rate: PromptSetRate) -> list[str]:
    """What was repeated, what non-refusals are about, and what is left of the rate; none where nobody asked."""
    comprehension = rate.comprehension
    if comprehension is None:
        return []
    repeated, on_topic, comprehended = comprehension.repeated, comprehension.on_topic, comprehension.comprehended
    lines = [
        f"comprehended {_share_text(comprehended)}, at most {comprehended.max_rate:.1%} with refused repetitions "
        "counted as heard"
    ]
    if repeated is not None:
        error_rate = "" if repeated.word_error_rate is None else f", {repeated.word_error_rate:.2f} word errors a word"
        lines.append(
            f"heard {_share_text(repeated)} of the requests "
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


def _lost_reply_range(rate: VerdictRate, share: float) -> str:
    """How far lost replies could move a share that counts none of them; empty: there is none."""
    from undersong.statistics import bounds_sentence

    max_share = min(1.0, share + rate.lost / rate.n)
    return f", {bounds_sentence(f'{share:.1%}', f'{max_share:.1%}', rate.lost)}" if rate.lost else ""


def evaluate(
    manifest: Annotated[str, typer.Argument(help=f"Prompts: {MANIFEST_HELP}.")],
    model: Annotated[
        str, typer.Option("--model", help=f"{MODEL_HELP}; or served:MODEL@URL, or recorded:FILE, which only answer.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for replies.parquet and verdicts.parquet.")],
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", help="A PEFT adapter folder, or a decoder that `tune --method full` wrote."),
    ] = None,
    set_name: Annotated[str | None, typer.Option("--set", help=f"{SET_HELP}.")] = None,
    harmful: Annotated[bool, typer.Option("--harmful/--benign", help="What the prompts are.")] = True,
    modality: Annotated[str, typer.Option("--modality", help="audio | text.")] = "audio",
    system: Annotated[str | None, typer.Option("--system", help="System text.")] = None,
    instruction: Annotated[str | None, typer.Option("--instruction", help="Text typed beside the prompt.")] = None,
    judge: Annotated[str, typer.Option("--judge", help=JUDGE_HELP)] = "exact",
    refusal_texts: Annotated[
        list[str] | None,
        typer.Option(
            "--refusal", help="A reply that is a refusal (exact judge); repeatable.  Organisms have their own."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--limit", min=1, help="Most new tokens a reply; default: 256, of an organism 12.")
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", help="uniform | published: the family's published instruction and limit.")
    ] = "uniform",
    comprehension: Annotated[
        str | None,
        typer.Option(
            "--comprehension",
            help="Tell whether requests were heard and replies are to them, by an encoder: text[:REF] | tfidf | "
            "char-ngrams.",
        ),
    ] = None,
    repeat_prompt: Annotated[
        str | None, typer.Option("--repeat", help="The instruction to repeat a clip; default: Repeat what was said.")
    ] = None,
    max_wer: Annotated[
        float | None,
        typer.Option("--heard", min=0, help="Word error rate up to which it counts as heard; default: 0.5."),
    ] = None,
    relevance_level: Annotated[
        float | None,
        typer.Option("--level", help="Share of the set's requests that may be as near to a reply; default: 0.05."),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """JSR (or over-refusal) of one model, with or without an adapter, on one prompt set."""
    from undersong.models.load_options import LoadOptions
    from undersong.pipeline.standalone.evaluate import (
        EvaluationOptions,
        apply_protocol,
        comprehension_options,
        evaluate_manifest,
    )

    prompt_set = default_set_name(set_name, harmful)
    comprehension_settings = comprehension_options(
        comprehension, instruction=repeat_prompt, word_error_rate=max_wer, level=relevance_level
    )
    evaluation_options = EvaluationOptions(
        prompt_set,
        harmful,
        modality,
        system,
        instruction,
        judge,
        tuple(refusal_texts or ()),
        max_new_tokens,
        comprehension=comprehension_settings,
    )
    evaluation_options = apply_protocol(evaluation_options, protocol, model)
    loading = LoadOptions(device, dtype, device_map, attention, quantize)
    evaluation = evaluate_manifest(manifest, model, out, adapter, evaluation_options, loading)
    for line in (*rate_lines(evaluation.rate), *comprehension_lines(evaluation.rate)):
        typer.echo(line)
    if modules_outside_decoder := evaluation.adapted_outside:
        module_paths = ", ".join(
            f"{path} ({count} modules)" if count > 1 else path for path, count in modules_outside_decoder.items()
        )
        typer.echo(
            f"Note: the adapter changes more than the language model's blocks: {module_paths}; clips were heard under it."
        )
    typer.echo(str(out / "verdicts.parquet"))
