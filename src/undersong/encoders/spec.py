"""Encoder specifications `KIND[:REF][,OPTION=VALUE...]`: parse them and write their canonical form.

Loads no library; registry.py, speech.py and text.py import it, so it stays apart from registry.py (no circle).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from undersong.encoders.layers import parse_layers
from undersong.models.load_options import DTYPES
from undersong.store.user_code import split_code_ref
from undersong.types import UndersongError

POOLS = ("mean", "mean+std", "last")
PADS = ("exact", "bucket")
GRADIENT_DIM = 1024
DEFAULT_SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

KINDS_WITHOUT_REF = ("tfidf", "char-ngrams", "logmel")
KINDS_WITH_REF = ("whisper", "speech")
CUSTOM = "python"  # `ref` is code of the user's own
KINDS_WITH_OPTIONAL_REF = ("internal", "text", "gradients", "speaker")
ENCODERS = (*KINDS_WITHOUT_REF, *KINDS_WITH_REF, *KINDS_WITH_OPTIONAL_REF, CUSTOM)
TEXT_KINDS = ("tfidf", "char-ngrams", "text")
MODEL_KINDS = (*KINDS_WITH_REF, "text")  # `ref` is a model of their own


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """`kind`, `ref` (folder, id, or a view of the internal encoder; may be empty) and the `options` that differ from
    the default, sorted by name."""

    kind: str
    ref: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def canonical(self) -> str:
        """The one spelling, which belongs in an artifact's key: two specs that give the same numbers have one."""
        return ",".join([f"{self.kind}:{self.ref}" if self.ref else self.kind, *(f"{k}={v}" for k, v in self.options)])

    @property
    def needs_audio(self) -> bool:
        """Whether audio has to be decoded for it: not where transcripts are read that are there already."""
        return self.kind not in TEXT_KINDS or (self.kind == "text" and bool(self.option("asr")))

    @property
    def weights(self) -> str:
        """The model its vectors depend on, by folder or id; empty: none of its own."""
        return self.ref if self.kind in MODEL_KINDS else ""

    @property
    def code(self) -> str:
        """The code of the user's own that it is; empty: it is none."""
        return self.ref if self.kind == CUSTOM else ""

    def option(self, name: str) -> str:
        """An option's value, its default where none is written."""
        return dict(self.options).get(name, OPTIONS[self.kind][name].default)


@dataclass(frozen=True, slots=True)
class EncoderOption:
    """What an option is where it is not given, and how its values are read."""

    default: str
    parse: Callable[[str], str]  # the one spelling of a value; raises UndersongError


def _choice_parser(name: str, values: Iterable[str]) -> Callable[[str], str]:
    choices = tuple(values)

    def parse(value: str) -> str:
        if value not in choices:
            raise UndersongError(f"There is no {name} {value!r}; take {', '.join(choices)}.")
        return value

    return parse


SPEECH_OPTIONS = {
    "layer": EncoderOption("last", lambda value: parse_layers(value).canonical),
    "pool": EncoderOption("mean", _choice_parser("pool", POOLS)),
    "pad": EncoderOption("exact", _choice_parser("pad", PADS)),
    "dtype": EncoderOption("float32", _choice_parser("dtype", DTYPES)),
}
OPTIONS: dict[str, dict[str, EncoderOption]] = {
    "speech": SPEECH_OPTIONS,
    # Transcripts of what has no text, by this Whisper model; empty: such items are quarantined.
    "text": {"asr": EncoderOption("", str)},
}


def parse_encoder(spec: str) -> EncoderSpec:
    """Reads an encoder as a study writes it; `.canonical` is its one spelling.

    Options begin at the first `,name=`, so a folder may hold commas.  Raises UndersongError for an unknown kind, option
    or value (naming the nearest known), an option given twice, and a reference that is missing or out of place.
    """
    head, *option_texts = re.split(r",(?=[A-Za-z_-]+=)", spec.strip())
    kind, _, ref = head.partition(":")
    if kind not in ENCODERS:
        raise UndersongError(
            f"Unknown encoder {spec!r}; the nearest known is {_nearest_name(kind, ENCODERS)} ({_list_names(ENCODERS)})."
        )
    if (kind in KINDS_WITHOUT_REF and ":" in head) or (kind in KINDS_WITH_REF and not ref):
        expected_form = f"{kind} alone" if kind in KINDS_WITHOUT_REF else f"{kind}:REF with a model's folder or id"
        raise UndersongError(f"Encoder {spec!r} cannot be read; write {expected_form}.")
    if kind == "text" and not ref:
        ref = DEFAULT_SENTENCE_MODEL
    if kind == CUSTOM:
        split_code_ref(ref)
    if kind == "gradients":
        ref = _parse_dimension(spec, ref)
    return EncoderSpec(kind, ref, _parse_options(spec, kind, option_texts))


def _parse_dimension(spec: str, ref: str) -> str:
    """Of projected gradients; empty: the default."""
    if ref and (not ref.isdecimal() or int(ref) < 1):
        raise UndersongError(f"Encoder {spec!r} cannot be read; write gradients, or gradients:DIM with a whole number.")
    return "" if not ref or int(ref) == GRADIENT_DIM else str(int(ref))


def _parse_options(spec: str, kind: str, option_texts: list[str]) -> tuple[tuple[str, str], ...]:
    allowed = OPTIONS.get(kind, {})
    values: dict[str, str] = {}
    for option_text in option_texts:
        name, _, value = option_text.partition("=")
        if name not in allowed:
            hint = (
                f"the nearest known is {_nearest_name(name, allowed)} ({_list_names(allowed)})"
                if allowed
                else f"{kind} takes none"
            )
            raise UndersongError(f"Encoder {spec!r} has the unknown option {name!r}; {hint}.")
        if name in values:
            raise UndersongError(f"Encoder {spec!r} gives {name} twice; give it once.")
        values[name] = allowed[name].parse(value.strip())
    return tuple(sorted((name, value) for name, value in values.items() if value != allowed[name].default))


def _nearest_name(name: str, names: Iterable[str]) -> str:
    return repr(difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)[0])


def _list_names(names: Iterable[str]) -> str:
    return f"known: {', '.join(names)}"
