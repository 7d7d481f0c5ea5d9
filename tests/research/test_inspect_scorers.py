"""Judges as scorers, and what verdicts come to: an error is no refusal, and prompts of one behavior are no sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import SampleScore, includes

from undersong.evaluation.rates import set_rates
from undersong.evaluation.verdicts import read_verdicts
from undersong.research.inspect.scorers import SCORERS, make_scorer, rates, score_of, verdict_of_score
from undersong.settings.judge_names import JUDGE_KINDS
from undersong.types import UndersongError, Verdict


def verdict(number: int, word: str, cluster: str, harmful: bool = True, set: str = "harm") -> Verdict:
    return Verdict(f"p{number}", set, harmful, cluster, "audio", "plain", "exact", word)


def measured(verdicts: list[Verdict]) -> dict[str, float]:
    found = rates()([SampleScore(score=score_of(one), sample_id=one.prompt_id) for one in verdicts])  # type: ignore[arg-type]
    assert isinstance(found, dict)
    return found  # type: ignore[return-value]


WORDS = ["jailbreak", "jailbreak", "refusal", "error", "unparsed", "other", "refusal", "jailbreak", "refusal"]
THREES = [verdict(i, word, f"c{i // 3}") for i, word in enumerate(WORDS)]


def test_rates_are_those_of_results_json_and_all_prompts_are_the_denominator() -> None:
    found, (entry,) = measured(THREES), set_rates(THREES, {})
    assert found["jsr"] == entry.rate == pytest.approx(3 / 9)
    assert (found["low"], found["high"]) == (entry.low, entry.high)
    assert found["jsr_at_most"] == entry.max_rate == pytest.approx(5 / 9)
    outcomes = [found[word] for word in ("jsr", "refusal", "other", "unparsed", "error")]
    assert sum(outcomes) == pytest.approx(1)
    assert (found["n"], found["clusters"]) == (9, 3)


def test_the_standard_error_is_clustered() -> None:
    """As statsmodels has it, but for inspect_ai's correction for few clusters."""
    hits = np.array([float(word == "jailbreak") for word in WORDS])
    groups = np.array([int(one.cluster[1:]) for one in THREES])
    plain = sm.OLS(hits, np.ones(9)).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False})
    assert measured(THREES)["stderr"] == pytest.approx(plain.bse[0] * np.sqrt(3 / 2))
    alone = [verdict(i, word, f"c{i}") for i, word in enumerate(WORDS)]
    assert measured(alone)["stderr"] != pytest.approx(measured(THREES)["stderr"])


def test_several_sets_have_numbers_of_their_own() -> None:
    benign = [verdict(20 + i, word, f"b{i}", False, "near") for i, word in enumerate(["refusal", "answer"])]
    found = measured([*THREES, *benign])
    assert found["harm/audio/plain jsr"] == pytest.approx(3 / 9)
    assert found["near/audio/plain over_refusal"] == 0.5
    assert found["near/audio/plain answer"] == 0.5


def test_a_verdict_survives_its_score() -> None:
    for one in THREES:
        assert verdict_of_score(score_of(one)) == one


def test_every_judge_is_a_scorer_and_a_false_name_is_said(tmp_path: Path) -> None:
    assert set(SCORERS) == set(JUDGE_KINDS)
    with pytest.raises(UndersongError, match="There is no judge 'hamrbench'"):
        make_scorer("hamrbench")
    with pytest.raises(UndersongError, match="is served: say llm:MODEL@URL"):
        make_scorer("llm:model")


def test_a_log_of_another_task_is_scored_by_name_and_then_read(tiny_folder: Path, tmp_path: Path) -> None:
    """Somebody else's task, whose samples say nothing of ours, under two of our judges and one that is not."""
    samples = [Sample(id=i, input=text, target="boat") for i, text in enumerate(("paint the boat", "fold the chair"))]
    task = Task(dataset=samples, scorer=[SCORERS["keyword"](), SCORERS["refusal"](harmful=False), includes()])
    (log,) = eval(task, model=f"undersong/{tiny_folder}", max_tokens=4, log_dir=str(tmp_path), display="none")
    assert log.status == "success"
    keyword, refusal = ([v for v in read_verdicts(Path(log.location)) if v.judge == j] for j in ("keyword", "refusal"))
    assert [one.prompt_id for one in keyword] == ["0", "1"]
    assert all(one.harmful for one in keyword)
    assert not any(one.harmful for one in refusal)
    assert log.results is not None
    names = {score.name: next(iter(score.metrics)) for score in log.results.scores}
    assert names == {"keyword": "non_refusal_rate", "refusal": "over_refusal", "includes": "accuracy"}
