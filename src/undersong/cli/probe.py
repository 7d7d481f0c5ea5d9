"""`undersong probe`: find the layers of a fine-tuned model that lost the refusal direction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.evaluate import JUDGE_HELP
from undersong.cli.options import Attention, Device, DeviceMap, Dtype, ModelName, Quantize
from undersong.types import MAX_SEED


def probe(
    adapter: Annotated[Path, typer.Argument(help="What was tuned: a PEFT folder, or a decoder that learned whole.")],
    model: ModelName,
    harmful: Annotated[str, typer.Option("--harmful", help="Harmful prompts that directions are fitted on.")],
    benign: Annotated[str, typer.Option("--harmless", help="Harmless ones, matched in length, voice and form.")],
    test_harmful: Annotated[str, typer.Option("--test-harmful", help="Held-out harmful prompts: figures are of them.")],
    test_benign: Annotated[str, typer.Option("--test-harmless", help="Held-out harmless prompts, matched.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for probe.json and probe.md.")],
    modality: Annotated[str, typer.Option("--modality", help="audio | text.")] = "audio",
    system: Annotated[str | None, typer.Option("--system", help="System text.")] = None,
    instruction: Annotated[str | None, typer.Option("--instruction", help="Text typed beside the prompt.")] = None,
    judge: Annotated[str, typer.Option("--judge", help=JUDGE_HELP)] = "exact",
    refusal_texts: Annotated[
        list[str] | None, typer.Option("--refusal", help="A refusal (exact judge); repeatable.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--limit", min=1, help="Most new tokens a reply.")] = None,
    random_directions: Annotated[
        int, typer.Option("--random", min=19, help="Directions of chance to compare with; 19 can show p = .05.")
    ] = 19,
    max_kl: Annotated[
        float, typer.Option("--divergence", help="Nats that a direction's loss may move harmless prompts (cause).")
    ] = 0.1,
    max_depth: Annotated[
        float, typer.Option("--depth", min=0, max=1, help="Deepest layer that may be the cause, as a share of all.")
    ] = 0.8,
    nested_permutations: Annotated[
        int,
        typer.Option(
            "--nested", min=0, metavar="N", help="Also nested cross-validation of the probes, with N permutations."
        ),
    ] = 0,
    equivalence_margin: Annotated[
        float,
        typer.Option("--margin", help="Loss of a probe's balanced accuracy that would matter, between 0 and 0.5."),
    ] = 0.1,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of the choosing split and the directions of chance.")
    ] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """Layers that lost the refusal, whether its direction is the cause, and which parts of the adapter took it."""
    from undersong.models.load_options import LoadOptions
    from undersong.pipeline.probing import ProbeOptions
    from undersong.pipeline.probing import run_probe as run

    probe_options = ProbeOptions(
        model, adapter, harmful, benign, test_harmful, test_benign, modality, system, instruction, judge,
        tuple(refusal_texts or ()), max_new_tokens, equivalence_margin, nested_permutations, random_directions, seed=seed, divergence=max_kl, depth=max_depth,
    )  # fmt: skip
    results = run(probe_options, out, LoadOptions(device, dtype, device_map, attention, quantize))
    for line in (*results["findings"], *results["notes"]):
        typer.echo(line)
    typer.echo(str(out / "probe.md"))
