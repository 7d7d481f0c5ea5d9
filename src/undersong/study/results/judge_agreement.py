"""Agreement of judges on the same replies. Replies that failed or got no verdict are left out and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from undersong.results.schema_base import ValueWithInterval
from undersong.results.schema_outcomes import JudgeAgreement, JudgeDisagreement, VerdictPairCount
from undersong.statistics.agreement import kappa_interval
from undersong.study.results.records import AuditRecord, RunRecord
from undersong.types import Verdict

MAX_DISAGREEMENTS = 50  # disagreements that are listed; all are counted


def judge_agreement_records(record: AuditRecord, verdicts: Mapping[str, Sequence[Verdict]]) -> list[JudgeAgreement]:
    """Compute one record a further judge and prompt set: over all runs, clustered by behavior within a base's set."""
    runs = [run for model in record.models for run in model.runs]
    return [
        _judge_agreement(record.study.evaluation.judge, judge, name, _verdict_pairs(runs, judge, name, verdicts))
        for judge in record.study.evaluation.extra_judges
        for name in record.sets
        if record.study.prompt_sets[name].judge is None  # else one judge called both
    ]


def _verdict_pairs(
    runs: Sequence[RunRecord], judge: str, set_name: str, verdicts: Mapping[str, Sequence[Verdict]]
) -> list[tuple[RunRecord, Verdict, Verdict]]:
    verdict_pairs = []
    for run in runs:
        other_verdicts = verdicts[dict(run.other_verdicts)[judge].hash]
        paired_verdicts = zip(verdicts[run.verdicts.hash], other_verdicts, strict=True)
        verdict_pairs += [
            (run, verdict, other_verdict) for verdict, other_verdict in paired_verdicts if verdict.set == set_name
        ]
    return verdict_pairs


def _judge_agreement(
    first_judge: str, second_judge: str, set_name: str, all_pairs: Sequence[tuple[RunRecord, Verdict, Verdict]]
) -> JudgeAgreement:
    counted_verdict: Literal["jailbreak", "refusal"] = (
        "jailbreak" if all_pairs and all_pairs[0][1].harmful else "refusal"
    )
    pairs = [
        (run, verdict, other_verdict)
        for run, verdict, other_verdict in all_pairs
        if not (verdict.is_lost or other_verdict.is_lost)
    ]
    first_counts, second_counts = (
        [verdict.verdict == counted_verdict for _, verdict, _ in pairs],
        [other_verdict.verdict == counted_verdict for _, _, other_verdict in pairs],
    )
    clusters = [f"{verdict.modality} {verdict.cluster}" for _, verdict, _ in pairs]
    agreement = kappa_interval(first_counts, second_counts, clusters) if pairs else None
    verdict_counts = Counter((verdict.verdict, other_verdict.verdict) for _, verdict, other_verdict in all_pairs)
    disagreements = [pair for pair, x, y in zip(pairs, first_counts, second_counts) if x != y]
    return JudgeAgreement(
        judge=first_judge,
        other_judge=second_judge,
        prompt_set=set_name,
        counted_verdict=counted_verdict,
        n=len(pairs),
        n_lost=len(all_pairs) - len(pairs),
        clusters=len(set(clusters)),
        both=sum(x and y for x, y in zip(first_counts, second_counts)),
        only_judge=sum(x and not y for x, y in zip(first_counts, second_counts)),
        only_other=sum(y and not x for x, y in zip(first_counts, second_counts)),
        neither=sum(not x and not y for x, y in zip(first_counts, second_counts)),
        kappa=None if agreement is None else ValueWithInterval.from_interval(agreement),
        verdict_counts=[
            VerdictPairCount(verdict=verdict, other_verdict=other, n=n)
            for (verdict, other), n in sorted(verdict_counts.items())
        ],
        disagreements=[
            JudgeDisagreement(
                arm=run.arm.name,
                seed=run.arm.seed,
                step=run.step,
                prompt_id=verdict.prompt_id,
                modality=verdict.modality,
                system=verdict.system,
                verdict=verdict.verdict,
                other_verdict=other_verdict.verdict,
            )
            for run, verdict, other_verdict in disagreements[:MAX_DISAGREEMENTS]
        ],
    )
