"""Comparisons of both kinds: over runs where the claim is about a recipe, over prompts where it is about a model."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from results_factory import make_rate, run_result
from scipy import stats

from undersong.results.schema import RunResult
from undersong.results.schema_comparisons import ComparisonSide, DiscordantPrompts
from undersong.stages.training import StudyArm
from undersong.statistics.bounded_mean import upper_mean_bound
from undersong.statistics.multiple_testing import holm
from undersong.statistics.paired import compare_paired
from undersong.study.assembly import _model_comparisons
from undersong.study.load import parse_study
from undersong.study.planning.power import study_contrasts
from undersong.study.results.comparisons import recipe_comparisons
from undersong.study.results.contrasts import PrimaryPlan
from undersong.study.results.margin_comparisons import recipe_margin_comparisons
from undersong.study.results.model_comparisons import model_comparison, system_prompt_comparison
from undersong.study.results.prompt_outcomes import PromptOutcomes
from undersong.study.results.records import RunRecord
from undersong.types import UndersongError, Verdict

Cell = tuple[str, str]  # kind, training modality
LEVEL: dict[Cell, float] = {
    ("closest", "audio"): 0.7, ("random", "audio"): 0.4, ("distant", "audio"): 0.1,
    ("closest", "text"): 0.3, ("random", "text"): 0.2, ("distant", "text"): 0.05,
}  # fmt: skip


def rate(cell: Cell, seed: int, system: str = "plain") -> float:
    noise = np.random.default_rng([seed, list(LEVEL).index(cell)]).uniform(-0.05, 0.05)
    return (LEVEL[cell] + noise) * (0.25 if system == "safe" else 1.0)


def entry(name: str, modality: str, system: str, jsr: float, harmful: bool = True) -> dict[str, Any]:
    return make_rate(jsr, name, harmful=harmful, modality=modality, system=system)


def run(
    cell: Cell, seed: int = 0, *, base: int = 0, step: int = 40, fraction: float = 0.25, rates: Any = None
) -> RunResult:
    made = [entry("harm", "audio", system, rate(cell, seed, system)) for system in ("plain", "safe")]
    made += [entry("near", "audio", "plain", 0.98, harmful=False)]
    arm = f"semantic/{cell[0]}/{fraction}/{cell[1]}"
    return run_result(arm, made if rates is None else rates, base_seed=base, seed=seed, draw=seed, step=step)


BASE = run_result("base", [entry("harm", "audio", "plain", 0.0)])
EARLY = [entry("harm", "audio", system, 0.99) for system in ("plain", "safe")]
RUNS = [BASE, *(run(cell, seed) for cell in LEVEL for seed in range(3))]
RUNS += [run(cell, seed, step=20, rates=EARLY) for cell in LEVEL for seed in range(3)]


def side(one: ComparisonSide) -> tuple[str, str, str]:
    """Kind, training modality and system prompt, as the arm's name has them."""
    _, kind, _, trained = one.arm.split("/")
    return (kind if one.minus_arm is None else f"{kind} − {one.minus_arm.split('/')[1]}"), trained, one.system


def test_every_contrast_is_made_once() -> None:
    found = recipe_comparisons(RUNS, "plain", "safe", 40)
    to_base = [(side(c.b), c.family) for c in found if c.a.arm == "base"]
    assert sorted(to_base) == sorted(((*cell, "plain"), "exploratory") for cell in LEVEL)
    sides = [(side(c.a), side(c.b)) for c in found if c.a.arm != "base"]
    expected = []
    for modality in ("audio", "text"):
        for a, b in (("distant", "closest"), ("random", "closest"), ("distant", "random")):
            expected.append(((a, modality, "plain"), (b, modality, "plain")))
        expected.append((("closest", modality, "plain"), ("closest", modality, "safe")))
    expected += [((kind, "text", "plain"), (kind, "audio", "plain")) for kind in ("closest", "distant", "random")]
    expected.append((("closest − distant", "text", "plain"), ("closest − distant", "audio", "plain")))
    assert sides == expected
    assert len({c.id for c in found}) == len(found)
    assert {(c.scope, c.prompt_set, c.modality, c.step, c.metric) for c in found} == {
        ("recipe", "harm", "audio", 40, "jsr")
    }
    assert {c.minuend for c in found} == {"b"}
    assert all(re.fullmatch("[0-9a-f]{12}", c.id) for c in found)


