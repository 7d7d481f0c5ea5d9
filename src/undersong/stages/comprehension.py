"""Comprehension of harmful requests by a model: what it repeats of them, and whether its replies are about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from undersong.settings.evaluation import ComprehensionSettings
from undersong.stages.context import Corpus, RunContext
from undersong.stages.prompt_sets import PromptSetRequest, in_reply_order
from undersong.stages.replies import read_exchanges
from undersong.store.draft import Draft
from undersong.store.store import Artifact
from undersong.types import Encoder

COMPREHENSION_FILE = "comprehension.parquet"


@dataclass
class ReplyEncoder:
    """Text encoder of a study's comprehension check, loaded on first use.

    `fit_corpora` are the harmful sets that it may be fitted on.
    """

    config: ComprehensionSettings
    fit_corpora: Sequence[Corpus]
    device: str = "cpu"

    @cached_property
    def encoder(self) -> Encoder:
        """Encoder of the study's `comprehension.encoder`; one that needs fitting is fitted on all harmful sets
        together."""
        from undersong.encoders.registry import make_encoder

        samples = [sample for corpus in self.fit_corpora for sample in corpus.samples]
        return make_encoder(self.config.encoder, fit=samples, device=self.device)

    @property
    def inputs(self) -> dict[str, Artifact | str]:
        """Cache-key inputs that its vectors depend on."""
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
    """Artifact with the comprehension of every harmful prompt.

    Args:
        ctx: The run context.
        reply_encoder: Text encoder and settings.
        requests: Prompt sets of the replies.
        replies: Their replies.
        verdicts: Their verdicts.
        repeat_requests: Prompt sets of the repetitions.
        repetitions: Replies to them; None if no prompt is spoken.
    """
    settings = reply_encoder.config

    def make(draft: Draft) -> None:
        from undersong.evaluation.comprehension import measure_prompt_comprehension, write_comprehension
        from undersong.evaluation.verdicts import read_verdicts

        verdict_by_key = {verdict.key: verdict for verdict in read_verdicts(verdicts.path / "verdicts.parquet")}
        judged = [(prompt, reply, verdict_by_key[reply.key]) for prompt, reply in read_exchanges(replies, requests)]
        repeated = [] if repetitions is None else read_exchanges(repetitions, repeat_requests)
        rows = measure_prompt_comprehension(judged, repeated, settings, lambda: reply_encoder.encoder)
        with draft.file(COMPREHENSION_FILE) as path:
            write_comprehension(rows, path)

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
