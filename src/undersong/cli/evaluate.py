"""`evaluate`: ask a model every prompt of a manifest and judge the replies, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.judge import JUDGE_HELP, SET_HELP, comprehension_lines, default_set_name, rate_lines
from undersong.cli.loading import MANIFEST_HELP, MODEL_HELP, Attention, Device, DeviceMap, Dtype, Quantize


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
    from undersong.models.load_options import Loading
    from undersong.pipeline.alone import EvaluationOptions, apply_protocol, comprehension_options, evaluate_manifest

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
    loading = Loading(device, dtype, device_map, attention, quantize)
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