def test_numbers_are_those_of_a_paired_t_test() -> None:
    trained = [c for c in recipe_comparisons(RUNS, "plain", "safe", 40) if c.a.arm != "base"]
    for c in trained[:-1]:  # the last is the interaction
        a, b = ([rate(side(s)[:2], seed, s.system) for seed in range(3)] for s in (c.a, c.b))
        test = stats.ttest_rel(b, a)
        interval = test.confidence_interval(0.95)
        assert c.n == 3
        assert c.difference == pytest.approx(np.mean(b) - np.mean(a))
        assert c.p == pytest.approx(test.pvalue)
        assert (c.low, c.high) == pytest.approx((max(-1, interval.low), min(1, interval.high)))
        assert [(e.seed, e.draw, e.base_seed) for e in c.estimates] == [(0, 0, 0), (1, 1, 0), (2, 2, 0)]
        assert [e.a for e in c.estimates] == pytest.approx(a)
        assert [e.difference for e in c.estimates] == pytest.approx(np.subtract(b, a))


def test_questions_say_which_way_the_difference_goes() -> None:
    found = {c.question: c for c in recipe_comparisons(RUNS, "plain", "safe", 40)}
    closest = found["Does closest data break more than distant data (semantic at 0.25, trained on audio)?"]
    assert closest.difference > 0.4
    assert (closest.a.label, closest.b.label) == ("distant", "closest")
    prompt = found["Does the system prompt bring the JSR back (closest, semantic at 0.25, trained on audio)?"]
    assert prompt.difference < -0.4
    assert (prompt.a.label, prompt.b.label) == ("plain", "safe")
    audio = found["Does training on audio break more than on text (closest, semantic at 0.25, same samples)?"]
    assert audio.difference > 0.2
    assert (audio.a.label, audio.b.label) == ("text", "audio")


def test_all_are_corrected_together() -> None:
    found = recipe_comparisons(RUNS, "plain", "safe", 40)
    assert [c.p_adjusted for c in found] == holm([c.p for c in found])
    assert all(c.p_adjusted >= c.p for c in found)
    assert max(c.p_adjusted / c.p for c in found) == pytest.approx(len(found))


def test_primary_questions_are_a_family_of_their_own() -> None:
    primary = PrimaryPlan(
        ("closest-random", "system-prompt"), ("semantic",), (0.25,), ("harm",), ("audio",), ("audio", "text")
    )
    found = recipe_comparisons(RUNS, "plain", "safe", 40, primary)
    first = [c for c in found if c.family == "primary"]
    assert [(side(c.a)[0], side(c.b)[0], side(c.b)[1], c.b.system) for c in first] == [
        ("random", "closest", "audio", "plain"), ("closest", "closest", "audio", "safe"),
    ]  # fmt: skip
    assert [c.p_adjusted for c in first] == holm([c.p for c in first])
    others = [c for c in found if c.family == "exploratory"]
    assert [c.p_adjusted for c in others] == holm([c.p for c in others])
    assert {c.id for c in found} == {c.id for c in recipe_comparisons(RUNS, "plain", "safe", 40)}


def test_a_question_may_name_its_axis() -> None:
    other = [
        one.model_copy(update={"axis": "acoustic", "arm": one.arm.replace("semantic", "acoustic")}) for one in RUNS[1:]
    ]
    runs, axes = [*RUNS, *other], ("semantic", "acoustic")
    for question, axis in (("closest-distant", "semantic"), ("closest-distant@acoustic", "acoustic")):
        found = recipe_comparisons(runs, "plain", "safe", 40, PrimaryPlan((question,), axes, (0.25,)))
        assert [c.b.arm.split("/")[0] for c in found if c.family == "primary"] == [axis]
    found = recipe_comparisons(runs, "plain", "safe", 40, PrimaryPlan(("axes",), axes, (0.25,)))
    (between,) = (c for c in found if c.family == "primary")
    assert (between.a.label, between.b.label, between.difference) == ("acoustic", "semantic", 0)


