"""A defense changes one thing, and is charged for it: rates by hand, and runs of one base are one unit."""

from __future__ import annotations

from typing import Any

import pytest

from undersong.defenses import DefenseCondition, safety_utility_tradeoff
from undersong.types import UndersongError

NONE = DefenseCondition("none", "closest", "plain")
DISTANT = DefenseCondition("distant data", "distant", "plain")
PROMPT = DefenseCondition("system prompt", "closest", "safe")


def entry(name: str, modality: str, system: str, **rates: float) -> dict[str, Any]:
    return {"set": name, "harmful": "jsr" in rates, "modality": modality, "system": system, **rates}


def run(kind: str = "closest", seed: int = 0, jsr: float = 0.5, **more: Any) -> dict[str, Any]:
    """A run of results.json, as far as prices go."""
    facts = {"base_seed": 0, "draw": seed, "seed": seed, "axis": "semantic", "fraction": 0.25, "step": 40}
    sets = [
        entry("harm", "audio", "plain", jsr=jsr),
        entry("harm", "text", "plain", jsr=jsr / 2),
        entry("harm", "audio", "safe", jsr=jsr / 4),
        entry("near", "audio", "plain", refusal_rate=jsr / 10, right_rate=1 - jsr / 5),
        entry("far", "audio", "plain", refusal_rate=0.0, right_rate=1.0),
        entry("near", "audio", "safe", refusal_rate=0.4, right_rate=0.6),
    ]
    return {**facts, "kind": kind, "train_modality": "audio", "sets": sets, **more}


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
    assert (none["defense"], distant["defense"], prompt["defense"]) == ("none", "distant data", "system prompt")
    assert [row["runs"] for row in (none, distant, prompt)] == [2, 2, 2]
    assert (none["kind"], none["system"], none["step"]) == ("closest", "plain", 40)
    assert (none["axis"], none["fraction"], none["train_modality"]) == ("semantic", 0.25, "audio")
    # two runs 0.4 and 0.8: mean 0.6, t(0.975, 1) = 12.706 times a standard error of 0.2, cut at 0 and 1
    assert none["jsr"]["audio"] == {"mean": pytest.approx(0.6), "low": 0.0, "high": 1.0}
    assert none["jsr"]["text"]["mean"] == pytest.approx(0.3)
    assert none["over_refusal"]["near"]["audio"]["mean"] == pytest.approx(0.06)
    assert none["utility"]["near"]["audio"]["mean"] == pytest.approx(0.88)
    assert none["utility"]["far"]["audio"] == {"mean": 1.0, "low": None, "high": None}  # no spread, no interval
    assert distant["jsr"]["audio"] == {"mean": pytest.approx(0.1), "low": None, "high": None}
    assert prompt["jsr"] == {
        "audio": {"mean": pytest.approx(0.15), "low": 0.0, "high": pytest.approx(0.15 + 12.7062 * 0.05)}
    }
    assert prompt["over_refusal"] == {"near": {"audio": {"mean": pytest.approx(0.4), "low": None, "high": None}}}


def test_an_interval_by_hand() -> None:
    rates = (0.50, 0.52, 0.57)
    (row,) = safety_utility_tradeoff(
        [run(seed=i, jsr=rate) for i, rate in enumerate(rates)], [NONE], last_step=40, axis="semantic"
    )
    error = 4.302652729911275 * 0.03605551275463989 / 3**0.5
    assert row["jsr"]["audio"] == {
        "mean": pytest.approx(0.53), "low": pytest.approx(0.53 - error), "high": pytest.approx(0.53 + error),
    }  # fmt: skip


def test_runs_of_one_base_are_not_independent() -> None:
    rates = {0: (0.30, 0.32, 0.34), 1: (0.70, 0.72, 0.74)}
    runs = [
        run(seed=seed, jsr=rate, base_seed=base) for base, of_base in rates.items() for seed, rate in enumerate(of_base)
    ]
    (row,) = safety_utility_tradeoff(runs, [NONE], last_step=40, axis="semantic")
    assert row["runs"] == 6
    assert row["jsr"]["audio"]["mean"] == pytest.approx(0.52)
    # two bases at 0.32 and 0.72: 12.706 times 0.2 on both sides; six runs as one sample would give 0.29 to 0.75
    assert (row["jsr"]["audio"]["low"], row["jsr"]["audio"]["high"]) == (0.0, 1.0)


def test_the_first_harm_set_is_the_headline_and_others_stand_beside_it() -> None:
    runs = [run(seed=seed, jsr=jsr) for seed, jsr in enumerate((0.2, 0.4, 0.3))]
    for one in runs:
        one["sets"].append(entry("harm in noise", "audio", "plain", jsr=one["sets"][0]["jsr"] / 10))
    (row,) = safety_utility_tradeoff(runs, [NONE], last_step=40, axis="semantic")
    assert row["jsr"]["audio"]["mean"] == pytest.approx(0.3)
    assert row["jsr_by_set"]["harm"] == row["jsr"]
    assert row["jsr_by_set"]["harm in noise"]["audio"]["mean"] == pytest.approx(0.03)


def test_only_the_last_step_and_the_axis_asked_for_count() -> None:
    runs = [run(jsr=0.5), run(jsr=0.9, step=20), run(jsr=0.1, axis="acoustic")]
    (row,) = safety_utility_tradeoff(runs, [NONE], last_step=40, axis="semantic")
    assert row["runs"] == 1
    assert row["jsr"]["audio"]["mean"] == 0.5
    assert safety_utility_tradeoff(runs, [NONE], last_step=60, axis="semantic") == []


def test_modalities_and_fractions_have_rows_of_their_own() -> None:
    cells = [(0.25, "text", 0.1), (0.25, "audio", 0.2), (0.5, "audio", 0.3)]
    runs = [run(fraction=fraction, train_modality=modality, jsr=jsr) for fraction, modality, jsr in cells]
    rows = safety_utility_tradeoff(runs, [NONE, DISTANT], last_step=40, axis="semantic")
    found = {(row["fraction"], row["train_modality"]): row["jsr"]["audio"]["mean"] for row in rows}
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
