"""An encoder's options have one spelling, and what is not understood is named with the nearest known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.encoders.layers import parse_layers
from undersong.encoders.spec import OPTIONS, EncoderSpec, parse_encoder
from undersong.types import UndersongError


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("tfidf", "tfidf"),
        ("internal", "internal"),
        ("internal:tower", "internal:tower"),
        ("whisper:organism:ear", "whisper:organism:ear"),
        ("text", "text:sentence-transformers/all-MiniLM-L6-v2"),
        ("text:some/model,asr=openai/whisper-base", "text:some/model,asr=openai/whisper-base"),
        ("speech:org/m@main,pad=exact,pool=mean,layer=last,dtype=float32", "speech:org/m@main"),
        ("speech:org/m,pool=mean+std,layer=09,pad=bucket", "speech:org/m,layer=9,pad=bucket,pool=mean+std"),
        ("speech:org/m,layer=mix:8+4+6", "speech:org/m,layer=mix:4+6+8"),
        ("speech:org/m,layer=mix:4+5+6", "speech:org/m,layer=mix:4-6"),
        ("speech:org/m,layer=mix:7", "speech:org/m,layer=7"),
        ("speech:/data/a,b/c=d,layer=2", "speech:/data/a,b/c=d,layer=2"),
        ("influence:1024,tokens=10", "influence"),
        ("influence:64,tokens=032,modality=text", "influence:64,modality=text,tokens=32"),
        ("gradient-matching,anchors=5", "gradient-matching,anchors=5"),
        ("decoder:07", "decoder:7"),
        ("refusal,modality=audio", "refusal,modality=audio"),
    ],
)
def test_one_spelling(spec: str, canonical: str) -> None:
    assert parse_encoder(spec).canonical == canonical


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("speach:x", "'speech'"),
        ("speech:x,layr=2", "'layer'"),
        ("speech:x,pool=avg", "mean, mean\\+std, last"),
        ("speech:x,pad=30s", "exact, bucket"),
        ("speech:x,dtype=int8", "float32"),
        ("speech:x,layer=-1", "mix:all"),
        ("speech:x,layer=mix:5-2", "mix:4-8"),
        ("speech:x,layer=mix:3+3", "mix:4-8"),
        ("speech:x,pad=exact,pad=bucket", "twice"),
        ("speech", "speech:REF"),
        ("logmel:x", "logmel alone"),
        ("logmel,pool=mean", "takes none"),
        ("influence:0", "write influence, or influence:DIM"),
        ("influence,anchors=3", "unknown option 'anchors'"),
        ("gradient-matching,tokens=0", "tokens=0 is no whole number above 0"),
        ("decoder:last", "write decoder, or decoder:LAYER"),
        ("refusal:x", "refusal alone"),
        ("refusal,modality=video", "audio, text"),
    ],
)
def test_what_is_not_understood(spec: str, named: str) -> None:
    with pytest.raises(UndersongError, match=named):
        parse_encoder(spec)


LAYERS = st.one_of(
    st.just("last"),
    st.just("mix:all"),
    st.integers(0, 40).map(str),
    st.sets(st.integers(0, 40), min_size=1).map(lambda numbers: "mix:" + "+".join(map(str, numbers))),
)
WRITTEN = st.fixed_dictionaries(
    {},
    optional={
        "layer": LAYERS,
        "pool": st.sampled_from(["mean", "mean+std", "last"]),
        "pad": st.sampled_from(["exact", "bucket"]),
        "dtype": st.sampled_from(["float32", "bfloat16"]),
    },
)


@given(options=WRITTEN, order=st.randoms())
def test_order_and_defaults_do_not_matter_and_values_do(options: dict[str, str], order) -> None:
    parts = list(options.items())
    order.shuffle(parts)
    read = parse_encoder(",".join(["speech:a/b", *(f"{name}={value}" for name, value in parts)]))
    defaults = {name: option.default for name, option in OPTIONS["speech"].items()}
    full = parse_encoder(",".join(["speech:a/b", *(f"{k}={v}" for k, v in {**defaults, **options}.items())]))
    assert read == full == parse_encoder(read.canonical)
    for name, default in defaults.items():
        said = options.get(name, default)
        assert read.option(name) == (parse_layers(said).canonical if name == "layer" else said)


@given(a=LAYERS, b=LAYERS)
def test_layers_are_equal_exactly_when_they_are_the_same_layers(a: str, b: str) -> None:
    def numbers(said: str) -> object:
        if said in ("last", "mix:all"):
            return said
        return frozenset(map(int, said.removeprefix("mix:").split("+")))

    assert (parse_layers(a).canonical == parse_layers(b).canonical) == (numbers(a) == numbers(b))
    assert parse_layers(parse_layers(a).canonical) == parse_layers(a)


def test_a_spec_without_options_is_its_kind_and_reference() -> None:
    assert EncoderSpec("speech", "x").canonical == "speech:x"


@pytest.mark.parametrize(
    ("spec", "hears"),
    [("tfidf", False), ("text", False), ("text:a/b,asr=c/d", True), ("logmel", True), ("speech:a/b", True)],
)
def test_what_needs_the_audio(spec: str, hears: bool) -> None:
    assert parse_encoder(spec).needs_audio is hears