def test_the_change_from_the_base_is_bounded_for_any_run_noise() -> None:
    """Two of three runs do nothing: Student's t would leave out what most trainings may do."""

    def runs(*rates: float) -> list[RunResult]:
        low = {"low": 0.0, "high": 0.04}
        base = run_result("base", [make_rate(0.0, "harm", **low)])
        return [base, *(run(("closest", "audio"), seed, rates=[make_rate(one, "harm", low=one, high=one)])
                        for seed, one in enumerate(rates))]  # fmt: skip

    (equal,) = recipe_comparisons(runs(0.9, 0.9, 0.9), "plain", None, 40)
    assert equal.low == pytest.approx(0.9 * 0.025 ** (1 / 3) - 0.04)
    assert equal.high == pytest.approx(upper_mean_bound([0.9] * 3))
    assert equal.difference == pytest.approx(0.9)
    assert equal.p is not None
    assert equal.p < 0.05
    assert "bound for any run noise" in (equal.method or "")
    (mixed,) = recipe_comparisons(runs(0.0, 0.0, 0.9), "plain", None, 40)
    assert mixed.low is not None
    assert mixed.high is not None
    assert mixed.low < 0 < 0.7 < mixed.high
    (alone,) = recipe_comparisons(runs(0.9), "plain", None, 40)
    assert (alone.low, alone.p) == (None, None)
    assert "Only one independent" in (alone.note or "")


@pytest.mark.parametrize("modalities", [["audio"], ["audio", "text"]])
@pytest.mark.parametrize("defense", [None, "safe"])
def test_a_study_can_be_asked_what_is_compared(modalities: list[str], defense: str | None) -> None:
    """The names that a study file may declare are those of the comparisons that are made."""
    study = parse_study(
        {
            "study": "s", "models": ["organism:af3"], "pool": "p", "reference": "r",
            "prompt_sets": {"harm": {"corpus": "h", "harmful": True}},
            "axes": {"semantic": "tfidf", "acoustic": "logmel"},
            "selection": {
                "axes": ["semantic", "acoustic"],
                "rules": {"like": {"axis": "semantic", "keep": "random:0.25+matched(speaker)"},
                          "near": {"axis": "semantic", "keep": "closest:0.25+matched(speaker)"},
                          "far": {"axis": "semantic", "keep": "distant:0.25+matched(speaker)"}},
            },
            "tuning": {"modalities": modalities}, "system_defense": defense,
            "evaluation": {"system_prompts": {"plain": None, "safe": "refuse"}},
            "analysis": {"primary": ["axes"]},
        },
        "s",
    )  # fmt: skip
    names = {contrast.name for contrast in study_contrasts(study)}
    assert names == set(study.answerable_questions)


def test_an_interval_ends_where_differences_do() -> None:
    """Two runs give a t interval of many times their difference; a difference of shares lies in -1 to 1."""
    rates = {"closest": (0.1, 0.9), "distant": (0.9, 0.1)}
    runs = [
        run((kind, "audio"), seed, rates=[entry("harm", "audio", "plain", jsr)])
        for kind, of_kind in rates.items()
        for seed, jsr in enumerate(of_kind)
    ]
    (found,) = recipe_comparisons(runs, "plain", None, 40)
    assert (found.low, found.high) == (-1.0, 1.0)


def test_one_run_gives_no_interval_and_says_so() -> None:
    for c in recipe_comparisons([run(cell) for cell in LEVEL], "plain", "safe", 40):
        assert c.n == 1
        assert c.low is c.high is c.p is c.p_adjusted is None
        assert "run noise" in c.note


def test_runs_of_several_bases_are_averaged_within_them() -> None:
    runs = [run(cell, seed, base=base) for cell, seed, base in product(LEVEL, range(3), range(2))]
    for c in recipe_comparisons(runs, "plain", None, 40):
        assert c.n == 6
        assert "bases" in c.method


