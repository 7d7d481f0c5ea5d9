"""What was heard of harmful requests and what the replies are about, from replies, repetitions and verdicts.

Knows artefacts; the words of replies and repetitions stay in theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from undersong.pipeline.stages.answers import Asked, in_order, prompts_of
from undersong.pipeline.workshop import Corpus, Workshop
from undersong.store import Artefact, Draft
from undersong.study import Comprehension
from undersong.types import Encoder

FILE = "comprehension.parquet"


@dataclass
class Reader:
    """The encoder of a study's replies, loaded when it is first needed; `fit`: the harmful sets, for those that fit."""

    how: Comprehension
    fit: Sequence[Corpus]
    device: str = "cpu"

    @cached_property
    def encoder(self) -> Encoder:
        """Of the study's `comprehension.encoder`; one that fits is fitted on all harmful sets together."""
        from undersong.encoders import make_encoder

        samples = [sample for corpus in self.fit for sample in corpus.samples]
        return make_encoder(self.how.encoder, fit=samples, device=self.device)

    @property
    def inputs(self) -> dict[str, Artefact | str]:
        """What its vectors depend on."""
        from undersong.encoders import ENCODERS_THAT_FIT
        from undersong.encoders.options import parse_encoder
        from undersong.encoders.weights import encoder_weights_hash

        read = parse_encoder(self.how.encoder)
        fits = read.kind in ENCODERS_THAT_FIT
        fitted = {f"fit{number}": corpus.artefact for number, corpus in enumerate(self.fit if fits else ())}
        weights = encoder_weights_hash(read)
        return {**({"weights": weights} if weights else {}), **fitted}


def comprehension(
    shop: Workshop,
    reader: Reader,
    asked: Sequence[Asked],
    replies: Artefact,
    verdicts: Artefact,
    repeating: Sequence[Asked],
    repeated: Artefact | None,
) -> Artefact:
    """`asked` and its `replies` and `verdicts`; `repeating` and what was `repeated`, None where nothing is spoken."""
    how = reader.how

    def make(draft: Draft) -> None:
        from undersong.evaluation.comprehension.measured import comprehended
        from undersong.evaluation.comprehension.table import write_comprehension
        from undersong.evaluation.replies import read_replies
        from undersong.evaluation.verdicts import read_verdicts

        answers = read_replies(replies.checked().path / "replies.parquet")
        judged = read_verdicts(verdicts.checked().path / "verdicts.parquet")
        said = list(zip(prompts_of(in_order(asked)), answers, judged, strict=True))
        back = [] if repeated is None else read_replies(repeated.checked().path / "replies.parquet")
        spoken = list(zip(prompts_of(in_order(repeating)), back, strict=True))
        with draft.file(FILE) as path:
            write_comprehension(comprehended(said, spoken, how, lambda: reader.encoder), path)

    config = {
        "encoder": how.encoder,
        "level": how.level,
        "word_error_rate": how.word_error_rate,
        "sets": [one.key for one in in_order(asked)],
    }
    inputs: dict[str, Artefact | str] = {"replies": replies, "verdicts": verdicts, **reader.inputs}
    inputs |= {f"corpus:{one.set}": one.corpus.artefact for one in asked if one.harmful}
    if repeated is not None:
        inputs["repeated"] = repeated
    return shop.store.get_or_make("comprehension", 1, config, inputs, make)
