"""The commands `models`, `doctor` and `verify`: list model families, assemble Mini, check a model or this machine,
reproduce published figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undersong.cli.evaluate import JUDGE_HELP
from undersong.cli.options import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.models.mini.paths import (
    SMOLLM_ID,
    SMOLLM_VARIABLE,
    WHISPER_ID,
    WHISPER_VARIABLE,
    mini_folder,
    shipped_parts,
)
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.models.doctor import DiagnosticCheck
    from undersong.pipeline.environment import EnvironmentCheck


models_app = typer.Typer(rich_markup_mode=None)


@models_app.callback(invoke_without_command=True)
def _print_families(context: typer.Context) -> None:
    """The families of audio LLMs and what each supports, the packaged organisms, and what is installed beside."""
    if context.invoked_subcommand is not None:
        return
    from importlib.util import find_spec

    from undersong.models.families import FAMILIES
    from undersong.models.mini.paths import MINI_NAMES, is_assembled
    from undersong.models.refs import organism_names

    for family in FAMILIES:
        typer.echo(f"{family.name}: {family.example} (model_type {' or '.join(family.model_types)})")
        typer.echo(f"    hears clips {family.max_duration_text}; system text as {family.system}")
        typer.echo(f"    internal encoders: internal, {', '.join(f'internal:{view}' for view in family.views)}")
    typer.echo("Every family: speech and typed prompts in one batch, LoRA on the decoder alone, hidden states.")
    quantization_status = (
        "installed" if find_spec("bitsandbytes") else "not installed (pip install 'undersong[quantize]')"
    )
    typer.echo(f"No family needs a package of its own; --quantize needs bitsandbytes: {quantization_status}.")
    typer.echo(f"Packaged: {', '.join(f'organism:{name}' for name in organism_names())}")
    assembled = [name for name in MINI_NAMES if is_assembled(name)]
    typer.echo(f"Assembled here: {', '.join(assembled) or 'none (undersong models get mini)'}")


@models_app.command("get")
def get_model(
    name: Annotated[str, typer.Argument(help="mini, or mini:unaligned: hears and answers, never taught to refuse.")],
    whisper: Annotated[
        str,
        typer.Option(
            "--whisper", envvar=WHISPER_VARIABLE, help="Folder or hub id of the Whisper model that the tower is of."
        ),
    ] = WHISPER_ID,
    smollm: Annotated[
        str, typer.Option("--smollm", envvar=SMOLLM_VARIABLE, help="Folder or hub id of the language model.")
    ] = SMOLLM_ID,
    parts: Annotated[
        Path | None, typer.Option("--parts", help="What was learned (default: models/mini of a checkout).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Default: where --model mini looks, $UNDERSONG_MODELS or data folder.")
    ] = None,
) -> None:
    """Put a model folder together, of base weights and of what the repository holds."""
    parts_folder, target_folder = (
        parts or shipped_parts(),
        out or mini_folder(name),
    )  # what is missing is told before libraries load
    from undersong.models.mini.assemble import assemble_mini

    assembly = assemble_mini(name, whisper, smollm, parts_folder, target_folder)
    typer.echo(f"{name} is at {assembly.folder}" + ("; take it with --model " + name if out is None else ""))
    for line in assembly.notes:
        typer.echo(line)


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(help="organism:NAME, a folder, or a Hugging Face id (ORG/NAME@REVISION); none: this machine."),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
    out: Annotated[
        Path, typer.Option("--out", help="Where results are to go, to try whether they can (without MODEL).")
    ] = Path("out"),
) -> None:
    """Say yes or no, one line each: is this model heard, asked and tuned rightly?  Without MODEL: is this machine fit?

    Lines with "-" name what the machine does not need, or what is to be known of a model.  Exit code 1 where a line
    says no.
    """
    from undersong.models.load_options import LoadOptions

    checks: Iterator[DiagnosticCheck | EnvironmentCheck]
    if model is None:
        from undersong.pipeline.environment import check_environment

        checks = check_environment(out)
    else:
        from undersong.models.doctor import diagnose_model

        checks = diagnose_model(model, LoadOptions(device, dtype, device_map, attention, quantize))
    all_passed = True
    for check in checks:
        status_word = {True: "yes", False: "no", None: "-"}[check.passed]
        typer.echo(f"{status_word:<4}{check.name}: {check.detail}")
        all_passed &= check.passed is not False
    if not all_passed:
        raise typer.Exit(1)


def verify(
    model: Annotated[str, typer.Argument(help="A Hugging Face id or folder of a model of the published study.")],
    corpora: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            metavar="SET=CORPUS",
            help="Spoken prompts of AdvBench or SafetyBench (that is Do-Not-Answer); repeatable; default: "
            "VoiceBench's AdvBench.",
        ),
    ] = None,
    judge: Annotated[str, typer.Option("--judge", help=JUDGE_HELP)] = "harmbench",
    out: Annotated[Path, typer.Option("--out", help="Folder for replies and verdicts.")] = Path("out/verify"),
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """`doctor`, then the JSR before any tuning, asked as the published study asked, beside its figure."""
    from undersong.models.load_options import LoadOptions
    from undersong.pipeline import verify as verifying

    corpus_by_set = dict(_parse_corpus_option(option) for option in corpora or ()) or verifying.PUBLISHED_CORPORA
    verifying.check_published(model, corpus_by_set)
    doctor(model, device, dtype, device_map, attention, quantize)  # ends here where something is wrong
    for line in verifying.verify_checkpoint(
        model, corpus_by_set, out, judge, LoadOptions(device, dtype, device_map, attention, quantize)
    ):
        typer.echo(line)


def _parse_corpus_option(text: str) -> tuple[str, str]:
    name, equals, corpus = text.partition("=")
    if not equals or not corpus:
        raise UndersongError(f"--corpus {text} names no corpus; write --corpus AdvBench=CORPUS.")
    return name, corpus
