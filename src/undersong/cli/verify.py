"""`verify`: a real checkpoint, examined and set beside the published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.judge import JUDGE_HELP
from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.types import UndersongError


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
    from undersong.cli.models import doctor
    from undersong.models.load_options import Loading
    from undersong.pipeline import verify as verifying

    corpus_by_set = dict(_parse_corpus_option(option) for option in corpora or ()) or verifying.PUBLISHED_CORPORA
    verifying.check_published(model, corpus_by_set)
    doctor(model, device, dtype, device_map, attention, quantize)  # ends here where something is wrong
    for line in verifying.verify_checkpoint(
        model, corpus_by_set, out, judge, Loading(device, dtype, device_map, attention, quantize)
    ):
        typer.echo(line)


def _parse_corpus_option(text: str) -> tuple[str, str]:
    name, equals, corpus = text.partition("=")
    if not equals or not corpus:
        raise UndersongError(f"--corpus {text} names no corpus; write --corpus AdvBench=CORPUS.")
    return name, corpus
