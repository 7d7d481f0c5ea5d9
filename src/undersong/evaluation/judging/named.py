"""A judge by its name (`study.judges` has the grammar).  What is heavy is loaded when the judge is first asked."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.evaluation.judging import plain
from undersong.study.judges import OWN, SERVED, USE, judge_code, judge_weights, split_judge
from undersong.types import Judge, UndersongError


def make_judge(name: str, refusals: Sequence[str], device: str = "cpu", dtype: str = "float32") -> Judge:
    """`refusals`: of the exact judge; `device` and `dtype`: of one that is a local model.

    Raises UndersongError for a name that no judge has.
    """
    try:
        kind, ref = split_judge(name)
    except ValueError as error:
        said = str(error)
        raise UndersongError(f"{said[0].upper()}{said[1:]}.") from None
    if kind in USE:
        from undersong.evaluation.usefulness.named import utility_judges

        return utility_judges[kind]()
    if kind == "exact":
        return plain.exact(refusals)
    if kind == "keyword":
        return plain.keyword()
    if kind in ("refusal", "refusal+minilm"):
        from undersong.evaluation.judging import refusal

        return refusal.refusal() if kind == "refusal" else refusal.refusal_minilm(ref, device)
    if kind == "llm":
        from undersong.evaluation.judging.asked import asked_judge

        return asked_judge(ref)
    if kind == "strongreject":
        from undersong.evaluation.judging.strongreject import strongreject

        return strongreject(ref)
    if kind in OWN:
        from undersong.evaluation.judging.own import own_judge

        return own_judge(name)
    return _local(kind, ref, device, dtype)


def check_judge_installed(name: str) -> None:
    """Raises UndersongError where a package that the judge needs is not here; loads no model."""
    kind, ref = split_judge(name)
    if kind == "wer":
        from undersong.evaluation.usefulness.words import check_jiwer

        check_jiwer()
    elif kind == "refusal+minilm":
        from undersong.encoders import check_installed

        check_installed(f"text:{judge_weights(name)}")
    elif kind in SERVED:
        from undersong.evaluation.serving.engine import check_served

        check_served(ref)


def judge_hash(name: str) -> str:
    """What a judge's verdicts depend on beside its name and this package: its weights, or code; empty: nothing."""
    from undersong.models.folders import model_hash
    from undersong.store.code import code_hash

    if code := judge_code(name):
        return code_hash(code)
    return model_hash(weights) if (weights := judge_weights(name)) else ""


def _local(kind: str, ref: str, device: str, dtype: str) -> Judge:
    """A judge that is a model on this machine."""
    from undersong.evaluation.judging.cost import cost
    from undersong.evaluation.judging.guards import llama_guard, wildguard
    from undersong.evaluation.judging.harmbench import harmbench

    if kind == "wildguard":
        return wildguard(ref, device, dtype)
    return {"harmbench": harmbench, "llama-guard": llama_guard, "cost": cost}[kind](ref, device, dtype)
