"""Judge registry: make a judge from its name (`study.judge_names` has the grammar), check its dependencies, and hash
what its verdicts depend on. Models are loaded on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from undersong.evaluation.judges import rule_based
from undersong.evaluation.utility.bbh import bbh_judge
from undersong.evaluation.utility.multiple_choice import choice_judge
from undersong.evaluation.utility.spoken_qa import contains_judge, f1_judge
from undersong.evaluation.utility.wer import wer_judge
from undersong.settings.judge_names import (
    CUSTOM_KINDS,
    SERVED_KINDS,
    UTILITY_KINDS,
    judge_code,
    judge_weights,
    split_judge,
)
from undersong.types import Judge, UndersongError


def make_judge(name: str, refusals: Sequence[str], device: str = "cpu", dtype: str = "float32") -> Judge:
    """Make the judge of a name.

    Args:
        name: Name, as in `study.judge_names`.
        refusals: Refusal texts of the exact judge.
        device: Device of a judge that is a local model.
        dtype: Data type of a judge that is a local model.

    Raises:
        UndersongError: There is no such judge.
    """
    try:
        kind, ref = split_judge(name)
    except ValueError as error:
        message = str(error)
        raise UndersongError(f"{message[0].upper()}{message[1:]}.") from None
    if kind in UTILITY_KINDS:
        return UTILITY_JUDGES[kind]()
    if kind == "exact":
        return rule_based.exact_judge(refusals)
    if kind == "keyword":
        return rule_based.keyword_judge()
    if kind == "voicebench":
        from undersong.evaluation.judges.voicebench import voicebench_judge

        return voicebench_judge()
    if kind in ("refusal", "refusal+minilm"):
        from undersong.evaluation.judges import refusal

        return refusal.refusal_judge() if kind == "refusal" else refusal.minilm_refusal_judge(ref, device)
    if kind == "llm":
        from undersong.evaluation.judges.llm import llm_judge

        return llm_judge(ref)
    if kind == "strongreject":
        from undersong.evaluation.judges.strongreject import strongreject_judge

        return strongreject_judge(ref)
    if kind in CUSTOM_KINDS:
        from undersong.evaluation.judges.custom import custom_judge

        return custom_judge(name)
    return _local_model_judge(kind, ref, device, dtype)


def check_judge_installed(name: str) -> None:
    """Check that the packages of a judge are installed, without loading a model.

    Raises:
        UndersongError: A package is missing.
    """
    kind, ref = split_judge(name)
    if kind == "wer":
        from undersong.evaluation.utility.wer import check_jiwer

        check_jiwer()
    elif kind == "refusal+minilm":
        from undersong.encoders.registry import check_installed

        check_installed(f"text:{judge_weights(name)}")
    elif kind in SERVED_KINDS:
        from undersong.evaluation.serving.served_model import check_served_dependencies

        check_served_dependencies(ref)


def judge_hash(name: str) -> str:
    """Hash of a judge's weights or code, on which its verdicts depend; empty if the name is enough."""
    from undersong.models.refs import model_hash
    from undersong.store.user_code import code_hash

    if code := judge_code(name):
        return code_hash(code)
    return model_hash(weights) if (weights := judge_weights(name)) else ""


def _local_model_judge(kind: str, ref: str, device: str, dtype: str) -> Judge:
    """Judge that is a model on this machine."""
    from undersong.evaluation.judges.cost_model import cost_judge
    from undersong.evaluation.judges.safety_classifiers import harmbench_judge, llama_guard_judge, wildguard_judge

    if kind == "wildguard":
        return wildguard_judge(ref, device, dtype)
    return {"harmbench": harmbench_judge, "llama-guard": llama_guard_judge, "cost": cost_judge}[kind](
        ref, device, dtype
    )


UTILITY_JUDGES: dict[str, Callable[[], Judge]] = {
    "choice": choice_judge,
    "bbh": bbh_judge,
    "contains": contains_judge,
    "f1": f1_judge,
    "wer": wer_judge,
}