def test_fractions_are_compared_apart() -> None:
    runs = [run(cell, seed, fraction=fraction) for cell, seed, fraction in product(LEVEL, range(2), (0.25, 0.5))]
    found = recipe_comparisons(runs, "plain", None, 40)
    assert len(found) == 2 * 10
    assert len({c.id for c in found}) == len(found) == len({c.question for c in found})
    assert all(c.a.arm.split("/")[2] == c.b.arm.split("/")[2] and c.n == 2 for c in found)


def test_two_harm_sets_are_compared_apart() -> None:
    sets = [entry(name, "audio", "plain", jsr) for name, jsr in (("harm", 0.2), ("more harm", 0.3))]
    runs = [run((kind, "audio"), seed, rates=sets) for kind in ("closest", "distant") for seed in range(2)]
    found = recipe_comparisons(runs, "plain", None, 40)
    assert [c.prompt_set for c in found] == ["harm", "more harm"]
    assert len({c.id for c in found}) == 2


def test_typed_prompts_are_compared_apart_from_spoken_ones() -> None:
    rates = {"audio": 0.2, "text": 0.6}
    runs = [
        run((kind, "audio"), seed, rates=[entry("harm", m, "plain", rates[m] + 0.1 * seed) for m in rates])
        for kind in ("closest", "distant")
        for seed in range(2)
    ]
    found = recipe_comparisons(runs, "plain", None, 40)
    assert [c.modality for c in found] == ["audio", "text"]
    assert [c.estimates[0].a for c in found] == [0.2, 0.6]
    assert len({c.id for c in found}) == 2


def test_what_was_not_asked_is_not_compared() -> None:
    runs = [run(cell, rates=[entry("near", "text", "plain", 0.5, harmful=False)]) for cell in LEVEL]
    assert recipe_comparisons(runs, "plain", None, 40) == []
    assert recipe_comparisons([BASE], "plain", None, 40) == []


def test_a_run_without_its_partner_is_named() -> None:
    runs = [one for one in RUNS if (one.kind, one.train_modality, one.seed) != ("distant", "text", 2)]
    with pytest.raises(UndersongError, match=r"cannot be paired: a has no base 0, draw 2, seed 2"):
        recipe_comparisons(runs, "plain", None, 40)


# --- one adapter against its base ------------------------------------------------------------------------------------
ARM = run_result("semantic/closest/0.25/audio", [], seed=1, draw=1)


def verdicts(words: list[str], **more: str) -> list[Verdict]:
    facts = {"set": "harm", "modality": "audio", "system": "plain", **more}
    where = facts["set"], True, facts["modality"], facts["system"]
    return [
        Verdict(f"p{i}", where[0], where[1], f"c{i // 3}", where[2], where[3], "exact", word)
        for i, word in enumerate(words)
    ]


def test_a_model_is_compared_over_prompts_in_clusters() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random((2, 36)) < np.array([[0.1], [0.5]])
    before, after = (verdicts(["jailbreak" if hit else "refusal" for hit in row]) for row in hits)
    noise = verdicts(["jailbreak"] * 36, modality="text") + verdicts(["jailbreak"] * 36, system="safe")
    found = model_comparison(ARM, before + noise, noise + after[::-1], "harm", "audio", "plain")
    expected = compare_paired(*hits, clusters=[f"c{i // 3}" for i in range(36)])
    assert (found.n, found.difference) == (36, expected.difference)
    assert (found.low, found.high) == (expected.clustered_low, expected.clustered_high)
    assert found.p == expected.clustered_p
    assert found.discordant == DiscordantPrompts(
        n_only_a=expected.b, n_only_b=expected.c, clusters=12, mcnemar_p=expected.p
    )
    assert found.difference > 0.2  # after - before
    assert (found.scope, found.prompt_set, found.step) == ("model", "harm", 40)
    assert (found.a.arm, found.b.arm, found.b.seed, found.model) == ("base", ARM.arm, 1, "m")
    assert "12 clusters" in found.method
    typed = model_comparison(ARM, verdicts(["refusal"] * 36, modality="text") + before, noise, "harm", "text", "plain")
    assert (typed.modality, typed.difference) == ("text", 1.0)


