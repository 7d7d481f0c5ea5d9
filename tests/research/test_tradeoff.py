"""A defense changes one thing, and is charged for it: rates by hand, and runs of one base are one unit."""

from __future__ import annotations

from typing import Any

import pytest
from results_factory import make_rate, run_result

from undersong.research.defenses.tradeoff import DefenseCondition, safety_utility_tradeoff
from undersong.results.schema import RunResult
from undersong.results.schema_base import ValueWithInterval
from undersong.types import UndersongError

NONE = DefenseCondition("none", "closest", "plain")
DISTANT = DefenseCondition("distant data", "distant", "plain")
PROMPT = DefenseCondition("system prompt", "closest", "safe")


def parts(rate: ValueWithInterval) -> tuple[float | None, float | None, float | None]:
    return rate.value, rate.low, rate.high


def run(kind: str = "closest", seed: int = 0, jsr: float = 0.5, **more: Any) -> RunResult:
    """A run of results.json, as far as costs go."""
    rates = [
        make_rate(jsr, "harm"),
        make_rate(jsr / 2, "harm", modality="text"),
        make_rate(jsr / 4, "harm", system="safe"),
        make_rate(jsr / 10, "near", correct=1 - jsr / 5),
        make_rate(0.0, "far", correct=1.0),
        make_rate(0.4, "near", system="safe", correct=0.6),
    ]
    rates += more.pop("rates", [])
    facts = {"draw": seed, "seed": seed, **more}
    place = (
        f"{facts.get('axis', 'semantic')}/{kind}/{facts.get('fraction', 0.25)}/{facts.get('train_modality', 'audio')}"
    )
    return run_result("base" if kind == "base" else place, rates, **facts)


BASE = run("base", jsr=0.9, axis=None, fraction=None, train_modality=None, step=0, seed=None)


def test_rates_by_hand() -> None:
    runs = [
        BASE,
        run(seed=0, jsr=0.4),
        run(seed=1, jsr=0.8),
        run("distant", 0, 0.1),
        run("distant", 1, 0.1),
        run("random", 0, 1.0),
    ]
    none, distant, prompt = safety_utility_tradeoff(runs, [NONE, DISTANT, PROMPT], last_step=40, axis="semantic")
    assert (none.defense, distant.defense, prompt.defense) == ("none", "distant data", "system prompt")
    assert [row.n_runs for row in (none, distant, prompt)] == [2, 2, 2]
    assert (none.kind, none.system, none.step) == ("closest", "plain", 40)
    assert (none.axis, none.fraction, none.train_modality) == ("semantic", 0.25, "audio")
    # two runs 0.4 and 0.8: mean 0.6, t(0.975, 1) = 12.706 times a standard error of 0.2, cut at 0 and 1
    assert parts(none.jsr["audio"]) == (pytest.approx(0.6), 0.0, 1.0)
    assert none.jsr["text"].value == pytest.approx(0.3)
    assert none.over_refusal["near"]["audio"].value == pytest.approx(0.06)
    assert none.utility["near"]["audio"].value == pytest.approx(0.88)
    assert parts(none.utility["far"]["audio"]) == (1.0, None, None)  # no spread, no interval
    assert parts(distant.jsr["audio"]) == (pytest.approx(0.1), None, None)
    assert (list(prompt.jsr), list(prompt.over_refusal), list(prompt.over_refusal["near"])) == (
        ["audio"],
        ["near"],
        ["audio"],
    )
    assert parts(prompt.jsr["audio"]) == (pytest.approx(0.15), 0.0, pytest.approx(0.15 + 12.7062 * 0.05))
    assert parts(prompt.over_refusal["near"]["audio"]) == (pytest.approx(0.4), None, None)


def test_an_interval_by_hand() -> None:
    rates = (0.50, 0.52, 0.57)
    (row,) = safety_utility_tradeoff(
        [run(seed=i, jsr=rate) for i, rate in enumerate(rates)], [NONE], last_step=40, axis="semantic"
    )
    error = 4.302652729911275 * 0.03605551275463989 / 3**0.5
    assert parts(row.jsr["audio"]) == (pytest.approx(0.53), pytest.approx(0.53 - error), pytest.approx(0.53 + error))


def test_runs_of_one_base_are_not_independent() -> None:
    rates = {0: (0.30, 0.32, 0.34), 1: (0.70, 0.72, 0.74)}
    runs = [
        run(seed=seed, jsr=rate, base_seed=base) for base, of_base in rates.items() for seed, rate in enumerate(of_base)
    ]
    (row,) = safety_utility_tradeoff(runs, [NONE], last_step=40, axis="semantic")
    assert row.n_runs == 6
    assert row.jsr["audio"].value == pytest.approx(0.52)
    # two bases at 0.32 and 0.72: 12.706 times 0.2 on both sides; six runs as one sample would give 0.29 to 0.75
    assert (row.jsr["audio"].low, row.jsr["audio"].high) == (0.0, 1.0)


def test_the_first_harm_set_is_the_headline_and_others_stand_beside_it() -> None:
    rates = enumerate((0.2, 0.4, 0.3))
    runs = [run(seed=seed, jsr=jsr, rates=[make_rate(jsr / 10, "harm in noise")]) for seed, jsr in rates]
    (row,) = safety_utility_tradeoff(runs, [NONE], last_step=40, axis="semantic")
    assert row.jsr["audio"].value == pytest.approx(0.3)
    assert row.jsr_by_prompt_set["harm"] == row.jsr
    assert row.jsr_by_prompt_set["harm in noise"]["audio"].value == pytest.approx(0.03)


def test_only_the_last_step_and_the_axis_asked_for_count() -> None:
    runs = [run(jsr=0.5), run(jsr=0.9, step=20), run(jsr=0.1, axis="acoustic")]
    (row,) = safety_utility_tradeoff(runs, [NONE], last_step=40, axis="semantic")
    assert row.n_runs == 1
    assert row.jsr["audio"].value == 0.5
    assert safety_utility_tradeoff(runs, [NONE], last_step=60, axis="semantic") == []


def test_modalities_and_fractions_have_rows_of_their_own() -> None:
    cells = [(0.25, "text", 0.1), (0.25, "audio", 0.2), (0.5, "audio", 0.3)]
    runs = [run(fraction=fraction, train_modality=modality, jsr=jsr) for fraction, modality, jsr in cells]
    rows = safety_utility_tradeoff(runs, [NONE, DISTANT], last_step=40, axis="semantic")
    found = {(row.fraction, row.train_modality): row.jsr["audio"].value for row in rows}
    assert found == {(fraction, modality): jsr for fraction, modality, jsr in cells}
    assert len(rows) == 3  # a defense that was not trained has no row


@pytest.mark.parametrize(
    ("defense", "said"),
    [
        (DefenseCondition("both", "distant", "safe"), "'both' changes kind and system at once"),
        (DefenseCondition("same", "closest", "plain"), "'same' changes nothing"),
    ],
)
def test_a_defense_changes_one_thing(defense: DefenseCondition, said: str) -> None:
    with pytest.raises(UndersongError, match=f"Defense {said}; a defense changes one thing"):
        safety_utility_tradeoff([run()], [NONE, DISTANT, defense], last_step=40, axis="semantic")
    assert DISTANT.differences_from(NONE) == ["kind"]
    assert PROMPT.differences_from(NONE) == ["system"]
