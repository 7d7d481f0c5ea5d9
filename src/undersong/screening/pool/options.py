"""Options of `screen`, and parsers of its command-line values. Reads no corpus."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.options import Option, OptionGroup
from undersong.regular_files import check_regular_file
from undersong.settings.defaults import LEARNING_RATE
from undersong.stages.engine import DEFAULT_ENGINE, Engine
from undersong.suggestions import did_you_mean
from undersong.types import MAX_SEED, UndersongError

if TYPE_CHECKING:
    from undersong.proximity.rules import SelectionRule

SHIPPED_HARM, SHIPPED_ORDINARY = "shipped:harm", "shipped:ordinary"
PRECOMPUTED = "embeddings"  # encoder name for precomputed embeddings
CHAT_FORMATS = ("messages", "sharegpt", "kimi")  # conversation formats of trainers
# Name of the kept set in each output format
OUTPUT_FORMATS = {"manifest": "kept.jsonl", "hub": "kept"} | {name: f"kept.{name}.jsonl" for name in CHAT_FORMATS}


def parse_harm_sets(specs: Sequence[str]) -> dict[str, str]:
    """Parse harm sets, `REF` or `NAME=REF` each, to corpora by name; without a name, a set is named by its file."""
    sets: dict[str, str] = {}
    for spec in specs:
        match = None if Path(spec).exists() else re.fullmatch(r"([\w.-]+)=(.+)", spec)
        name, ref = (match[1], match[2]) if match else (Path(spec).stem, spec)
        if name in sets:
            raise UndersongError(f"Two harm sets are called {name!r}; give them names: --harm NAME={ref}.")
        sets[name] = ref
    return sets


RehearsalLearningRate = Annotated[
    float,
    Option(
        f"Learning rate of the rehearsal: that of your training. Default: {LEARNING_RATE:g}.", metavar="RATE", min=1e-9
    ),
]
PageFile = Annotated[
    Path | str | None,
    Option("Write a page to look at the samples and listen to them: one HTML file.", metavar="FILE"),
]
ExplorerFile = Annotated[
    Path | str | None,
    Option("Write a Parquet file for embedding-atlas and Spotlight: texts, clips, map, neighbors.", metavar="FILE"),
]


def parse_axes(specs: Sequence[str]) -> dict[str, str]:
    """Parse axes, `NAME=ENCODER` each, to encoders by name."""
    axes: dict[str, str] = {}
    for spec in specs:
        name, _, encoder = spec.partition("=")
        if name in axes:
            raise UndersongError(f"Axis {name!r} is named twice; give every axis its own name.")
        if not name or not encoder:
            raise UndersongError(f"Axis {spec!r} is not NAME=ENCODER; write for example semantic=tfidf.")
        axes[name] = encoder
    return axes


def parse_columns(specs: Sequence[str]) -> dict[str, str]:
    """Parse columns, `FIELD=COLUMN` each, to columns by field."""
    columns: dict[str, str] = {}
    for spec in specs:
        field, _, column = spec.partition("=")
        if not field or not column or field in columns:
            raise UndersongError(
                f"Column {spec!r} is not FIELD=COLUMN with a new field; write for example text=transcript."
            )
        columns[field] = column
    return columns


@dataclass(frozen=True, kw_only=True)
class ScreeningOptions:
    """Options of a screening.

    An item that fails on one axis is left out of all, so that every axis ranks the same pool.
    """

    # Every field is part of the key of the findings, but for those named here.
    RESULT_NEUTRAL: ClassVar[tuple[str, ...]] = (
        "output_format", "audio_root", "store", "engine", "progress", "page", "explore",
    )  # fmt: skip
    HASHED_INPUTS: ClassVar[tuple[str, ...]] = (  # in the key as the hash of their content
        "columns", "harm_columns", "benign_reference", "benign_reference_columns", "model",
    )  # fmt: skip

    axes: Annotated[
        Mapping[str, str] | None,
        Option(
            "Axis to measure distances on, with its encoder; repeatable. ENCODER: tfidf | char-ngrams | logmel | "
            "text[:ID] | speech:ID[,layer=9,pool=mean+std,pad=bucket] | whisper:FOLDER | internal[:VIEW] | "
            "influence | gradient-matching | decoder[:LAYER] | refusal (these five of --model) | "
            "embeddings | python:FILE.py:FUNCTION. Default: influence with --model if all corpora have replies, "
            "semantic=tfidf if there is text, acoustic=logmel if there is audio.",
            "--axis",
            metavar="NAME=ENCODER",
            parse=parse_axes,
        ),
    ] = None
    select_axis: Annotated[
        str | None,
        Option(
            "Axis to select by. Default: the first; --keep refuses it if it was measured and does not tell harm from "
            "ordinary data."
        ),
    ] = None
    select_harm_set: Annotated[str | None, Option("Harm set to select by. Default: the first.")] = None
    score: Annotated[
        str, Option("Distance to a harm set: nearest | knn:K | centroid (of the nearest item, K items, or the mean).")
    ] = "nearest"
    center: Annotated[bool, Option("Subtract the pool's mean before measuring distances.")] = False
    keep: Annotated[
        str | Sequence[str],
        Option(
            "Rule for the samples to keep; repeatable, with one file for each. Without one, the pool is ranked and "
            "nothing is kept. closest:0.25 | distant:200 | "
            "random:0.25 | band:0.25-0.5 | below:0.3 | above:0.7, then optionally +group<=3, "
            "+matched(speaker,seconds,answer) or +within(AXIS). A repeated random rule is another draw.",
            metavar="RULE",
            parse=tuple,
        ),
    ] = ()
    match_selection: Annotated[
        Path | str | None,
        Option("A selection.json: +matched(...) reproduces its shares instead of the pool's.", metavar="FILE"),
    ] = None
    drop: Annotated[
        Path | str | None,
        Option("Leave out the items of this list, one id a line, as the page saves it.", metavar="FILE"),
    ] = None
    page: PageFile = None
    explore: ExplorerFile = None
    output_format: Annotated[
        str,
        Option(
            "Format of the kept samples: manifest | messages (LLaMA-Factory, ms-swift) | sharegpt | kimi (Kimi-Audio) "
            "| hub (a dataset folder)."
        ),
    ] = "manifest"
    columns: Annotated[
        Mapping[str, str] | None,
        Option(
            "Column of the pool that holds a field, if it has another name; repeatable.",
            "--column",
            metavar="FIELD=COLUMN",
            parse=parse_columns,
        ),
    ] = None
    harm_columns: Annotated[
        Mapping[str, str] | None,
        Option("The same for the harm sets; repeatable.", "--harm-column", metavar="FIELD=COLUMN", parse=parse_columns),
    ] = None
    benign_reference_columns: Annotated[
        Mapping[str, str] | None,
        Option(
            "The same for the benign reference; repeatable.",
            "--benign-reference-column",
            metavar="FIELD=COLUMN",
            parse=parse_columns,
        ),
    ] = None
    seed: Annotated[int, Option("Seed of random selections, and first seed of rehearsals.", min=0, max=MAX_SEED)] = 0
    max_quarantined: Annotated[float, Option("Largest share of the pool that may be unusable.", min=0, max=1)] = 0.01
    benign_reference: Annotated[
        str | Path | None,
        Option(
            "Other benign speech whose distance to harm is compared with the pool's. Says how well each axis tells "
            "harm from it, and adds the screening score, and no verdict; `check --ordinary` gives one.",
            metavar="CORPUS",
        ),
    ] = None
    audio_root: Annotated[
        Path | str | None,
        Option("Folder that must hold every audio file; use it for manifests from other people.", metavar="FOLDER"),
    ] = None
    model: Annotated[
        str | None,
        Option(
            "Model for axes that need one, and for --rehearse: organism:NAME, mini, a folder, or a Hugging Face id "
            "(ORG/NAME@REVISION)."
        ),
    ] = None
    system_prompt: Annotated[
        str | None,
        Option(
            "System prompt of the axes that prompt the model and of --rehearse, as you would train with.",
            metavar="TEXT",
        ),
    ] = None
    rehearse: Annotated[
        int,
        Option(
            "Rehearse: train --model this many steps on the pool, on each kept selection and on random samples, and "
            "measure the loss of refusal margin on the harm set; 8 is a good number. Default: no rehearsal.",
            metavar="STEPS",
            min=0,
        ),
    ] = 0
    rehearse_seeds: Annotated[
        int, Option("Training seeds of each rehearsal; with several, intervals are over seeds too.", min=1)
    ] = 1
    rehearse_learning_rate: RehearsalLearningRate = LEARNING_RATE
    rehearse_by: Annotated[
        str | None, Option("Rehearse the samples of each value of this column of the pool, too.", metavar="COLUMN")
    ] = None
    store: Annotated[
        Path | str | None,
        Option("Folder that keeps embeddings and findings between runs.", metavar="FOLDER"),
    ] = None
    check_padding: Annotated[bool, Option("Compare pad=exact with pad=bucket on up to 200 clips of the pool.")] = False
    engine: Annotated[Engine, OptionGroup()] = DEFAULT_ENGINE
    loading: Annotated[LoadOptions, OptionGroup()] = DEFAULT_LOAD_OPTIONS
    progress: Callable[[str], None] | None = None  # of Python alone: receives a line of progress

    @property
    def writes_views(self) -> bool:
        """True if a page or a table for explorers is asked for."""
        return self.page is not None or self.explore is not None

    @property
    def rules(self) -> tuple[str, ...]:
        """Rules of selection, the main one first; none if nothing is to be kept."""
        return (self.keep,) if isinstance(self.keep, str) else tuple(self.keep)


@dataclass(frozen=True)
class ScreeningRequest(ScreeningOptions):
    """A screening with its corpora: the arguments of `undersong.screen` and of the command `screen`."""

    pool: Annotated[
        str | Path,
        Option(
            "Benign samples: a manifest (JSONL, CSV, Parquet, conversations), a folder of audio, hf:OWNER/NAME, "
            "preset:ID, or ready embeddings.",
            argument=True,
        ),
    ]
    harm: Annotated[
        str | Path | Mapping[str, str | Path],
        Option(
            "Harm set to measure distances to, of the same kinds as POOL, in place of the harmful requests that ship, "
            "which are texts; repeatable. To add to them, name them too: --harm shipped:harm --harm mine.jsonl.",
            metavar="[NAME=]CORPUS",
            parse=parse_harm_sets,
        ),
    ] = SHIPPED_HARM
    out: Annotated[
        Path | str | None,
        Option("Folder for the ranked list, the tables and the kept samples.", metavar="FOLDER", required=True),
    ] = None


def harm_sets_by_name(harm: str | Path | Mapping[str, str | Path]) -> dict[str, str]:
    """Harm sets by name: as they are called, a single one by its file."""
    if isinstance(harm, Mapping):
        if not harm:
            raise UndersongError("There is no harm set to measure to; name at least one.")
        return {name: str(ref) for name, ref in harm.items()}
    return {Path(harm).stem: str(harm)}


def match_selection_ids(options: ScreeningOptions) -> tuple[str, ...]:
    """Return the ids of the selection that `match_selection` names; none if it is not set."""
    from undersong.proximity.selection import selection_from_json

    if options.match_selection is None:
        return ()
    if Path(options.match_selection).exists():
        check_regular_file(options.match_selection)
    try:
        text = Path(options.match_selection).read_text(encoding="utf-8")
        return selection_from_json(text, str(options.match_selection)).ids
    except OSError as error:
        raise UndersongError(
            f"The selection {options.match_selection} cannot be read ({error.strerror}); check the path."
        ) from None


def name_or_first(subject: str, name: str | None, available: Mapping[str, object]) -> str:
    """Named axis or harm set to select by, or the first one.

    Raises:
        UndersongError: There is none of that name.
    """
    if name is None:
        return next(iter(available))
    if name not in available:
        hint = did_you_mean(name, available) or f"; take {' or '.join(available)}."
        raise UndersongError(f"There is no {subject} {name!r} to select by{hint}")
    return name


def selection_rules(options: ScreeningOptions) -> dict[str, tuple[SelectionRule, int]]:
    """Rule and seed of every selection, by its label.

    A repeated random rule is drawn with the next seed, and its label names the seed.

    Raises:
        UndersongError: Another rule is repeated.
    """
    from undersong.proximity.rules import parse_rule

    rules: dict[str, tuple[SelectionRule, int]] = {}
    for text in options.rules:
        rule = parse_rule(text)
        label, seed = str(rule), options.seed
        while label in rules:
            if rule.kind != "random":
                raise UndersongError(f"The rule {text!r} is given twice; only random rules can be repeated.")
            seed += 1
            label = f"{rule} seed {seed}"
        rules[label] = rule, seed
    return rules
