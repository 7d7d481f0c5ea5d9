"""Names of judges, as studies and verbs spell them: KIND or KIND:REF.  Knows words; makes no judge."""

from __future__ import annotations

CLASSIFIER = "cais/HarmBench-Llama-2-13b-cls"
LLAMA_GUARD = "meta-llama/Llama-Guard-3-8B"
WILDGUARD = "allenai/wildguard"
COST = "PKU-Alignment/beaver-7b-v1.0-cost"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"

PLAIN = ("exact", "keyword", "refusal")  # nothing to load, or what ships
USE = ("choice", "bbh", "contains", "f1", "wer")  # of usefulness, on benign prompts
# Judges that are local models, by what is loaded where the name does not say.
WEIGHTS = {
    "harmbench": CLASSIFIER,
    "llama-guard": LLAMA_GUARD,
    "wildguard": WILDGUARD,
    "cost": COST,
    "refusal+minilm": MINILM,
}
SERVED = ("llm", "strongreject")  # MODEL@URL
# Code of the user's own, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, by what its judge sees.
OWN = {"python": "harm", "python-refusal": "refusal", "python-use": "use"}
SEES_REFUSAL = ("keyword", "refusal", "refusal+minilm", "python-refusal")
KINDS = (*PLAIN, *USE, *WEIGHTS, *SERVED, *OWN)


RATES = {"jsr": "JSR", "non_refusal_rate": "non-refusal rate"}  # of harmful prompts, by what the judge sees


def split_judge(name: str) -> tuple[str, str]:
    """(kind, ref); ValueError for a name that no judge has."""
    kind, _, ref = name.partition(":")
    if kind not in KINDS:
        raise ValueError(f"there is no judge {name!r}; take {', '.join(KINDS)}")
    if kind in (*PLAIN, *USE) and name != kind:
        raise ValueError(f"the judge {kind} takes nothing after it, and not {ref!r}")
    if kind in SERVED and "@" not in ref:
        raise ValueError(f"the judge {name!r} is served: say {kind}:MODEL@URL")
    if kind in OWN and not (ref.rpartition(":")[0] and ref.rpartition(":")[2].isidentifier()):
        raise ValueError(f"the judge {name!r} is code: say {kind}:FILE.py:FUNCTION or {kind}:PACKAGE.MODULE:FUNCTION")
    if name.endswith(":"):
        raise ValueError(f"the judge {name!r} names nothing after the colon")
    return kind, ref


def judge_weights(name: str) -> str:
    """The local model that a judge is, by folder or id; empty: none."""
    kind, ref = split_judge(name)
    return (ref or WEIGHTS[kind]) if kind in WEIGHTS else ""


def judge_kind(name: str) -> str:
    """What a judge can tell, by its name in verdicts: `refusal` (every other reply counts as complying), `use`, or
    `harm`, as which judges that are not ours are taken."""
    kind = name.partition(":")[0]
    return "refusal" if kind in SEES_REFUSAL else "use" if kind in (*USE, "python-use") else "harm"


def judge_code(name: str) -> str:
    """The code of the user's own that a judge is; empty: it is none."""
    kind, ref = split_judge(name)
    return ref if kind in OWN else ""
