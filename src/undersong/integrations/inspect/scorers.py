"""Undersong's judges as scorers of inspect_ai: `undersong/keyword`, `undersong/harmbench` and so on, by kind.

What is heavy is loaded when the first reply is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from undersong.integrations.inspect.metrics import rates
from undersong.integrations.inspect.samples import prompt_of_sample, reply_of_output
from undersong.integrations.inspect.scores import score_of
from undersong.study.judge_names import JUDGE_KINDS, SERVED_KINDS, split_judge
from undersong.types import UndersongError

MAX_CONCURRENT_REQUESTS = 8  # questions to a judge behind an address; a local one is asked one by one


def _register_scorer(kind: str) -> Callable[..., Scorer]:
    @scorer(metrics=[rates()], name=kind)
    def make(
        ref: str = "",
        refusals: list[str] | None = None,
        harmful: bool = True,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Scorer:
        from undersong.evaluation.judges.registry import make_judge

        judge = make_judge(f"{kind}:{ref}" if ref else kind, tuple(refusals or ()), device, dtype)
        limiter = anyio.CapacityLimiter(MAX_CONCURRENT_REQUESTS if kind in SERVED_KINDS else 1)

        async def score(state: TaskState, target: Target) -> Score:
            prompt = prompt_of_sample(str(state.sample_id), state.metadata, state.input_text, list(target), harmful)
            reply = reply_of_output(prompt, state.output)
            (verdict,) = await anyio.to_thread.run_sync(judge.judge, [prompt], [reply], limiter=limiter)
            return score_of(verdict, reply.reply)

        return score

    return make


SCORERS = {kind: _register_scorer(kind) for kind in JUDGE_KINDS}


def make_scorer(judge: str, **options: Any) -> Scorer:
    """The scorer of a judge's name as verbs spell it: `keyword`, `harmbench:REF`.

    `options`: refusals (of exact), harmful (what prompts are whose metadata does not say), device and dtype.
    """
    try:
        kind, ref = split_judge(judge)
    except ValueError as error:
        message = str(error)
        raise UndersongError(f"{message[0].upper()}{message[1:]}.") from None
    return SCORERS[kind](ref, **options)