def test_one_model_is_compared_with_itself_under_a_system_prompt() -> None:
    both = verdicts(["jailbreak"] * 24) + verdicts(["refusal"] * 24, system="safe")
    found = system_prompt_comparison(ARM, both, "harm", "audio", "plain", "safe")
    assert (found.a.arm, found.a.system, found.b.arm, found.b.system) == (ARM.arm, "plain", ARM.arm, "safe")
    assert (found.scope, found.family, found.difference, found.n) == ("model", "exploratory", -1.0, 24)
    assert found.p == compare_paired([1] * 24, [0] * 24, clusters=[f"c{i // 3}" for i in range(24)]).clustered_p
    with pytest.raises(UndersongError, match="was evaluated for only one of plain and safe; evaluate it for both"):
        system_prompt_comparison(ARM, both[:-1], "harm", "audio", "plain", "safe")


def test_an_id_is_of_the_question_and_of_nothing_else() -> None:
    """Every identity has its own id: another model, seed, draw or step is another comparison of scope `model`."""
    both = verdicts(["refusal"] * 6)
    runs = [
        ARM,
        *(ARM.model_copy(update=change) for change in ({"model": "n"}, {"seed": 2}, {"draw": 2}, {"step": 20})),
    ]
    ids = [model_comparison(one, both, both, "harm", "audio", "plain").id for one in runs]
    assert len(set(ids)) == len(runs)
    again = model_comparison(ARM, both, verdicts(["jailbreak"] * 6), "harm", "audio", "plain")
    assert again.id == ids[0]  # whatever was found


def test_equal_questions_of_two_studies_have_equal_ids() -> None:
    other = [BASE, *(run(cell, seed, step=20) for cell in LEVEL for seed in range(3, 8))]  # other seeds, another length
    here, there = (recipe_comparisons(runs, "plain", "safe", step) for runs, step in ((RUNS, 40), (other, 20)))
    assert [c.id for c in here] == [c.id for c in there]
    safe = recipe_comparisons(RUNS, "safe", None, 40)  # the same sentences of another system prompt
    assert not {c.id for c in here} & {c.id for c in safe}


def test_only_jailbreaks_count() -> None:
    before, after = verdicts(["refusal", "other", "error"] * 4), verdicts(["other", "error", "unparsed"] * 4)
    found = model_comparison(ARM, before, after, "harm", "audio", "plain")
    assert found.difference == 0
    assert found.p == 1


def test_prompts_asked_of_one_side_only_are_named() -> None:
    both = verdicts(["refusal"] * 6)
    with pytest.raises(
        UndersongError, match="Prompt p5 of set harm was evaluated for only one of the base and semantic"
    ):
        model_comparison(ARM, both, both[:5], "harm", "audio", "plain")
    with pytest.raises(UndersongError, match="Prompt p5 of set harm"):
        model_comparison(ARM, both[:5], both, "harm", "audio", "plain")


def test_the_interaction_of_modality_and_closeness_is_a_difference_of_differences() -> None:
    found = recipe_comparisons(RUNS, "plain", "safe", 40)
    (both,) = [c for c in found if "how close" in c.question]
    text, audio = (
        np.array([rate(("closest", m), seed) - rate(("distant", m), seed) for seed in range(3)])
        for m in ("text", "audio")
    )
    each = audio - text
    test = stats.ttest_1samp(each, 0.0)
    low, high = test.confidence_interval(0.95)
    assert (both.difference, both.low, both.high) == pytest.approx((each.mean(), low, high))
    assert both.p == pytest.approx(test.pvalue)
    assert [pair.a for pair in both.estimates] == pytest.approx(text)
    assert [pair.b for pair in both.estimates] == pytest.approx(audio)


def test_an_interaction_may_exceed_what_a_difference_can() -> None:
    level = {("closest", "audio"): 1.0, ("distant", "audio"): 0.0, ("closest", "text"): 0.0, ("distant", "text"): 1.0}
    runs = [BASE]
    for cell, jsr in level.items():
        runs += [run(cell, seed, rates=[entry("harm", "audio", "plain", abs(jsr - 0.02 * seed))]) for seed in range(3)]
    (both,) = [c for c in recipe_comparisons(runs, "plain", None, 40) if "how close" in c.question]
    assert both.difference == pytest.approx(1.92)
    assert both.high == 2.0


