"""The commands `judge` (judge recorded replies) and `evaluate` (generate replies to a manifest's prompts and judge
them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from undersong.models.load_options import LoadOptions
from undersong.pipeline.standalone.options import MANIFEST_HELP, MODEL_HELP, EvaluationOptions, JudgeOptions

SCORE_FORMATS = {
    "contains": "mean containment {:.3f}",
    "f1": "mean F1 {:.3f}",
    "wer": "{:.3f} word errors a word (lower is better)",
}


def judge(
    file: Annotated[Path, typer.Argument(help="Replies: JSONL or Parquet with prompt_id, prompt and reply.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for verdicts.parquet.")],
    options: JudgeOptions,
) -> None:
    """Judge the replies in a file, whoever collected them."""
    from undersong.pipeline.standalone import judge_file

    for entry in judge_file(file, out, options):
        for line in rate_lines(entry):
            typer.echo(line)
    typer.echo(str(out / "verdicts.parquet"))


def rate_lines(entry: dict[str, Any]) -> list[str]:
    """An entry of `sets` as a reader takes it in: what was asked, the rate with its interval, every verdict's count."""
    from undersong.evaluation.rates import attack_rate_name
    from undersong.types import VERDICTS

    key = attack_rate_name(entry["judge"]) if entry["harmful"] else "refusal_rate"
    name = "JSR" if key == "jsr" else key.replace("_", " ").replace("non ", "non-")
    selection = ", ".join(entry[field] for field in ("set", "modality", "system", "judge") if entry[field])
    interval = f"[{entry['low']:.1%}, {entry['high']:.1%}]"
    prompt_count = f"{entry['n']} prompts in {entry['clusters']} clusters ({selection})"
    lines = [f"{name} {entry[key]:.1%} {interval}{_lost_reply_range(entry, entry[key])}, {prompt_count}"]
    if entry["judge_kind"] == "use":
        correct_interval = f"[{entry['right_low']:.1%}, {entry['right_high']:.1%}]"
        lines.append(
            f"right {entry['right_rate']:.1%} {correct_interval}{_lost_reply_range(entry, entry['right_rate'])}"
        )
    if entry.get("score") is not None:
        lines.append(SCORE_FORMATS[entry["judge"]].format(entry["score"]))
    if entry.get("cut"):
        lines.append(f"{entry['cut']} replies were cut at the limit of tokens; a judge sees no more than that")
    return [*lines, ", ".join(f"{entry[word]} {word}" for word in VERDICTS)]


def comprehension_lines(entry: dict[str, Any]) -> list[str]:
    """What was heard, what non-refusals are about, and what is left of the rate; none where nobody asked."""
    comprehension = entry.get("comprehension")
    if comprehension is None:
        return []
    recognition_share, relevance_share, comprehension_share = (
        comprehension["heard"],
        comprehension["about"],
        comprehension["comprehended"],
    )
    lines = [
        f"comprehended {_format_interval(comprehension_share)}, at most {comprehension_share['most']:.1%} with "
        "refused repetitions counted as heard"
    ]
    if recognition_share is not None:
        error_rate = (
            ""
            if recognition_share["word_error_rate"] is None
            else f", {recognition_share['word_error_rate']:.2f} word errors a word"
        )
        lines.append(
            f"heard {_format_interval(recognition_share)} of the requests ({recognition_share['refused']} "
            f"repetitions refused{error_rate})"
        )
    if relevance_share is not None:
        chance_text = "" if relevance_share["chance"] is None else f", by chance {relevance_share['chance']:.1%}"
        lines.append(
            f"about their request {_format_interval(relevance_share)} of {relevance_share['n']} "
            f"non-refusals{chance_text}"
        )
    return lines


def _format_interval(estimate: dict[str, Any]) -> str:
    return f"{estimate['rate']:.1%} [{estimate['low']:.1%}, {estimate['high']:.1%}]"


def _lost_reply_range(entry: dict[str, Any], rate: float) -> str:
    """How far replies without a verdict could move a rate that counts none of them; empty: there is none."""
    from undersong.statistics import bounds_sentence

    lost_replies = entry["error"] + entry["unparsed"]
    max_rate = min(1.0, rate + lost_replies / entry["n"])
    return f", {bounds_sentence(f'{rate:.1%}', f'{max_rate:.1%}', lost_replies)}" if lost_replies else ""


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
) -> None:
    """Measure the JSR (or over-refusal) of one model, with or without an adapter, on one prompt set."""
    from undersong.pipeline.standalone import evaluate_manifest

    entry = evaluate_manifest(manifest, model, out, adapter, options, loading)
    for line in (*rate_lines(entry), *comprehension_lines(entry)):
        typer.echo(line)
    if modules_outside_decoder := entry.get("adapted_outside"):
        module_paths = ", ".join(
            f"{path} ({count} modules)" if count > 1 else path for path, count in modules_outside_decoder.items()
        )
        typer.echo(
            f"Note: the adapter changes more than the language model's blocks: {module_paths}; clips were heard "
            "under it."
        )
    typer.echo(str(out / "verdicts.parquet"))
