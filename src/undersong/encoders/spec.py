"""Encoder specifications `KIND[:REF][,OPTION=VALUE...]`: parsing and canonical form.

Loads no library. It is separate from registry.py because registry.py, speech.py and text.py import it.
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

GRADIENT_MATCHING, INFLUENCE, DECODER, REFUSAL = "gradient-matching", "influence", "decoder", "refusal"
PREDICTORS = (GRADIENT_MATCHING, INFLUENCE, DECODER, REFUSAL)  # measured by running the audited model on prompts
ANCHOR_TOKENS = "10"  # of a reply whose gradient is taken: the published number (`first 10 tokens`, arXiv 2404.01099)
ANCHORS = "10"  # harmful anchors of gradient matching: the published number

KINDS_WITHOUT_REF = ("tfidf", "char-ngrams", "logmel", REFUSAL)
KINDS_WITH_REF = ("whisper", "speech")
CUSTOM = "python"  # `ref` is the user's code
GRADIENT_KINDS = ("gradients", GRADIENT_MATCHING, INFLUENCE)  # `ref` is the dimension of the projection
KINDS_WITH_OPTIONAL_REF = ("internal", "text", "speaker", DECODER, *GRADIENT_KINDS)
ENCODERS = (*KINDS_WITHOUT_REF, *KINDS_WITH_REF, *KINDS_WITH_OPTIONAL_REF, CUSTOM)
TEXT_KINDS = ("tfidf", "char-ngrams", "text")
MODEL_KINDS = (*KINDS_WITH_REF, "text")  # `ref` is a model


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """A parsed specification: `kind`, `ref` (folder, id or view; may be empty) and the options that differ from the
    default.
    """

    kind: str
    ref: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def canonical(self) -> str:
        """The canonical spelling, used in the keys of artifacts: specifications with the same numbers have the same
        spelling.
        """
        return ",".join([f"{self.kind}:{self.ref}" if self.ref else self.kind, *(f"{k}={v}" for k, v in self.options)])

    @property
    def needs_audio(self) -> bool:
        """True if audio has to be decoded; not for text encoders without speech recognition."""
        if self.kind in PREDICTORS:
            return self.option("modality") != "text"
        return self.kind not in TEXT_KINDS or (self.kind == "text" and bool(self.option("asr")))

    @property
    def needs_text(self) -> bool:
        """True if every item needs a text."""
        return self.kind in TEXT_KINDS or (self.kind in PREDICTORS and self.option("modality") == "text")

    @property
    def weights(self) -> str:
        """Folder or id of the model that the vectors depend on; empty if the encoder has none of its own."""
        return self.ref if self.kind in MODEL_KINDS else ""

    @property
    def code(self) -> str:
        """Reference to the user's code; empty if the encoder is not custom."""
        return self.ref if self.kind == CUSTOM else ""

    def option(self, name: str) -> str:
        """Value of an option, or its default."""
        return dict(self.options).get(name, OPTIONS[self.kind][name].default)


@dataclass(frozen=True, slots=True)
class EncoderOption:
    """Default of an option, and the parser of its values."""

    default: str
    parse: Callable[[str], str]  # canonical spelling of a value; raises UndersongError


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


def _positive_parser(name: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if not value.isdecimal() or int(value) < 1:
            raise UndersongError(f"Option {name}={value} is no whole number above 0; write for example {name}=10.")
        return str(int(value))

    return parse


# Empty: the modality that the study trains in; speech in a screening.
MODALITY = EncoderOption("", _choice_parser("modality", ("audio", "text")))
TOKENS = EncoderOption(ANCHOR_TOKENS, _positive_parser("tokens"))
OPTIONS: dict[str, dict[str, EncoderOption]] = {
    "speech": SPEECH_OPTIONS,
    GRADIENT_MATCHING: {
        "modality": MODALITY,
        "tokens": TOKENS,
        "anchors": EncoderOption(ANCHORS, _positive_parser("anchors")),
    },
    INFLUENCE: {"modality": MODALITY, "tokens": TOKENS},
    DECODER: {"modality": MODALITY},
    REFUSAL: {"modality": MODALITY},
    # Whisper model that transcribes items without a text; empty: such items are quarantined.
    "text": {"asr": EncoderOption("", str)},
}


def parse_encoder(spec: str) -> EncoderSpec:
    """Parse an encoder specification as a study writes it; `.canonical` is its canonical spelling.

    Options begin at the first `,name=`, so a folder may contain commas. Raises UndersongError for an unknown kind,
    option or value (with the nearest known one), an option given twice, and a reference that is missing or not allowed.
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
    if kind in GRADIENT_KINDS:
        ref = _parse_dimension(spec, kind, ref)
    if kind == DECODER:
        ref = _parse_decoder_layer(spec, ref)
    return EncoderSpec(kind, ref, _parse_options(spec, kind, option_texts))


def _parse_dimension(spec: str, kind: str, ref: str) -> str:
    """Dimension of projected gradients; empty: the default."""
    if ref and (not ref.isdecimal() or int(ref) < 1):
        raise UndersongError(f"Encoder {spec!r} cannot be read; write {kind}, or {kind}:DIM with a whole number.")
    return "" if not ref or int(ref) == GRADIENT_DIM else str(int(ref))


def _parse_decoder_layer(spec: str, ref: str) -> str:
    """Layer of the decoder, where 0 is its input; empty: the last."""
    if ref and not ref.isdecimal():
        raise UndersongError(
            f"Encoder {spec!r} cannot be read; write {DECODER}, or {DECODER}:LAYER with a whole number."
        )
    return str(int(ref)) if ref else ""


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
