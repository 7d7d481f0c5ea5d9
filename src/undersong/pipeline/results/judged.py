"""How far judges agree on the same replies: `judges` of results.json.  Knows verdicts; holds no reply.

Compared is what a rate counts: jailbreak or not on harmful prompts, refusal or not on benign ones.  Judges see
different things (one harm, one refusals only), so their other words mean different things.  A reply that failed, or
that a judge gave no verdict on, is left out and counted: that both judges were told nothing is no agreement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from undersong.pipeline.records import AuditRecord, RunRecord
from undersong.statistics import kappa_interval
from undersong.types import Verdict

LISTED = 50  # disagreements that are listed; all are counted
SILENT = ("error", "unparsed")  # verdicts that say nothing of a reply


def judge_entries(record: AuditRecord, verdicts: Mapping[str, Sequence[Verdict]]) -> list[dict[str, Any]]:
    """One entry a further judge and prompt set: over all runs, clustered by behaviour within a base's set."""
    runs = [run for model in record.models for run in model.runs]
    return [
        _entry(record.study.evaluation.judge, judge, name, _pairs(runs, judge, name, verdicts))
        for judge in record.study.evaluation.also
        for name in record.sets
        if record.study.sets[name].judge is None  # else one judge called both
    ]


def _pairs(
    runs: Sequence[RunRecord], judge: str, name: str, verdicts: Mapping[str, Sequence[Verdict]]
) -> list[tuple[RunRecord, Verdict, Verdict]]:
    out = []
    for run in runs:
        theirs = verdicts[dict(run.also)[judge].hash]
        pairs = zip(verdicts[run.verdicts.hash], theirs, strict=True)
        out += [(run, one, other) for one, other in pairs if one.set == name]
    return out


def _entry(first: str, second: str, name: str, every: Sequence[tuple[RunRecord, Verdict, Verdict]]) -> dict[str, Any]:
    counted = "jailbreak" if every and every[0][1].harmful else "refusal"
    pairs = [(run, one, other) for run, one, other in every if not {one.verdict, other.verdict} & set(SILENT)]
    a, b = [one.verdict == counted for _, one, _ in pairs], [other.verdict == counted for _, _, other in pairs]
    clusters = [f"{one.modality} {one.cluster}" for _, one, _ in pairs]
    found = kappa_interval(a, b, clusters) if pairs else None
    said_by_both = Counter((one.verdict, other.verdict) for _, one, other in every)
    apart = [pair for pair, x, y in zip(pairs, a, b) if x != y]
    return {
        "a": first,
        "b": second,
        "set": name,
        "counted": counted,
        "n": len(pairs),
        "left_out": len(every) - len(pairs),
        "clusters": len(set(clusters)),
        "both": sum(x and y for x, y in zip(a, b)),
        "only_a": sum(x and not y for x, y in zip(a, b)),
        "only_b": sum(y and not x for x, y in zip(a, b)),
        "neither": sum(not x and not y for x, y in zip(a, b)),
        "kappa": None if found is None else asdict(found),
        "words": [[*said, count] for said, count in sorted(said_by_both.items())],
        "disagreements": [
            {
                "arm": run.arm.name,
                "seed": run.arm.seed,
                "step": run.step,
                "prompt_id": one.prompt_id,
                "modality": one.modality,
                "system": one.system,
                "a": one.verdict,
                "b": other.verdict,
            }
            for run, one, other in apart[:LISTED]
        ],
    }
