"""Options of `screen`, and parsers of its command-line values. Reads no corpus."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.stages.engine import DEFAULT_ENGINE, Engine
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.proximity.rules import SelectionRule

PRECOMPUTED = "embeddings"  # encoder name for precomputed embeddings
CHAT_FORMATS = ("messages", "sharegpt", "kimi")  # conversation formats of trainers
# Name of the kept set in each output format
OUTPUT_FORMATS = {"manifest": "kept.jsonl", "hub": "kept"} | {name: f"kept.{name}.jsonl" for name in CHAT_FORMATS}


@dataclass(frozen=True, slots=True)
class ScreeningOptions:
    """Options of a screening.

    An item that fails on one axis is left out of all, so that every axis ranks the same pool. Default axes: semantic
    (tfidf) if there is text, acoustic (logmel) if there is audio, internal for precomputed embeddings.
    """

    axes: Mapping[str, str] | None = None  # name -> encoder
    select_axis: str | None = None  # axis to select by; None: the first
    to: str | None = None  # harm set to select by; None: the first
    score: str = "nearest"
    centre: bool = False
    keep: str = "closest:0.25"  # selection rule (`proximity.rules`)
    also: Sequence[str] = ()  # further rules; a repeated `random` is another draw
    like: str | Path | None = None  # selection.json whose shares `matched` takes instead of the pool's
    seed: int = 0
    max_quarantined: float = 0.01
    form: str = "manifest"  # format of the kept set, a key of OUTPUT_FORMATS
    columns: Mapping[str, str] | None = None  # our field -> the pool's column
    harm_columns: Mapping[str, str] | None = None  # the same for every harm set
    harmless: str | Path | None = None  # benign speech, for the screening score
    harmless_columns: Mapping[str, str] | None = None
    root: str | Path | None = None  # folder that must contain every manifest's audio, after following links
    model: str | None = None  # model of the internal axes
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS
    store: str | Path | None = None  # store that caches corpora, vectors and findings
    check_padding: bool = False  # measure what `pad=bucket` of a speech encoder does to the ranking
    engine: Engine = DEFAULT_ENGINE  # engine that embeds the pool
    say: Callable[[str], None] | None = None  # receives progress lines of long passes


def harm_sets_by_name(harm: str | Path | Mapping[str, str | Path]) -> dict[str, str]:
    """Harm sets by name; a single one is named after its file.

    Raises:
        UndersongError: There is no harm set.
    """
    if isinstance(harm, Mapping):
        if not harm:
            raise UndersongError("There is no harm set to measure to; name at least one.")
        return {name: str(ref) for name, ref in harm.items()}
    return {Path(harm).stem: str(harm)}


def parse_harm_sets(specs: Sequence[str]) -> dict[str, str]:
    """Parse `REF` or `NAME=REF` into corpora by name, in order; without a name the file's name is used.

    Raises:
        UndersongError: Two harm sets have the same name.
    """
    sets: dict[str, str] = {}
    for spec in specs:
        match = None if Path(spec).exists() else re.fullmatch(r"([\w.-]+)=(.+)", spec)
        name, ref = (match[1], match[2]) if match else (Path(spec).stem, spec)
        if name in sets:
            raise UndersongError(f"Two harm sets are called {name!r}; give them names: --harm NAME={ref}.")
        sets[name] = ref
    return sets


def parse_axes(specs: Sequence[str]) -> dict[str, str]:
    """Parse `NAME=ENCODER` into encoders by name, in order.

    Raises:
        UndersongError: The form is wrong, or a name is repeated.
    """
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
    """Parse `FIELD=COLUMN` into columns by field.

    Raises:
        UndersongError: The form is wrong, or a field is repeated.
    """
    columns: dict[str, str] = {}
    for spec in specs:
        field, _, column = spec.partition("=")
        if not field or not column or field in columns:
            raise UndersongError(
                f"Column {spec!r} is not FIELD=COLUMN with a new field; write for example text=transcript."
            )
        columns[field] = column
    return columns


def match_selection_ids(options: ScreeningOptions) -> tuple[str, ...]:
    """Ids of the selection to match, or none.

    Raises:
        UndersongError: The file cannot be read or is not a selection.
    """
    from undersong.proximity import selection_from_json

    if options.like is None:
        return ()
    try:
        return selection_from_json(Path(options.like).read_text(encoding="utf-8")).ids
    except OSError as error:
        raise UndersongError(
            f"The selection {options.like} cannot be read ({error.strerror}); check the path."
        ) from None


def name_or_first(subject: str, name: str | None, available: Mapping[str, object]) -> str:
    """Named axis or harm set to select by, or the first one.

    Raises:
        UndersongError: There is none of that name.
    """
    if name is None:
        return next(iter(available))
    if name not in available:
        closest = difflib.get_close_matches(name, list(available), n=1, cutoff=0.0)[0]
        raise UndersongError(
            f"There is no {subject} {name!r} to select by; the nearest is {closest!r} ({', '.join(available)})."
        )
    return name


def selection_rules(options: ScreeningOptions) -> dict[str, tuple[SelectionRule, int]]:
    """Rule and seed of every selection, by its label.

    A repeated random rule is drawn with the next seed, and its label names the seed.

    Raises:
        UndersongError: Another rule is repeated.
    """
    from undersong.proximity import parse_rule

    rules: dict[str, tuple[SelectionRule, int]] = {}
    for text in (options.keep, *options.also):
        rule = parse_rule(text)
        label, seed = str(rule), options.seed
        while label in rules:
            if rule.kind != "random":
                raise UndersongError(f"The rule {text!r} is given twice; only random rules can be repeated.")
            seed += 1
            label = f"{rule} seed {seed}"
        rules[label] = rule, seed
    return rules
