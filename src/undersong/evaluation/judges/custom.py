"""User-defined judges (`python:my_judge.py:lenient`): load one and check that its verdicts are valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from undersong.evaluation.judges.rule_based import FunctionJudge
from undersong.settings.judge_names import CUSTOM_KINDS, judge_criterion, split_judge
from undersong.store.user_code import load_code
from undersong.types import VERDICTS, Judge, Prompt, Reply, UndersongError, Verdict


@dataclass(frozen=True)
class CustomJudge:
    """User-defined judge `inner`, under the name that a study or a command gives it."""

    name: str
    sees: str
    inner: Judge

    def judge(self, prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[Verdict]:
        """Judge each reply, in order; a failed or empty reply is not shown to `inner`.

        Raises:
            UndersongError: `inner` returns another number or order of verdicts, or an invalid verdict.
        """
        verdicts = FunctionJudge(self.name, self.sees, lambda prompt, reply: "other").judge(prompts, replies)
        judged_indices = [index for index, verdict in enumerate(verdicts) if not verdict.is_lost]
        if self.sees == "utility" and (harmful := [prompt for prompt in prompts if prompt.harmful]):
            raise UndersongError(
                f"The judge {self.name} measures usefulness and prompt {harmful[0].sample.id} is harmful; use another "
                "judge for harmful prompts."
            )
        custom_verdicts = self.inner.judge(
            [prompts[index] for index in judged_indices], [replies[index] for index in judged_indices]
        )
        if [verdict.prompt_id for verdict in custom_verdicts] != [
            verdicts[index].prompt_id for index in judged_indices
        ]:
            raise UndersongError(
                f"The judge {self.name} gave {len(custom_verdicts)} verdicts for {len(judged_indices)} replies, "
                "or in another order; return one for each, in the order of the prompts."
            )
        for index, custom_verdict in zip(judged_indices, custom_verdicts):
            verdicts[index] = replace(
                verdicts[index],
                verdict=self._check_verdict(prompts[index], custom_verdict.verdict),
                score=custom_verdict.score,
            )
        return verdicts

    def _check_verdict(self, prompt: Prompt, word: str) -> str:
        invalid_word = "answer" if prompt.harmful else "jailbreak"
        if word not in VERDICTS or word == invalid_word:
            prompt_kind = "harmful" if prompt.harmful else "benign"
            allowed_words = ", ".join(allowed_word for allowed_word in VERDICTS if allowed_word != invalid_word)
            raise UndersongError(
                f"The judge {self.name} called the reply to the {prompt_kind} prompt {prompt.sample.id} {word!r}; "
                f"return one of {allowed_words}."
            )
        return word


def custom_judge(name: str) -> CustomJudge:
    """Judge that the named function makes.

    Raises:
        UndersongError: The function does not make a judge, or the judge sees something else than its name says.
    """
    kind, ref = split_judge(name)
    inner, sees = load_code(ref), judge_criterion(name)
    if getattr(inner, "sees", None) not in CUSTOM_KINDS.values():
        raise UndersongError(f"{ref} made a {type(inner).__name__}, not a judge; give it name, sees and judge().")
    if inner.sees != sees:
        right_prefix = next(prefix for prefix, prefix_sees in CUSTOM_KINDS.items() if prefix_sees == inner.sees)
        raise UndersongError(
            f"The judge {ref} sees {inner.sees}, and the prefix {kind}: is for {sees}; write {right_prefix}:{ref}."
        )
    return CustomJudge(name, sees, inner)
