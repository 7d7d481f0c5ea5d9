"""Several studies put together: which runs count, what the units are, and what is refused."""

from __future__ import annotations

import copy
from statistics import fmean
from typing import Any

import pytest
from results_factory import make_provenance, make_rate, make_results, make_run

from undersong.research.results.synthesis import SynthesisOptions, study_differences, synthesize
from undersong.research.statistics.meta_analysis import pooled_variances, random_effects
from undersong.results.schema import Results, parse_results
from undersong.study.results.run_contrasts import ArmFilter
from undersong.types import UndersongError

Json = dict[str, Any]
RISES = {"m1": (0.50, 0.55, 0.60), "m2": (0.20, 0.30, 0.25), "m3": (0.40, 0.35, 0.45)}
BASE_RATE, RANDOM_RATE = 0.05, 0.15


def study(name: str, rises: dict[str, tuple[float, ...]], seeds: tuple[int, ...] = (0, 1, 2), **changes: Any) -> Json:
    """A study of some bases: after training on the closest data the rate rises by so much, by seed."""
    runs = []
    for place, (model, by_seed) in enumerate(rises.items()):
        runs.append(make_run("base", [make_rate(BASE_RATE)], model=model, base_seed=place))
        for seed, rise in zip(seeds, by_seed):
            for kind, rate in (("closest", BASE_RATE + rise), ("random", RANDOM_RATE)):
                facts = {"model": model, "base_seed": place, "kind": kind, "seed": seed, "draw": seed}
                facts |= {"selection_hash": f"{kind} of {model}", "loss": 0.1 * seed + rate}
                runs.append(make_run(f"semantic/{kind}/0.25/audio", [make_rate(rate)], **facts))
    settings = {"name": name, "seeds": list(seeds), "draws": list(seeds)} | changes.pop("study", {})
    return make_results(runs, study=settings, **changes)


def parsed(*studies: Json) -> list[tuple[str, Results]]:
    return [(one["study"]["name"], parse_results(one)) for one in studies]


def only(model: str) -> dict[str, tuple[float, ...]]:
    return {model: RISES[model]}


def test_bases_are_the_units_and_agree_with_random_effects_by_hand() -> None:
    found = synthesize(
        parsed(study("a", only("m1")), study("b", {k: RISES[k] for k in ("m2", "m3")})), SynthesisOptions()
    )
    (analysis,) = found.analyses
    values = [list(by_seed) for by_seed in RISES.values()]
    expected = random_effects([fmean(v) for v in values], pooled_variances(values))
    assert (analysis.unit, analysis.units, analysis.modality, analysis.metric) == ("base", 3, "audio", "jsr")
    assert (analysis.mean, analysis.low, analysis.high, analysis.p) == pytest.approx(
        (expected.mean, expected.low, expected.high, expected.p)
    )
    assert analysis.heterogeneity is not None
    assert expected.heterogeneity is not None
    assert analysis.heterogeneity.tau == pytest.approx(expected.heterogeneity.tau)
    assert [(e.study, e.model, e.runs) for e in analysis.estimates] == [("a", "m1", 3), ("b", "m2", 3), ("b", "m3", 3)]
    assert [e.difference for e in analysis.estimates] == pytest.approx([0.55, 0.25, 0.4])
    assert analysis.mixed_model is not None
    assert analysis.mixed_model.difference == pytest.approx(0.4, abs=1e-3)


def test_studies_of_one_base_are_averaged_within_it() -> None:
    later = study("b", {"m1": (0.7, 0.7, 0.7), "m2": RISES["m2"]}, seeds=(3, 4, 5))
    (analysis,) = synthesize(parsed(study("a", only("m1")), later), SynthesisOptions()).analyses
    assert (analysis.unit, analysis.units, len(analysis.estimates)) == ("base", 2, 3)
    assert analysis.mean == pytest.approx(fmean([fmean([0.55, 0.7]), 0.25]), abs=0.01)
    assert sum(estimate.weight for estimate in analysis.estimates) == pytest.approx(1)


def test_studies_are_the_units_where_all_have_one_base() -> None:
    studies = parsed(study("a", only("m1")), study("b", {"m1": (0.3, 0.2, 0.4)}, seeds=(3, 4, 5)))
    (analysis,) = synthesize(studies, SynthesisOptions()).analyses
    assert (analysis.unit, analysis.units) == ("study", 2)
    assert any("not for other bases" in note for note in analysis.notes)


def test_the_same_training_in_two_results_counts_once() -> None:
    first, second = study("a", RISES), study("b", {"m1": (*RISES["m1"], 0.9)}, seeds=(0, 1, 2, 3))
    (analysis,) = synthesize(parsed(first, second), SynthesisOptions()).analyses
    assert [(e.study, e.model, e.runs) for e in analysis.estimates][1] == ("b", "m1", 1)
    assert any(
        note.startswith("3 of 4 differences in b rest on trainings that were counted") for note in analysis.notes
    )


def test_a_training_that_two_differences_share_is_said() -> None:
    first, second = study("a", RISES), study("b", RISES)
    for run in second["runs"]:
        run["loss"] = run["rates"][0]["rate"] + (9 if run["kind"] == "random" else 0.1 * (run.get("seed") or 0))
    (analysis,) = synthesize(parsed(first, second), SynthesisOptions("closest-random")).analyses
    assert "9 differences in b share one of their two trainings with another difference." in analysis.notes


