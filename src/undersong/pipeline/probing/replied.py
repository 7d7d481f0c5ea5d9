"""Whole replies of a model that is being changed, judged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from undersong.pipeline.results.rates import set_rates
from undersong.types import Judge, Prompt

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel
    from undersong.pipeline.probing.asked import ContrastPrompts
    from undersong.types import Reply, Verdict


@dataclass(frozen=True)
class JudgedReplies:
    """What was said to a set of prompts, and the verdicts on it, in the same order."""

    replies: list[Reply]
    verdicts: list[Verdict]

    @property
    def refused(self) -> list[bool]:
        """Whether each reply is a refusal, in order; one that failed or could not be judged is not."""
        return [verdict.verdict == "refusal" for verdict in self.verdicts]

    @property
    def rate_entry(self) -> dict[str, Any]:
        """The entry of `sets` of results.json, without what is the same for all."""
        (entry,) = set_rates(self.verdicts, {}, [reply.finish for reply in self.replies])
        return {key: value for key, value in entry.items() if key not in ("by_speaker", "system", "judge_kind")}


@dataclass(frozen=True)
class ReplyEvaluator:
    """Who judges, and how long a reply may be."""

    judge: Judge
    max_new_tokens: int

    def evaluate(
        self, model: AudioModel, prompts: Sequence[Prompt], intervention: AbstractContextManager[None] | None = None
    ) -> JudgedReplies:
        """Greedy replies while `under` (hooks on the decoder) holds, and what the judge says of them."""
        with intervention if intervention is not None else nullcontext():
            replies = model.generate(prompts, self.max_new_tokens)
        return JudgedReplies(replies, self.judge.judge(prompts, replies))

    def measure_rates(self, model: AudioModel, prompts: ContrastPrompts) -> dict[str, float]:
        """`jsr` of the harmful prompts; `over_refusal` and `answered` of the harmless, where there are any."""
        verdicts = [verdict.verdict for verdict in self.evaluate(model, prompts.all_prompts).verdicts]
        harmful, benign = verdicts[: len(prompts.harmful)], verdicts[len(prompts.harmful) :]
        rates = {"jsr": harmful.count("jailbreak") / len(harmful)}
        benign_verdicts = {"over_refusal": "refusal", "answered": "answer"} if benign else {}
        return rates | {name: benign.count(word) / len(benign) for name, word in benign_verdicts.items()}
