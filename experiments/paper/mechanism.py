"""Estimates out of a study's mechanism: the late refusal gap by run, and facts that hold or do not.

Knows results; does not know what a paper says of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from statistics import fmean

from experiments.paper.agreement import BELOW, TOO_SHALLOW, Estimate, Expected
from experiments.paper.evidence import Evidence, Where, over_runs, with_base
from undersong.research.mechanism.directions import early_and_late_thirds
from undersong.results.schema import Results
from undersong.results.schema_mechanism import MechanismRecord
from undersong.statistics.runs import RunKey

OPEN = 0.5  # of a fact: neither shown nor shown not to be


@dataclass(frozen=True)
class LateGap:
    """Change of the refusal gap in the last third of layers minus that in the first third, by run.

    The unit is half the distance between harmful and benign means in the sets that the base's direction is fitted on.
    Below 0 the late gap falls more than the early one, which is what *late* suppression means. A decoder of fewer than
    6 layers has no such contrast, and the estimate says so.
    """

    where: Where
    kind: str = "closest"
    trained: str = "audio"
    probed: str = "audio"

    def estimate(self, evidence: Evidence, organism: str, expected: Expected) -> Estimate | None:
        """None: nothing was probed."""
        changes: dict[RunKey, list[tuple[float, float]]] = {}
        for base, results in evidence.of_bases(self.where, organism).items():
            if results.mechanism is None:
                continue
            if early_and_late_thirds(results.mechanism.n_layers) is None:
                return Estimate(nan, None, None, None, 0, 0, "runs", note=TOO_SHALLOW)
            for key, pairs in self._changes(results, results.mechanism).items():
                changes.setdefault(with_base(key, base), []).extend(pairs)
        if not changes:
            return None
        found, falls = (
            over_runs(
                dict.fromkeys(changes, 0.0),
                {key: fmean(pair[part] for pair in mine) for key, mine in changes.items()},
                expected,
                (-float("inf"), float("inf")),
            )
            for part in (0, 1)
        )
        if expected.side != "below" or found.value >= 0 or found.p is None:
            return found
        # Suppression that is late needs a late gap that falls too: both tests must hold, so the larger p value counts.
        return replace(found, p=1.0 if falls.p is None or falls.value >= 0 else max(found.p, falls.p))

    def _changes(self, results: Results, mechanism: MechanismRecord) -> dict[RunKey, list[tuple[float, float]]]:
        """Late minus early change and late change of each arm, by run."""
        runs = {
            (run.model, run.arm, run.seed): run.run_key
            for run in results.runs
            if (run.kind, run.train_modality) == (self.kind, self.trained)
        }
        changes: dict[RunKey, list[tuple[float, float]]] = {}
        for late in mechanism.late_gap_changes:
            key = runs.get((late.model, late.arm, late.seed))
            if key is None or late.modality != self.probed:
                continue
            if late.late_minus_early is not None and late.gap_change is not None:
                changes.setdefault(key, []).append((late.late_minus_early, late.gap_change))
        return changes


@dataclass(frozen=True)
class RetainedRecognition:
    """Change of the accuracy of late probes for harm after training on the closest speech, by base.

    Recognition without refusal needs refusals that fall, so the larger p value of both tests counts where the accuracy
    is on the claimed side.
    """

    where: Where

    def estimate(self, evidence: Evidence, organism: str, expected: Expected) -> Estimate | None:
        """None: nothing was probed."""
        accuracy, refusal = dict[RunKey, float](), dict[RunKey, float]()
        for base, results in evidence.of_bases(self.where, organism).items():
            for one in results.mechanism.harm_recognition if results.mechanism else ():
                if (one.kind, one.train_modality, one.modality) == ("closest", "audio", "audio"):
                    assert one.refusal_rate_change is not None, "the held-out prompts are a prompt set of the study"
                    key = (base, base, base)
                    accuracy[key], refusal[key] = one.change, one.refusal_rate_change
        if not accuracy:
            return None
        no_limits = (-float("inf"), float("inf"))
        found = over_runs(dict.fromkeys(accuracy, 0.0), accuracy, expected, no_limits)
        if found.p is None or not expected.holds(found.value):
            return found
        falls = over_runs(dict.fromkeys(refusal, 0.0), refusal, BELOW, no_limits)
        return replace(found, p=1.0 if falls.p is None or falls.value >= 0 else max(found.p, falls.p))


@dataclass(frozen=True)
class Fact:
    """What is so or not, without noise: 1 where it is, 0 where it is not, and between them where it is open."""

    where: Where
    what: str  # encoder: equal to the bit; dissociated: harm still recognised and refused less, by the study's own rule

    def estimate(self, evidence: Evidence, organism: str, expected: Expected) -> Estimate | None:
        """None: nothing was probed."""
        studies = evidence.of_bases(self.where, organism).values()
        mechanisms = [results.mechanism for results in studies if results.mechanism is not None]
        if not mechanisms:
            return None
        answers = [_encoder(one) if self.what == "encoder" else _dissociated(one) for one in mechanisms]
        facts, runs = {fact for fact, _ in answers}, sum(count for _, count in answers)
        found = facts.pop() if len(facts) == 1 else False if False in facts else None
        value, known = (OPEN, None) if found is None else (float(found), float(found))
        return Estimate(value, known, known, None, runs, runs, "all")


def _encoder(mechanism: MechanismRecord) -> tuple[bool | None, int]:
    """Parameters, buffers, what the encoder gives and what the decoder gets: all the same before and after every one
    of so many trainings."""
    facts = mechanism.encoder_unchanged
    if facts is None:  # nothing was trained
        return None, 0
    differences = facts.output_max_abs_difference, facts.input_max_abs_difference
    return bool(facts.parameters_equal and facts.buffers_equal and not any(differences)), facts.trainings


def _dissociated(mechanism: MechanismRecord) -> tuple[bool | None, int]:
    """Of spoken prompts after so many runs on the closest speech: in all bases; not, where harm is shown to be lost in
    one."""
    place = ("closest", "audio", "audio")
    mine = [one for one in mechanism.harm_recognition if (one.kind, one.train_modality, one.modality) == place]
    runs = sum(one.n for one in mine)
    if mine and all(one.dissociated for one in mine):
        return True, runs
    return (False if any(one.outcome == "lost" for one in mine) else None), runs
