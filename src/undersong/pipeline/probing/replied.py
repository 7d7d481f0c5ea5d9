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
    from undersong.pipeline.probing.asked import Sides
    from undersong.types import Reply, Verdict


@dataclass(frozen=True)
class Replied:
    """What was said to a set of prompts, and the verdicts on it, in the same order."""

    replies: list[Reply]
    verdicts: list[Verdict]

    @property
    def refused(self) -> list[bool]:
        """Whether each reply is a refusal, in order; one that failed or could not be judged is not."""
        return [verdict.verdict == "refusal" for verdict in self.verdicts]

    @property
    def rate(self) -> dict[str, Any]:
        """The entry of `sets` of results.json, without what is the same for all."""
        (entry,) = set_rates(self.verdicts, {}, [reply.finish for reply in self.replies])
        return {key: value for key, value in entry.items() if key not in ("by_speaker", "system", "judge_kind")}


@dataclass(frozen=True)
class Asking:
    """Who judges, and how long a reply may be."""

    judge: Judge
    limit: int

    def ask(
        self, model: AudioModel, prompts: Sequence[Prompt], under: AbstractContextManager[None] | None = None
    ) -> Replied:
        """Greedy replies while `under` (hooks on the decoder) holds, and what the judge says of them."""
        with under if under is not None else nullcontext():
            replies = model.generate(prompts, self.limit)
        return Replied(replies, self.judge.judge(prompts, replies))

    def rated(self, model: AudioModel, sides: Sides) -> dict[str, float]:
        """`jsr` of the harmful prompts; `over_refusal` and `answered` of the harmless, where there are any."""
        verdicts = [one.verdict for one in self.ask(model, sides.both).verdicts]
        harmful, harmless = verdicts[: len(sides.harmful)], verdicts[len(sides.harmful) :]
        found = {"jsr": harmful.count("jailbreak") / len(harmful)}
        words = {"over_refusal": "refusal", "answered": "answer"} if harmless else {}
        return found | {name: harmless.count(word) / len(harmless) for name, word in words.items()}