def test_the_store_tells_the_same_training_without_a_loss() -> None:
    def with_adapters(one: Json, prefix: str) -> Json:
        for run in one["runs"]:
            run["loss"] = None
        one["provenance"] = make_provenance(result_hash=one["study"]["name"]) | {
            "run_adapters": [None if run["kind"] == "base" else f"{prefix}{i}" for i, run in enumerate(one["runs"])]
        }
        return one

    shared, other = study("a", RISES), study("b", RISES)
    same = synthesize(parsed(with_adapters(shared, "x"), with_adapters(other, "x")), SynthesisOptions())
    assert [e.study for e in same.analyses[0].estimates] == ["a"] * 3
    apart = synthesize(parsed(with_adapters(shared, "x"), with_adapters(other, "y")), SynthesisOptions())
    assert len(apart.analyses[0].estimates) == 6


def test_results_that_are_named_twice_count_once() -> None:
    one = study("a", RISES, provenance=make_provenance())
    found = synthesize(parsed(one, copy.deepcopy(one)), SynthesisOptions())
    assert [one.name for one in found.studies] == ["a"]
    assert any("counted once" in note for note in found.notes)


def test_other_contrasts_and_arms() -> None:
    studies = parsed(study("a", RISES))
    against_random = synthesize(studies, SynthesisOptions("closest-random")).analyses[0]
    assert [e.difference for e in against_random.estimates] == pytest.approx([0.45, 0.15, 0.3])
    assert synthesize(studies, SynthesisOptions("random-base")).analyses[0].mean == pytest.approx(0.1)
    with pytest.raises(UndersongError, match="has the contrast closest-base with these options"):
        synthesize(studies, SynthesisOptions(arms=ArmFilter(train_modality="text")))
    with pytest.raises(UndersongError, match="closest-distant"):
        synthesize(studies, SynthesisOptions("closest-distant"))


def test_a_defense_is_compared_with_no_defense() -> None:
    one = study("a", RISES)
    closest = [run for run in one["runs"] if run["kind"] == "closest"]
    one["defended_runs"] = [{**run, "defense": "mix", "rates": [make_rate(BASE_RATE + 0.1)]} for run in closest]
    found = synthesize(parsed(one), SynthesisOptions("defense:mix")).analyses[0]
    assert [e.difference for e in found.estimates] == pytest.approx([0.1 - 0.55, 0.1 - 0.25, 0.1 - 0.4])


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"judge": "keyword"}, "judge keyword, where a has exact"),
        ({"config": {"evaluation": {"max_new_tokens": 64}}}, "max new tokens 64, where a has 32"),
        (
            {"config": {"prompt_sets": {"harm": {"corpus": "other"}}}},
            "harmful prompts corpus other, where a has corpus h",
        ),
        ({"protocol": "published"}, "protocol published, where a has uniform"),
    ],
)
def test_what_makes_studies_incomparable_is_said_fact_by_fact(changes: Json, phrase: str) -> None:
    config = {"evaluation": {"max_new_tokens": 32}, "prompt_sets": {"harm": {"corpus": "h"}}}
    other = {"config": config | changes.get("config", {})} | {k: v for k, v in changes.items() if k != "config"}
    studies = parsed(study("a", only("m1"), study={"config": config}), study("b", only("m2"), study=other))
    assert study_differences(studies, SynthesisOptions()) == [[], [phrase]]


def test_an_unknown_contrast_set_or_modality_is_refused() -> None:
    studies = parsed(study("a", RISES))
    for options, said in (
        (SynthesisOptions("closest-bse"), "did you mean 'closest-base'"),
        (SynthesisOptions(prompt_set="hram"), "did you mean 'harm'"),
        (SynthesisOptions(modality="video"), "take audio or text"),
    ):
        with pytest.raises(UndersongError, match=said):
            synthesize(studies, options)


def test_a_run_without_its_partner_is_not_left_out_in_silence() -> None:
    one = study("a", RISES)
    del one["runs"][2]  # of random data, at the first seed
    with pytest.raises(UndersongError, match=r"a has no partner of semantic/closest/0.25/audio at draw 0, seed 0"):
        synthesize(parsed(one), SynthesisOptions("closest-random"))


@pytest.mark.parametrize("config", [{"evaluation": [1], "prompt_sets": "x", "defenses": 3}, {"evaluation": {"a": 1}}])
def test_a_config_of_another_program_is_read_as_far_as_it_goes(config: Json) -> None:
    one = study("a", RISES, study={"config": config, "steps": [0, 40]})
    assert synthesize(parsed(one), SynthesisOptions()).analyses[0].units == 3
    one["study"]["steps"] = []
    with pytest.raises(UndersongError, match="closest-base"):
        synthesize(parsed(one), SynthesisOptions())


def test_arms_trained_on_speech_and_on_text_are_not_averaged_unasked() -> None:
    def with_text_arms(one: Json) -> Json:
        typed = copy.deepcopy([run for run in one["runs"] if run["kind"] != "base"])
        for run in typed:
            run |= {"arm": run["arm"].replace("/audio", "/text"), "train_modality": "text", "selection_hash": "typed"}
        return one | {"runs": [*one["runs"], *typed]}

    studies = parsed(with_text_arms(study("a", RISES)))
    with pytest.raises(UndersongError, match="trained on audio and on text; give --trained-on audio or text, or"):
        synthesize(studies, SynthesisOptions())
    for arms in (ArmFilter(train_modality="audio"), ArmFilter(train_modality="text"), ArmFilter(mix_modalities=True)):
        assert synthesize(studies, SynthesisOptions(arms=arms)).analyses[0].mean == pytest.approx(0.4)
