"""Options of `check`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.options import Option, OptionGroup
from undersong.screening.pool.options import (
    SHIPPED_HARM,
    SHIPPED_ORDINARY,
    ExplorerFile,
    PageFile,
    RehearsalLearningRate,
    parse_axes,
    parse_columns,
)
from undersong.settings.defaults import LEARNING_RATE
from undersong.store.user_cache import writable_user_cache
from undersong.types import MAX_SEED, UndersongError

ENGINES = ("espeak", "piper", "flite")  # those of corpora.tts, which `--help` does not import


def parse_voices(words: Sequence[str]) -> tuple[str, ...]:
    """Check voices, ENGINE:NAME each.

    Raises:
        UndersongError: One is not of that form, or is named twice.
    """
    for word in words:
        engine, _, name = word.partition(":")
        if engine not in ENGINES or not name:
            raise UndersongError(f"--voice {word!r} is not ENGINE:NAME; write for example espeak:en-us.")
    if len(set(words)) < len(words):
        raise UndersongError("--voice names a voice twice; name each once.")
    return tuple(words)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of a check. None is needed."""

    # Every field is part of the key of the result, but for those named here.
    RESULT_NEUTRAL: ClassVar[tuple[str, ...]] = (
        "out", "fix", "drop", "page", "explore", "store", "cache", "top", "progress",
    )  # fmt: skip
    HASHED_INPUTS: ClassVar[tuple[str, ...]] = (  # in the key as the hash of their content
        "harm", "ordinary", "model", "transcribe", "voices",
    )  # fmt: skip

    harm: Annotated[
        str | Sequence[str],
        Option(
            "Harmful requests to measure to, in place of those that ship; repeatable. To add to them, name them too: "
            "--harm shipped:harm --harm mine.jsonl.",
            metavar="CORPUS",
            parse=tuple,
        ),
    ] = SHIPPED_HARM
    ordinary: Annotated[
        str | Path,
        Option("Ordinary requests to compare with, in place of those that ship.", metavar="CORPUS"),
    ] = SHIPPED_ORDINARY
    axes: Annotated[
        Mapping[str, str] | None,
        Option(
            "Further axis beside words; repeatable. NAME is yours. ENCODER: text[:ID] (meaning; extra encoders) | "
            "python:FILE.py:FUNCTION; of clips: logmel | speaker[:FOLDER] | speech:ID | whisper:FOLDER (extra models, "
            "but for logmel); with --model: internal[:VIEW] | decoder[:LAYER] | refusal | influence. Default with "
            "--model and without --rehearse: internal for clips, decoder, refusal, and influence if data and "
            "references have replies. Naming an axis of the model replaces this default. Where clips are compared, "
            "sound=logmel is always measured.",
            "--axis",
            metavar="NAME=ENCODER",
            parse=parse_axes,
        ),
    ] = None
    columns: Annotated[
        Mapping[str, str] | None,
        Option(
            "Column of the data that holds a field, if it has another name; repeatable.",
            "--column",
            metavar="FIELD=COLUMN",
            parse=parse_columns,
        ),
    ] = None
    model: Annotated[
        str | None,
        Option(
            "Model whose own axes are measured too, or that --rehearse trains: organism:NAME, mini, a folder, or a "
            "Hugging Face id (ORG/NAME@REVISION)."
        ),
    ] = None
    system_prompt: Annotated[
        str | None, Option("System prompt of --model, as you would train with.", metavar="TEXT")
    ] = None
    transcribe: Annotated[
        str | None,
        Option(
            "Transcribe clips without a transcript by this Whisper model: a folder or a Hugging Face id.", metavar="ID"
        ),
    ] = None
    voices: Annotated[
        tuple[str, ...],
        Option(
            "Voice that speaks written references if the data are spoken, ENGINE:NAME; repeatable. Default: four of "
            "espeak-ng, if it is installed (extra tts).",
            "--voice",
            metavar="VOICE",
            parse=parse_voices,
        ),
    ] = ()
    reference_size: Annotated[
        int,
        Option(
            "Most harmful requests that the model reads or voices speak; of ordinary ones, three times as many.", min=50
        ),
    ] = 200
    rehearse: Annotated[
        int,
        Option(
            "Rehearse: train --model this many steps on the data and on as many ordinary samples, and measure the "
            "loss of refusal margin on the harm set; 8 is a good number. Axes of the model are then measured only if "
            "--axis names them. Default: no rehearsal.",
            metavar="STEPS",
            min=0,
        ),
    ] = 0
    rehearse_seeds: Annotated[
        int, Option("Training seeds of the rehearsal, each with its own draw of samples.", min=1)
    ] = 3
    rehearse_learning_rate: RehearsalLearningRate = LEARNING_RATE
    fix: Annotated[
        Path | str | None,
        Option(
            "Write the data here in the same format, without the samples that are nearer to harm, and with the same "
            "shares of lengths, sources and speakers.",
            metavar="OUT",
        ),
    ] = None
    drop: Annotated[
        Path | str | None,
        Option(
            "With --fix: leave out the samples of this list, one id a line, as the page saves it, and no others.",
            metavar="FILE",
        ),
    ] = None
    page: PageFile = None
    explore: ExplorerFile = None
    out: Annotated[
        Path | str | None,
        Option("Folder for the ranked list (ranked.csv, ranked.jsonl) and the verdict (check.json).", metavar="FOLDER"),
    ] = None
    store: Annotated[
        Path | str | None,
        Option(
            "Folder that keeps results, so that unchanged data are not measured again. Default: the user's cache, "
            "which `undersong store` lists.",
            metavar="FOLDER",
        ),
    ] = None
    cache: Annotated[
        bool, Option("Keep results in the user's cache if --store is not given.", "--cache/--no-cache")
    ] = True
    top: Annotated[int, Option("Number of samples to show.", min=0)] = 10
    seed: Annotated[
        int, Option("Seed of the split of the ordinary requests, of draws and of the bootstrap.", min=0, max=MAX_SEED)
    ] = 0
    loading: Annotated[LoadOptions, OptionGroup()] = DEFAULT_LOAD_OPTIONS
    progress: Callable[[str], None] | None = None  # of Python alone: receives a line of progress

    @property
    def writes_views(self) -> bool:
        """True if a page or a table for explorers is asked for."""
        return self.page is not None or self.explore is not None

    @property
    def store_folder(self) -> Path | None:
        """Folder that keeps results: `store`, or the user's cache; None if neither is wanted and writable."""
        if self.store is not None:
            return Path(self.store)
        return writable_user_cache() if self.cache else None

    @property
    def harm_refs(self) -> tuple[str, ...]:
        """References of the harm sets."""
        return (self.harm,) if isinstance(self.harm, str) else tuple(self.harm)


@dataclass(frozen=True)
class CheckRequest(CheckOptions):
    """A check with its data: the arguments of `undersong.check` and of the command `check`."""

    data: Annotated[
        str | Path,
        Option(
            "Training data as the trainer takes it: LLaMA-Factory, ms-swift, axolotl, TRL, Kimi-Audio, a manifest, "
            "CSV, JSONL, Parquet, a folder of audio, hf:OWNER/NAME.",
            argument=True,
        ),
    ]
