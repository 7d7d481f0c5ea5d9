"""Comprehension of harmful requests by a model: what it repeats of them, and whether its replies are about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from undersong.stages.context import Corpus, RunContext
from undersong.stages.replies import PromptSetRequest, in_reply_order, request_prompts
from undersong.store import Artifact, Draft
from undersong.study import ComprehensionSettings
from undersong.types import Encoder

COMPREHENSION_FILE = "comprehension.parquet"


@dataclass
class ReplyEncoder:
    """The encoder of a study's replies, loaded when it is first needed; `fit`: the harmful sets, for those that fit."""

    config: ComprehensionSettings
    fit_corpora: Sequence[Corpus]
    device: str = "cpu"

    @cached_property
    def encoder(self) -> Encoder:
        """Of the study's `comprehension.encoder`; one that fits is fitted on all harmful sets together."""
        from undersong.encoders import make_encoder

        samples = [sample for corpus in self.fit_corpora for sample in corpus.samples]
        return make_encoder(self.config.encoder, fit=samples, device=self.device)

    @property
    def inputs(self) -> dict[str, Artifact | str]:
        """What its vectors depend on."""
        from undersong.encoders.registry import ENCODERS_THAT_FIT, encoder_weights_hash
        from undersong.encoders.spec import parse_encoder

        encoder_spec = parse_encoder(self.config.encoder)
        is_fitted = encoder_spec.kind in ENCODERS_THAT_FIT
        fit_inputs = {
            f"fit{number}": corpus.artifact for number, corpus in enumerate(self.fit_corpora if is_fitted else ())
        }
        weights = encoder_weights_hash(encoder_spec)
        return {**({"weights": weights} if weights else {}), **fit_inputs}


def evaluate_comprehension(
    ctx: RunContext,
    reply_encoder: ReplyEncoder,
    requests: Sequence[PromptSetRequest],
    replies: Artifact,
    verdicts: Artifact,
    repeat_requests: Sequence[PromptSetRequest],
    repetitions: Artifact | None,
) -> Artifact:
    """`asked` and its `replies` and `verdicts`; `repeating` and what was `repeated`, None where nothing is spoken."""
    settings = reply_encoder.config

    def make(draft: Draft) -> None:
        from undersong.evaluation.comprehension import measure_prompt_comprehension, write_comprehension
        from undersong.evaluation.replies import read_replies
        from undersong.evaluation.verdicts import read_verdicts

        reply_list = read_replies(replies.verify().path / "replies.parquet")
        verdict_list = read_verdicts(verdicts.verify().path / "verdicts.parquet")
        exchanges = list(zip(request_prompts(in_reply_order(requests)), reply_list, verdict_list, strict=True))
        repeated_replies = [] if repetitions is None else read_replies(repetitions.verify().path / "replies.parquet")
        repeated_exchanges = list(zip(request_prompts(in_reply_order(repeat_requests)), repeated_replies, strict=True))
        with draft.file(COMPREHENSION_FILE) as path:
            write_comprehension(
                measure_prompt_comprehension(exchanges, repeated_exchanges, settings, lambda: reply_encoder.encoder),
                path,
            )

    config = {
        "encoder": settings.encoder,
        "level": settings.relevance_level,
        "word_error_rate": settings.max_wer,
        "sets": [request.key for request in in_reply_order(requests)],
    }
    inputs: dict[str, Artifact | str] = {"replies": replies, "verdicts": verdicts, **reply_encoder.inputs}
    inputs |= {f"corpus:{request.set_name}": request.corpus.artifact for request in requests if request.harmful}
    if repetitions is not None:
        inputs["repeated"] = repetitions
    return ctx.store.get_or_make("comprehension", 1, config, inputs, make)
