"""What a study writes for an encoder: `KIND[:REF][,OPTION=VALUE...]`, read and spelled in one way.  Loads nothing.

speech:microsoft/wavlm-base-plus,layer=9,pool=mean+std
speech:openai/whisper-base,pad=bucket
text:sentence-transformers/all-MiniLM-L6-v2
speaker:/models/resemblyzer
python:my_encoder.py:bands
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from undersong.encoders.spoken.layers import parse_layers
from undersong.models.loading import DTYPES
from undersong.store.code import split_code
from undersong.types import UndersongError

POOLS = ("mean", "mean+std", "last")
PADS = ("exact", "bucket")
GRADIENT_DIM = 1024
SENTENCES = "sentence-transformers/all-MiniLM-L6-v2"

ALONE = ("tfidf", "char-ngrams", "logmel")
WITH_REF = ("whisper", "speech")
OWN = "python"  # `ref` is code of the user's own
MAYBE_REF = ("internal", "text", "gradients", "speaker")
KINDS = (*ALONE, *WITH_REF, *MAYBE_REF, OWN)
OF_TEXT = ("tfidf", "char-ngrams", "text")
OF_WEIGHTS = (*WITH_REF, "text")  # `ref` is a model of their own


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """`kind`, `ref` (folder, id, or a view of the internal encoder; may be empty) and the `options` that differ from
    the default, sorted by name."""

    kind: str
    ref: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def canonical(self) -> str:
        """The one spelling, which belongs in an artefact's key: two specs that give the same numbers have one."""
        return ",".join([f"{self.kind}:{self.ref}" if self.ref else self.kind, *(f"{k}={v}" for k, v in self.options)])

    @property
    def hears(self) -> bool:
        """Whether audio has to be decoded for it: not where transcripts are read that are there already."""
        return self.kind not in OF_TEXT or (self.kind == "text" and bool(self.option("asr")))

    @property
    def weights(self) -> str:
        """The model its vectors depend on, by folder or id; empty: none of its own."""
        return self.ref if self.kind in OF_WEIGHTS else ""

    @property
    def code(self) -> str:
        """The code of the user's own that it is; empty: it is none."""
        return self.ref if self.kind == OWN else ""

    def option(self, name: str) -> str:
        """An option's value, its default where none is written."""
        return dict(self.options).get(name, OPTIONS[self.kind][name].default)


@dataclass(frozen=True, slots=True)
class Option:
    """What an option is where it is not given, and how its values are read."""

    default: str
    read: Callable[[str], str]  # the one spelling of a value; raises UndersongError


def _one_of(what: str, values: Iterable[str]) -> Callable[[str], str]:
    known = tuple(values)

    def read(value: str) -> str:
        if value not in known:
            raise UndersongError(f"There is no {what} {value!r}; take {', '.join(known)}.")
        return value

    return read


SPEECH = {
    "layer": Option("last", lambda value: parse_layers(value).written),
    "pool": Option("mean", _one_of("pool", POOLS)),
    "pad": Option("exact", _one_of("pad", PADS)),
    "dtype": Option("float32", _one_of("dtype", DTYPES)),
}
OPTIONS: dict[str, dict[str, Option]] = {
    "speech": SPEECH,
    # Transcripts of what has no text, by this Whisper model; empty: such items are quarantined.
    "text": {"asr": Option("", str)},
}


def parse_encoder(spec: str) -> EncoderSpec:
    """Reads an encoder as a study writes it; `.canonical` is its one spelling.

    Options begin at the first `,name=`, so a folder may hold commas.  Raises UndersongError for an unknown kind, option
    or value (naming the nearest known), an option given twice, and a reference that is missing or out of place.
    """
    head, *written = re.split(r",(?=[A-Za-z_-]+=)", spec.strip())
    kind, _, ref = head.partition(":")
    if kind not in KINDS:
        raise UndersongError(f"Unknown encoder {spec!r}; the nearest known is {_near(kind, KINDS)} ({_all(KINDS)}).")
    if (kind in ALONE and ":" in head) or (kind in WITH_REF and not ref):
        wanted = f"{kind} alone" if kind in ALONE else f"{kind}:REF with a model's folder or id"
        raise UndersongError(f"Encoder {spec!r} cannot be read; write {wanted}.")
    if kind == "text" and not ref:
        ref = SENTENCES
    if kind == OWN:
        split_code(ref)
    if kind == "gradients":
        ref = _dimension(spec, ref)
    return EncoderSpec(kind, ref, _options(spec, kind, written))


def _dimension(spec: str, ref: str) -> str:
    """Of projected gradients; empty: the default."""
    if ref and (not ref.isdecimal() or int(ref) < 1):
        raise UndersongError(f"Encoder {spec!r} cannot be read; write gradients, or gradients:DIM with a whole number.")
    return "" if not ref or int(ref) == GRADIENT_DIM else str(int(ref))


def _options(spec: str, kind: str, written: list[str]) -> tuple[tuple[str, str], ...]:
    known = OPTIONS.get(kind, {})
    values: dict[str, str] = {}
    for part in written:
        name, _, value = part.partition("=")
        if name not in known:
            what = f"the nearest known is {_near(name, known)} ({_all(known)})" if known else f"{kind} takes none"
            raise UndersongError(f"Encoder {spec!r} has the unknown option {name!r}; {what}.")
        if name in values:
            raise UndersongError(f"Encoder {spec!r} gives {name} twice; give it once.")
        values[name] = known[name].read(value.strip())
    return tuple(sorted((name, value) for name, value in values.items() if value != known[name].default))


def _near(name: str, known: Iterable[str]) -> str:
    return repr(difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0])


def _all(known: Iterable[str]) -> str:
    return f"known: {', '.join(known)}"
