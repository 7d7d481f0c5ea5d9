"""Judge names as studies and commands spell them (KIND or KIND:REF), and what each kind of judge measures.

Imports only the defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from undersong.settings.defaults import ORGANISM_PREFIX

Criterion = Literal["harm", "refusal", "utility"]

HARMBENCH_CLASSIFIER = "cais/HarmBench-Llama-2-13b-cls"
LLAMA_GUARD = "meta-llama/Llama-Guard-3-8B"
WILDGUARD = "allenai/wildguard"
COST_MODEL = "PKU-Alignment/beaver-7b-v1.0-cost"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"

BUILT_IN_KINDS = ("exact", "keyword", "refusal", "voicebench")  # nothing to load, or what ships
UTILITY_KINDS = ("choice", "bbh", "contains", "f1", "wer")  # of usefulness, on benign prompts
# Judges that are local models, with the model that is loaded if the name has none.
DEFAULT_WEIGHTS = {
    "harmbench": HARMBENCH_CLASSIFIER,
    "llama-guard": LLAMA_GUARD,
    "wildguard": WILDGUARD,
    "cost": COST_MODEL,
    "refusal+minilm": MINILM,
}
SERVED_KINDS = ("llm", "strongreject")  # MODEL@URL
# Code of the user's own, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, by what its judge sees.
CUSTOM_KINDS = {"python": "harm", "python-refusal": "refusal", "python-utility": "utility"}
REFUSAL_KINDS = ("keyword", "refusal", "refusal+minilm", "voicebench", "python-refusal")
JUDGE_KINDS = (*BUILT_IN_KINDS, *UTILITY_KINDS, *DEFAULT_WEIGHTS, *SERVED_KINDS, *CUSTOM_KINDS)


# labels of the rates, by metric: of harmful prompts by what the judge sees, of benign prompts the last
RATE_LABELS = {"jsr": "JSR", "non_refusal_rate": "non-refusal rate", "refusal_rate": "refusal rate"}

# what they are, for those who meet them first in a terminal
RATE_GLOSSES = {
    "jsr": "JSR: jailbreak success rate, the share of harmful prompts that the judge calls answered",
    "non_refusal_rate": "The judge sees refusals and not harm, so this is no jailbreak success rate (JSR)",
    "refusal_rate": "Refusal rate: the share of benign prompts that the model refused",
}


def default_judge(models: Iterable[str], refusal_texts: Collection[str] = ()) -> str:
    """Return the judge of studies and commands that name none.

    Args:
        models: References of the models that reply. Packaged organisms refuse word for word, which `exact` knows.
        refusal_texts: Refusals of other models, if the user gave them; `exact` knows these, too.
    """
    is_exact = bool(refusal_texts) or all(model.startswith(ORGANISM_PREFIX) for model in models)
    # Of the judges that need nothing but the package, keywords do best on models that none was made from
    # (data/refusal/CARD.md).  What happens to be installed does not matter: both sides of a comparison need one judge.
    return "exact" if is_exact else "keyword"


def split_judge(name: str) -> tuple[str, str]:
    """(kind, ref); ValueError for a name that no judge has."""
    kind, _, ref = name.partition(":")
    if kind not in JUDGE_KINDS:
        raise ValueError(f"there is no judge {name!r}; take {', '.join(JUDGE_KINDS)}")
    if kind in (*BUILT_IN_KINDS, *UTILITY_KINDS) and name != kind:
        raise ValueError(f"the judge {kind} takes nothing after it, and not {ref!r}")
    if kind in SERVED_KINDS and "@" not in ref:
        raise ValueError(f"the judge {name!r} is served: say {kind}:MODEL@URL")
    if kind in CUSTOM_KINDS and not (ref.rpartition(":")[0] and ref.rpartition(":")[2].isidentifier()):
        raise ValueError(f"the judge {name!r} is code: say {kind}:FILE.py:FUNCTION or {kind}:PACKAGE.MODULE:FUNCTION")
    if name.endswith(":"):
        raise ValueError(f"the judge {name!r} names nothing after the colon")
    return kind, ref


def judge_weights(name: str) -> str:
    """Return the folder or id of the local model that a judge uses; empty if it uses none."""
    kind, ref = split_judge(name)
    return (ref or DEFAULT_WEIGHTS[kind]) if kind in DEFAULT_WEIGHTS else ""


def judge_criterion(name: str) -> Criterion:
    """Return what a judge measures, by its name in verdicts.

    A judge of `refusal` counts every other reply as compliance. Custom judges are taken as judges of `harm`.
    """
    kind = name.partition(":")[0]
    return "refusal" if kind in REFUSAL_KINDS else "utility" if kind in (*UTILITY_KINDS, "python-utility") else "harm"


def judge_code(name: str) -> str:
    """Return the reference of the user's code that a judge runs; empty if it runs none."""
    kind, ref = split_judge(name)
    return ref if kind in CUSTOM_KINDS else ""
