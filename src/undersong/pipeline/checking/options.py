"""Options of `check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from undersong.options import Option
from undersong.pipeline.screening.options import ExplorerFile, PageFile, parse_axes, parse_columns
from undersong.store import writable_user_cache

SHIPPED_HARM, SHIPPED_ORDINARY = "shipped:harm", "shipped:ordinary"


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Options of a check. None is needed."""

    # Every field is part of the key of the result, but for those named here.
    RESULT_NEUTRAL: ClassVar[tuple[str, ...]] = (
        "out", "fix", "drop", "page", "explore", "store", "cache", "top",
    )  # fmt: skip
    HASHED_INPUTS: ClassVar[tuple[str, ...]] = ("harm", "ordinary")  # in the key as the hash of their content

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
            "Further axis beside words, with its encoder of texts; repeatable. ENCODER: text[:ID] (meaning; extra "
            "encoders) | python:FILE.py:FUNCTION.",
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
    fix: Annotated[
        Path | str | None,
        Option(
            "Write the data here in the same format, without the samples that lie nearer to harm, and with the same "
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
            "Folder that keeps results, so that unchanged data are not measured again. Default: the user's cache, which "
            "`undersong store` lists.",
            metavar="FOLDER",
        ),
    ] = None
    cache: Annotated[
        bool, Option("Keep results in the user's cache if --store is not given.", "--cache/--no-cache")
    ] = True
    top: Annotated[int, Option("Number of samples to show.", min=0)] = 10
    seed: Annotated[int, Option("Seed of the split of the ordinary requests and of the bootstrap.", min=0)] = 0

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
