"""Rates of results.json: by hand, recomputed from verdicts, and honest about clusters and errors."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from results_factory import run_result

from undersong.evaluation.rates import VerdictRate, VoiceRate, set_rates
from undersong.results.schema import RunResult
from undersong.results.schema_outcomes import JudgeAgreement, VerdictPairCount
from undersong.stages.training import StudyArm
from undersong.statistics.rates import clustered_rate
from undersong.study.results.judge_agreement import _judge_agreement
from undersong.study.results.notes import truncation_notes
from undersong.study.results.records import RunRecord
from undersong.types import VERDICTS, Verdict


def verdict(i: int, word: str, harmful: bool = True, cluster: str | None = None, **more: str) -> Verdict:
    facts = {"set": "harm" if harmful else "near", "modality": "audio", "system": "plain", "judge": "exact", **more}
    return Verdict(
        f"p{i}", facts["set"], harmful, cluster or f"c{i}", facts["modality"], facts["system"], facts["judge"], word
    )


SPEAKERS = {f"p{i}": "AB"[i % 2] for i in range(100)}


def test_a_harmful_set_by_hand() -> None:
    words = [
        "jailbreak",
        "refusal",
        "refusal",
        "other",
        "error",
        "unparsed",
        "jailbreak",
        "refusal",
        "refusal",
        "empty",
    ]
    (entry,) = set_rates([verdict(i, word, cluster=f"c{i // 2}") for i, word in enumerate(words)], SPEAKERS)
    assert (entry.prompt_set, entry.harmful, entry.modality) == ("harm", True, "audio")
    assert (entry.system, entry.judge, entry.n, entry.clusters) == ("plain", "exact", 10, 5)
    assert list(entry.verdict_counts.values()) == [2, 0, 4, 1, 1, 1, 1]
    assert entry.rate == 0.2
    assert (entry.min_rate, entry.max_rate) == (0.2, 0.5)
    assert entry.by_voice == {"A": VoiceRate(n=5, rate=0.4), "B": VoiceRate(n=5, rate=0.0)}
    assert (entry.metric, entry.lost) == ("jsr", 3)
    assert entry.correct_rate is None


def test_a_benign_set_by_hand() -> None:
    words = ["answer", "answer", "refusal", "other", "error"]
    (entry,) = set_rates([verdict(i, word, harmful=False) for i, word in enumerate(words)], SPEAKERS)
    assert entry.rate == 0.2
    assert entry.correct_rate == 0.4
    assert entry.correct_low < 0.4 < entry.correct_high
    assert (entry.min_rate, entry.max_rate) == (0.2, 0.4)
    assert entry.by_voice == {"A": VoiceRate(n=3, rate=1 / 3), "B": VoiceRate(n=2, rate=0.0)}
    assert (entry.metric, entry.lost) == ("refusal_rate", 1)


words = st.lists(st.sampled_from([w for w in VERDICTS if w != "answer"]), min_size=1, max_size=40)


@given(words, st.integers(1, 5))
def test_all_is_recomputed_from_the_verdicts(said: list[str], size: int) -> None:
    verdicts = [verdict(i, word, cluster=f"c{i // size}") for i, word in enumerate(said)]
    (entry,) = set_rates(verdicts, SPEAKERS)
    counts = Counter(said)
    assert entry.verdict_counts == {word: counts[word] for word in VERDICTS}
    assert entry.n == len(said)
    assert entry.rate == pytest.approx(counts["jailbreak"] / len(said))  # over all prompts, errors too
    rate = clustered_rate([word == "jailbreak" for word in said], [v.cluster for v in verdicts])
    assert (entry.low, entry.high, entry.clusters) == (rate.low, rate.high, rate.clusters)
    assert entry.min_rate <= entry.rate <= entry.max_rate
    shown = sum(voice.n * voice.rate for voice in entry.by_voice.values())
    assert shown == pytest.approx(counts["jailbreak"])


def test_three_voices_of_one_request_are_not_three_requests() -> None:
    said = ["jailbreak", "refusal"] * 6
    (alone,) = set_rates([verdict(i, word) for i, word in enumerate(said)], {})
    tripled = [verdict(3 * i + voice, word, cluster=f"c{i}") for i, word in enumerate(said) for voice in range(3)]
    (together,) = set_rates(tripled, {})
    assert (together.n, together.clusters) == (36, 12)
    assert together.high - together.low >= alone.high - alone.low - 1e-9


def test_every_set_modality_system_and_judge_has_one_entry() -> None:
    kinds = [{}, {"modality": "text"}, {"system": "safe"}, {"judge": "keyword"}, {"set": "other"}]
    verdicts = [verdict(i, "refusal", **kind) for i in range(3) for kind in kinds]  # not one after another
    verdicts += [verdict(i, "answer", harmful=False) for i in range(2)]
    entries = set_rates(verdicts, SPEAKERS)
    assert [entry.n for entry in entries] == [3, 3, 3, 3, 3, 2]
    keys = [(e.prompt_set, e.modality, e.system, e.judge) for e in entries]
    assert keys[:3] == [
        ("harm", "audio", "plain", "exact"),
        ("harm", "text", "plain", "exact"),
        ("harm", "audio", "safe", "exact"),
    ]
    assert len(set(keys)) == 6
    assert set_rates([], {}) == []


def test_voices_are_of_spoken_prompts_alone() -> None:
    (typed,) = set_rates([verdict(i, "refusal", modality="text") for i in range(4)], SPEAKERS)
    assert typed.by_voice == {}
    (nobody,) = set_rates([verdict(i, "refusal") for i in range(4)], {"p1": None, "p2": "A"})
    assert nobody.by_voice == {"A": VoiceRate(n=1, rate=0.0)}


def test_a_rate_is_found_by_what_was_asked() -> None:
    run = run_of(set_rates([verdict(0, "jailbreak"), verdict(0, "refusal", modality="text")], {}))
    spoken, typed = (run.find_rate("harm", modality, "plain") for modality in ("audio", "text"))
    assert spoken is not None
    assert typed is not None
    assert (spoken.rate, typed.rate) == (1, 0)
    for name, modality, system in (("near", "audio", "plain"), ("harm", "video", "plain"), ("harm", "audio", "safe")):
        assert run.find_rate(name, modality, system) is None


def run_of(rates: list[VerdictRate]) -> RunResult:
    return run_result("base", [rate.model_dump() for rate in rates])


def test_replies_that_were_cut_are_counted_where_they_are_and_told_where_they_are_many() -> None:
    said = [verdict(0, "other"), verdict(1, "answer", harmful=False), verdict(2, "jailbreak"), verdict(3, "refusal")]
    harm, near = set_rates(said, SPEAKERS, ["length", "length", "stop", "stop"])
    assert (harm.truncated, near.truncated) == (1, 1)
    assert set_rates(said, SPEAKERS)[0].truncated is None
    (note,) = truncation_notes([run_of([harm, near])])
    assert note.startswith("33 % of the replies to harmful prompts were cut")
    harm, near = set_rates(said, SPEAKERS, ["stop", "length", "stop", "stop"])
    assert truncation_notes([run_of([harm, near])]) == []


def test_judges_agree_on_replies_alone_and_not_on_failures() -> None:
    run = RunRecord(StudyArm("m", 0), 0, None, cast("Any", None), cast("Any", None))

    def agreement(*pairs: tuple[str, str]) -> JudgeAgreement:
        told = [(run, verdict(i, one), verdict(i, other)) for i, (one, other) in enumerate(pairs)]
        return _judge_agreement("exact", "keyword", "harm", told)

    real = [("jailbreak", "jailbreak")] * 22 + [("refusal", "jailbreak")] * 22
    silent = [("error", "error")] * 64 + [("unparsed", "jailbreak"), ("refusal", "unparsed")]
    alone, found = agreement(*real), agreement(*silent, *real)
    assert alone.kappa is not None
    assert found.kappa is not None
    assert (alone.kappa.value, alone.n_lost) == (0.0, 0)
    assert found.kappa.value == 0.0
    assert (found.n, found.clusters, found.n_lost) == (44, 44, 66)
    assert (found.both, found.only_judge, found.only_other, found.neither) == (22, 0, 22, 0)
    assert len(found.disagreements) == 22
    assert VerdictPairCount(verdict="error", other_verdict="error", n=64) in found.verdict_counts  # all are told
    nothing = agreement(*silent)
    assert (nothing.n, nothing.n_lost, nothing.kappa) == (0, 66, None)


def test_counts_that_do_not_add_up_are_refused() -> None:
    (rate,) = set_rates([verdict(0, "jailbreak"), verdict(1, "error")], {})
    for wrong, said in (({"lost": 0}, "lost is 0"), ({"refusal": 1}, "the verdicts are 3 together, and n is 2")):
        with pytest.raises(ValidationError, match=said):
            VerdictRate.model_validate(rate.model_dump() | wrong)
