"""The commands `judge` (judge recorded replies) and `evaluate` (generate replies to a manifest's prompts and judge
them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from undersong.cli.options import MANIFEST_HELP, MODEL_HELP, Attention, Device, DeviceMap, Dtype, Quantize

JUDGE_HELP = (
    "exact | keyword (a smoke test) | refusal | refusal+minilm[:REF] | harmbench[:REF] | llama-guard[:REF] | "
    "wildguard[:REF] | cost[:REF] | llm:MODEL@URL | strongreject:MODEL@URL; of usefulness: choice | bbh | contains | "
    "f1 | wer; your own code: python:FILE.py:FUNCTION | python-refusal:… | python-use:…."
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
    for entry in judge_file(
        file, name, out, manifest, default_set_name(set_name, harmful), harmful, tuple(refusal_texts or ()), loading
    ):
        for line in rate_lines(entry):
            typer.echo(line)
    typer.echo(str(out / "verdicts.parquet"))


def default_set_name(name: str | None, harmful: bool) -> str:
    """The name of a prompt set: that of `--set`, or one that says what its prompts are."""
    return name or ("harm" if harmful else "benign")


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
        f"comprehended {_format_interval(comprehension_share)}, at most {comprehension_share['most']:.1%} with refused repetitions counted as heard"
    ]
    if recognition_share is not None:
        error_rate = (
            ""
            if recognition_share["word_error_rate"] is None
            else f", {recognition_share['word_error_rate']:.2f} word errors a word"
        )
        lines.append(
            f"heard {_format_interval(recognition_share)} of the requests ({recognition_share['refused']} repetitions refused{error_rate})"
        )
    if relevance_share is not None:
        chance_text = "" if relevance_share["chance"] is None else f", by chance {relevance_share['chance']:.1%}"
        lines.append(
            f"about their request {_format_interval(relevance_share)} of {relevance_share['n']} non-refusals{chance_text}"
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
    entry = evaluate_manifest(manifest, model, out, adapter, evaluation_options, loading)
    for line in (*rate_lines(entry), *comprehension_lines(entry)):
        typer.echo(line)
    if modules_outside_decoder := entry.get("adapted_outside"):
        module_paths = ", ".join(
            f"{path} ({count} modules)" if count > 1 else path for path, count in modules_outside_decoder.items()
        )
        typer.echo(
            f"Note: the adapter changes more than the language model's blocks: {module_paths}; clips were heard under it."
        )
    typer.echo(str(out / "verdicts.parquet"))