def test_pairs_that_were_never_asked_are_passed_over() -> None:
    """A set in noise is spoken only, also where typed prompts are asked of the others."""
    study = parse_study(
        {"study": "s", "models": ["m"], "pool": "p", "reference": "r", "axes": {"semantic": "tfidf"},
         "tuning": {"save_steps": [4]}, "evaluation": {"judge": "keyword"},
         "prompt_sets": {"harm": {"corpus": "h", "harmful": True},
                         "noisy": {"corpus": "h", "harmful": True, "noise": "pink:5"}}},
        "s",
    )  # fmt: skip
    asked = (("harm", "audio"), ("harm", "text"), ("noisy", "audio"))
    verdicts = {
        name: [
            Verdict(f"p{i}", set_name, True, f"c{i}", modality, "plain", "exact", word)
            for set_name, modality in asked
            for i in range(4)
        ]
        for name, word in (("before", "refusal"), ("after", "jailbreak"))
    }
    runs = [
        RunRecord(arm, step, None, cast("Any", None), cast("Any", SimpleNamespace(hash=name)))
        for name, arm, step in (
            ("before", StudyArm("m", 0), 0),
            ("after", StudyArm("m", 0, "semantic", "closest", 0.25, "audio", 0, 0), 4),
        )
    ]
    record = SimpleNamespace(study=study, models=[SimpleNamespace(ref="m", runs=runs)])
    found = [comparison for comparison, _, _ in _model_comparisons(cast("Any", record), verdicts, 4)]
    assert [(one.prompt_set, one.modality) for one in found] == list(asked)
    assert {one.difference for one in found} == {1.0}


def test_a_mixed_model_stands_beside_the_paired_t_where_bases_have_several_runs() -> None:
    def with_selection(cell: Cell, seed: int, base: int) -> RunResult:
        shift = 0.1 * base if cell[0] == "closest" else 0.0
        rates = [entry("harm", "audio", "plain", rate(cell, 10 * base + seed) + shift)]
        return run(cell, seed, base=base, rates=rates).model_copy(update={"selection_hash": cell[0]})

    cells = [("distant", "audio"), ("closest", "audio")]
    tuned = [with_selection(cell, seed, base) for cell in cells for base in range(3) for seed in range(2)]
    (found,) = recipe_comparisons(tuned, "plain", None, 40)
    model = found.mixed_model
    assert model is not None
    assert (model.difference, model.low, model.high) == pytest.approx(
        (found.difference, found.low, found.high), abs=1e-4
    )
    assert [(part.name, part.groups) for part in model.effects] == [("base", 3), ("seed", 6)]
    assert (found.method, model.runs) == ("paired t over bases, runs averaged within base", 6)
    turned = found.with_minuend("a").mixed_model
    assert turned is not None
    assert (turned.low, turned.high) == (-(model.high or 0), -(model.low or 0))
    one_base = [one for one in tuned if one.base_seed == 0]
    assert recipe_comparisons(one_base, "plain", None, 40)[0].mixed_model is None


def asked_runs(
    kinds: tuple[str, ...], bases: int, clusters: int, voices: int = 2
) -> list[tuple[RunResult, list[Verdict]]]:
    """Runs on bases with two seeds each, and verdicts on prompts of which some are broken by all closest data."""
    rng, asked = np.random.default_rng(4), []
    easy, noise = rng.normal(0, 0.3, clusters), rng.normal(0, 0.2, (len(kinds), bases, 2))
    for kind, base, seed in product(kinds, range(bases), range(2)):
        if kind == "base" and seed:
            continue
        rows = [
            Verdict(
                f"p{cluster}-{voice}", "harm", True, f"c{cluster}", "audio", "plain", "exact",
                "jailbreak" if chance > rng.uniform() else "refusal",
                refusal_margin=1 - 2 * chance + noise[kinds.index(kind), base, seed],
            )
            for cluster in range(clusters)
            for voice in range(voices)
            for chance in [0.05 if kind != "closest" else float(np.clip(0.5 + 0.1 * base + easy[cluster], 0, 1))]
        ]  # fmt: skip
        jsr = sum(row.verdict == "jailbreak" for row in rows) / len(rows)
        rates = [make_rate(jsr, refusal_margin=sum(row.refusal_margin or 0 for row in rows) / len(rows))]
        arm = "base" if kind == "base" else f"semantic/{kind}/0.25/audio"
        seeds = {} if kind == "base" else {"seed": seed, "draw": 0, "selection_hash": kind}
        asked.append((run_result(arm, rates, base_seed=base, **seeds), rows))
    return asked


