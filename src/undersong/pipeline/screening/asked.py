"""What a screening is asked beside its corpora: axes, scores, rules and where it computes.  Knows words, no files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.engine import AT_ONCE, Engine
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.proximity.choosing.keep import Keep

READY = "embeddings"  # the encoder of embeddings that are already there
CHATS = ("messages", "sharegpt", "kimi")  # conversations, as trainers read them
FORMS = {"manifest": "kept.jsonl", "hub": "kept"} | {
    form: f"kept.{form}.jsonl" for form in CHATS
}  # -> name of what is kept


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of a screening.

    An item that fails on one axis is left out of all, so that every axis ranks the same pool.  Default axes: semantic
    (tfidf) where there is text, acoustic (logmel) where there is audio, internal for ready embeddings.
    """

    axes: Mapping[str, str] | None = None  # name -> encoder
    by: str | None = None  # the axis to select by; None: the first
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
    loading: Loading = PLAIN
    store: str | Path | None = None  # where corpora, vectors and findings are kept, so that nothing is made twice
    check_padding: bool = False  # what `pad=bucket` of a speech encoder does to the ranking
    engine: Engine = AT_ONCE  # where the pool is embedded
    say: Callable[[str], None] | None = None  # who hears how far a long pass is


def named_harm(harm: str | Path | Mapping[str, str | Path]) -> dict[str, str]:
    """Harm sets by name: as they are called, a single one by its file."""
    if isinstance(harm, Mapping):
        if not harm:
            raise UndersongError("There is no harm set to measure to; name at least one.")
        return {name: str(ref) for name, ref in harm.items()}
    return {Path(harm).stem: str(harm)}


def parse_harm(specs: Sequence[str]) -> dict[str, str]:
    """`REF` or `NAME=REF` each -> name to corpus, in order; without a name it is called by its file."""
    sets: dict[str, str] = {}
    for spec in specs:
        written = None if Path(spec).exists() else re.fullmatch(r"([\w.-]+)=(.+)", spec)
        name, ref = (written[1], written[2]) if written else (Path(spec).stem, spec)
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


def liked(asked: Asked) -> tuple[str, ...]:
    """The ids of the selection that `like` names; none where it names none."""
    from undersong.proximity import from_json

    if asked.like is None:
        return ()
    try:
        return from_json(Path(asked.like).read_text(encoding="utf-8")).ids
    except OSError as error:
        raise UndersongError(f"The selection {asked.like} cannot be read ({error.strerror}); check the path.") from None


def one_of(what: str, name: str | None, known: Mapping[str, object]) -> str:
    """The `what` (axis, harm set) to select by: the named one, else the first."""
    if name is None:
        return next(iter(known))
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
        raise UndersongError(f"There is no {what} {name!r} to select by; the nearest is {near!r} ({', '.join(known)}).")
    return name


def rules_asked(asked: Asked) -> dict[str, tuple[Keep, int]]:
    """Every selection by its label, the rule as it is written: the rule, and the seed of its draw.

    A random rule that stands again is drawn with the next seed, and labelled by it.  UndersongError for any other that
    stands again.
    """
    from undersong.proximity import read_keep

    found: dict[str, tuple[Keep, int]] = {}
    for text in (asked.keep, *asked.also):
        rule = read_keep(text)
        label, seed = str(rule), asked.seed
        while label in found:
            if rule.kind != "random":
                raise UndersongError(f"The rule {text!r} is asked for twice; only random samples can be drawn again.")
            seed += 1
            label = f"{rule} seed {seed}"
        found[label] = rule, seed
    return found
