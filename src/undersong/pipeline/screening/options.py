"""Options of `screen`, and parsers of its command-line values.  Reads no corpus."""

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

PRECOMPUTED = "embeddings"  # the encoder of embeddings that are already there
CHAT_FORMATS = ("messages", "sharegpt", "kimi")  # conversations, as trainers read them
OUTPUT_FORMATS = {"manifest": "kept.jsonl", "hub": "kept"} | {
    form: f"kept.{form}.jsonl" for form in CHAT_FORMATS
}  # -> name of what is kept


@dataclass(frozen=True, slots=True)
class ScreeningOptions:
    """Options of a screening.

    An item that fails on one axis is left out of all, so that every axis ranks the same pool.  Default axes: semantic
    (tfidf) where there is text, acoustic (logmel) where there is audio, internal for ready embeddings.
    """

    axes: Mapping[str, str] | None = None  # name -> encoder
    select_axis: str | None = None  # the axis to select by; None: the first
    to: str | None = None  # the harm set to select by; None: the first
    score: str = "nearest"
    centre: bool = False
    keep: str = "closest:0.25"  # a rule of `proximity.keep`
    also: Sequence[str] = ()  # further rules, kept beside the first; `random` again is another draw
    like: str | Path | None = None  # a selection.json whose shares `matched` takes instead of the pool's
    seed: int = 0
    max_quarantined: float = 0.01
    form: str = "manifest"  # what the kept set is written as, one of FORMS
    columns: Mapping[str, str] | None = None  # our field -> the pool's column
    harm_columns: Mapping[str, str] | None = None  # of every harm set
    harmless: str | Path | None = None  # harmless speech, for the screening score
    harmless_columns: Mapping[str, str] | None = None
    root: str | Path | None = None  # the folder no manifest's audio may lead out of, links followed
    model: str | None = None  # whose the internal axes are
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS
    store: str | Path | None = None  # where corpora, vectors and findings are kept, so that nothing is made twice
    check_padding: bool = False  # what `pad=bucket` of a speech encoder does to the ranking
    engine: Engine = DEFAULT_ENGINE  # where the pool is embedded
    say: Callable[[str], None] | None = None  # who hears how far a long pass is


def harm_sets_by_name(harm: str | Path | Mapping[str, str | Path]) -> dict[str, str]:
    """Harm sets by name: as they are called, a single one by its file."""
    if isinstance(harm, Mapping):
        if not harm:
            raise UndersongError("There is no harm set to measure to; name at least one.")
        return {name: str(ref) for name, ref in harm.items()}
    return {Path(harm).stem: str(harm)}


def parse_harm_sets(specs: Sequence[str]) -> dict[str, str]:
    """`REF` or `NAME=REF` each -> name to corpus, in order; without a name it is called by its file."""
    sets: dict[str, str] = {}
    for spec in specs:
        match = None if Path(spec).exists() else re.fullmatch(r"([\w.-]+)=(.+)", spec)
        name, ref = (match[1], match[2]) if match else (Path(spec).stem, spec)
        if name in sets:
            raise UndersongError(f"Two harm sets are called {name!r}; give them names: --harm NAME={ref}.")
        sets[name] = ref
    return sets


def parse_axes(specs: Sequence[str]) -> dict[str, str]:
    """`NAME=ENCODER` each -> name to encoder, in order."""
    axes: dict[str, str] = {}
    for spec in specs:
        name, _, encoder = spec.partition("=")
        if name in axes:
            raise UndersongError(f"Axis {name!r} is named twice; give every axis a name of its own.")
        if not name or not encoder:
            raise UndersongError(f"Axis {spec!r} is no NAME=ENCODER with a name of its own; write e.g. semantic=tfidf.")
        axes[name] = encoder
    return axes


def parse_columns(specs: Sequence[str]) -> dict[str, str]:
    """`FIELD=COLUMN` each -> field to column."""
    columns: dict[str, str] = {}
    for spec in specs:
        field, _, column = spec.partition("=")
        if not field or not column or field in columns:
            raise UndersongError(f"Column {spec!r} is no FIELD=COLUMN with a field of its own; write text=transcript.")
        columns[field] = column
    return columns


def match_selection_ids(options: ScreeningOptions) -> tuple[str, ...]:
    """The ids of the selection that `like` names; none where it names none."""
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
    """The `what` (axis, harm set) to select by: the named one, else the first."""
    if name is None:
        return next(iter(available))
    if name not in available:
        closest = difflib.get_close_matches(name, list(available), n=1, cutoff=0.0)[0]
        raise UndersongError(
            f"There is no {subject} {name!r} to select by; the nearest is {closest!r} ({', '.join(available)})."
        )
    return name


def selection_rules(options: ScreeningOptions) -> dict[str, tuple[SelectionRule, int]]:
    """Every selection by its label, the rule as it is written: the rule, and the seed of its draw.

    A random rule that stands again is drawn with the next seed, and labelled by it.  UndersongError for any other that
    stands again.
    """
    from undersong.proximity import parse_rule

    rules: dict[str, tuple[SelectionRule, int]] = {}
    for text in (options.keep, *options.also):
        rule = parse_rule(text)
        label, seed = str(rule), options.seed
        while label in rules:
            if rule.kind != "random":
                raise UndersongError(f"The rule {text!r} is asked for twice; only random samples can be drawn again.")
            seed += 1
            label = f"{rule} seed {seed}"
        rules[label] = rule, seed
    return rules