def test_prompts_are_a_random_effect_of_the_mixed_model_if_their_outcomes_are_known() -> None:
    asked = asked_runs(("distant", "closest"), bases=3, clusters=12)
    runs = [run for run, _ in asked]
    (found,) = recipe_comparisons(runs, "plain", None, 40, outcomes=PromptOutcomes.of_runs(asked))
    (without,) = recipe_comparisons(runs, "plain", None, 40)
    model, nested = found.mixed_model, without.mixed_model
    assert model is not None
    assert nested is not None
    assert [part.name for part in model.effects] == ["base", "seed", "prompt", "seed x prompt"]
    assert [part.groups for part in model.effects] == [3, 6, 12, 72]
    assert model.effects[2].sd > 0.1
    assert model.difference == pytest.approx(found.difference)
    assert model.high - model.low > nested.high - nested.low  # about further prompts, too
    assert found.model_copy(update={"mixed_model": None}) == without.model_copy(update={"mixed_model": None})

    one_base = [(run, rows) for run, rows in asked if run.base_seed == 0]
    (alone,) = recipe_comparisons(
        [run for run, _ in one_base], "plain", None, 40, outcomes=PromptOutcomes.of_runs(one_base)
    )
    assert alone.mixed_model is not None
    assert [part.name for part in alone.mixed_model.effects] == ["seed", "prompt", "seed x prompt"]


def test_prompts_of_unequal_clusters_count_by_cluster_and_other_prompts_are_left_out() -> None:
    asked = asked_runs(("distant", "closest"), bases=3, clusters=12)
    runs = [run for run, _ in asked]
    uneven = PromptOutcomes.of_runs((run, [row for row in rows if row.prompt_id != "p0-1"]) for run, rows in asked)
    (found,) = recipe_comparisons(runs, "plain", None, 40, outcomes=uneven)
    assert found.mixed_model is not None
    assert "Every cluster of prompts counts the same here, whatever its number" in (found.mixed_model.note or "")
    other = PromptOutcomes.of_runs((run, rows[2 * place :]) for place, (run, rows) in enumerate(asked))
    (found,) = recipe_comparisons(runs, "plain", None, 40, outcomes=other)
    assert found.mixed_model is not None
    assert [part.name for part in found.mixed_model.effects] == ["base", "seed"]  # runs were given different prompts


def test_margins_have_the_model_too_and_every_run_is_compared_with_its_own_base() -> None:
    asked = asked_runs(("base", "closest"), bases=3, clusters=12)
    outcomes = PromptOutcomes.of_runs(asked)
    (rates,) = recipe_comparisons([run for run, _ in asked], "plain", None, 40, outcomes=outcomes)
    assert rates.mixed_model is None  # the change of a rate from its base is not normal
    (found,) = recipe_margin_comparisons([run for run, _ in asked], "plain", None, 40, outcomes=outcomes)
    assert found.mixed_model is not None
    assert [part.name for part in found.mixed_model.effects] == ["base", "seed", "prompt", "seed x prompt"]
    assert found.mixed_model.difference == pytest.approx(found.difference)
    lacking = [(run, [replace(rows[0], refusal_margin=None), *rows[1:]]) for run, rows in asked]
    (found,) = recipe_margin_comparisons(
        [run for run, _ in lacking], "plain", None, 40, outcomes=PromptOutcomes.of_runs(lacking)
    )
    assert found.mixed_model is not None
    assert [part.name for part in found.mixed_model.effects] == ["base", "seed"]
