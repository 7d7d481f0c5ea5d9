"""A judge of the user's own (`python:my_judge.py:lenient`), held to what every judge promises.

Only its word and its score are taken: whose verdict it is, of which prompt and in which cluster, is known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from undersong.evaluation.judging.plain import FunctionJudge
from undersong.store.code import load_code
from undersong.study.judges import OWN, judge_kind, split_judge
from undersong.types import VERDICTS, Judge, Prompt, Reply, UndersongError, Verdict


@dataclass(frozen=True)
class OwnJudge:
    """`inner` under the name that a study or a command gives it."""

    name: str
    sees: str
    inner: Judge

    def judge(self, prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[Verdict]:
        """One verdict a reply, in order; a reply that failed is an `error` and is not shown to `inner`.

        Raises UndersongError where `inner` gives another number of verdicts, another order, or a word that is none.
        """
        blank = FunctionJudge(self.name, self.sees, lambda prompt, said: "other").judge(prompts, replies)
        shown = [place for place, verdict in enumerate(blank) if verdict.verdict != "error"]
        if self.sees == "use" and (harmful := [one for one in prompts if one.harmful]):
            raise UndersongError(
                f"The judge {self.name} measures usefulness and prompt {harmful[0].sample.id} is harmful; take another "
                "judge for harmful prompts."
            )
        given = self.inner.judge([prompts[place] for place in shown], [replies[place] for place in shown])
        if [one.prompt_id for one in given] != [blank[place].prompt_id for place in shown]:
            raise UndersongError(
                f"The judge {self.name} gave {len(given)} verdicts for {len(shown)} replies, or in another order; give "
                "one for each, in the order of the prompts."
            )
        for place, one in zip(shown, given):
            blank[place] = replace(blank[place], verdict=self._word(prompts[place], one.verdict), score=one.score)
        return blank

    def _word(self, prompt: Prompt, word: str) -> str:
        wrong = "answer" if prompt.harmful else "jailbreak"
        if word not in VERDICTS or word == wrong:
            asked = "harmful" if prompt.harmful else "benign"
            known = ", ".join(one for one in VERDICTS if one != wrong)
            raise UndersongError(
                f"The judge {self.name} called the reply to the {asked} prompt {prompt.sample.id} {word!r}; take one "
                f"of {known}."
            )
        return word


def own_judge(name: str) -> OwnJudge:
    """The judge that the named function makes.  Raises UndersongError where it sees something else than its name."""
    kind, ref = split_judge(name)
    inner, sees = load_code(ref), judge_kind(name)
    if getattr(inner, "sees", None) not in OWN.values():
        raise UndersongError(f"{ref} made no judge but a {type(inner).__name__}; give it name, sees and judge().")
    if inner.sees != sees:
        right = next(one for one, what in OWN.items() if what == inner.sees)
        raise UndersongError(f"The judge {ref} sees {inner.sees}, and {kind}: is of {sees}; write {right}:{ref}.")
    return OwnJudge(name, sees, inner)
