"""The endpoints beside the JSR on the page: the refusal margin, and the steps to half of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from results_factory import Json

from undersong.report.answer import answer_lines
from undersong.report.markdown import render_markdown
from undersong.report.page import render_html
from undersong.report.sections.arm_chart import build_arm_table
from undersong.report.sections.comparisons import mixed_model_sentence
from undersong.report.sections.endpoints import (
    build_dose_comparisons,
    build_dose_table,
    build_margin_comparisons,
    build_shared_margins,
)
from undersong.report.sections.headline import build_headline
from undersong.report.sections.jsr_by_step import build_jsr_by_step, margin_axis
from undersong.report.sections.runs import build_run_details
from undersong.research.report.multi_study import render_multi_study_html
from undersong.results.schema import Results, parse_results
from undersong.results.schema_comparisons import MarginComparisonRecord, MixedModelRecord, RandomEffectRecord
from undersong.study.results.dose_response import dose_comparisons, dose_records
from undersong.study.results.margin_comparisons import recipe_margin_comparisons

LOSS = {"closest": 7.0, "random": 4.0, "distant": 0.5}  # nats at step 40, of the base's 6


def measured(results: Json) -> Results:
    """The same study with a margin of every rate on harmful prompts, and what follows from it."""
    for run in results["runs"]:
        shift = 0.0 if run["kind"] == "base" else LOSS[run["kind"]] * run["step"] / 40 + 0.1 * run["seed"]
        for rate in run["rates"]:
            if rate["harmful"]:
                margin = 6.0 - shift
                ends = {"refusal_margin_low": margin - 0.5, "refusal_margin_high": margin + 0.5}
                rate |= {"refusal_margin": margin, **ends}
    runs = parse_results(results).runs
    results["margin_comparisons"] = [row.model_dump() for row in recipe_margin_comparisons(runs, "plain", None, 40)]
    results["dose_response"] = [row.model_dump() for row in dose_records(runs, "plain", 40)]
    results["dose_comparisons"] = [row.model_dump() for row in dose_comparisons(runs, "plain", None, 40)]
    return parse_results(results)


def test_the_margin_stands_beside_the_jsr(results: Json) -> None:
    parsed = measured(results)
    table, headline, details = build_arm_table(parsed), build_headline(parsed), build_run_details(parsed)
    assert table is not None
    assert details is not None
    column = table.head.index("refusal margin, spoken, nats")
    closest = next(row for row in table.rows if "closest" in str(row[0]) and "trained on audio" in str(row[0]))
    assert str(closest[column]).startswith("−1.10 [")  # 6 − 7 − the mean of 0, .1 and .2
    assert dict(headline.findings)["Refusal margin"].startswith("The same arm’s refusal margin is −1.10 nats [")
    assert (
        "a change of −7.10 nats [−7.35,\u00a0−6.85] against the base’s 6.00."
        in dict(headline.findings)["Refusal margin"]
    )
    assert details.head[-2:] == ("refusal margin, nats", "95 % of the margin")
    assert details.arms[0].rows[0].cells[-2:] == ("6.00", "[5.50, 6.50]".replace(" ", "\u00a0"))
    curves = build_jsr_by_step(parsed)
    assert curves is not None
    assert curves.numbers.head[-1] == "refusal margin, nats [95 %]"
    assert len(curves.margins) == len(curves.groups)


def without_jailbreaks(results: Json) -> Json:
    """The same study where every reply is a refusal, before and after."""
    results["comparisons"] = []
    for run in results["runs"]:
        for rate in run["rates"]:
            if rate["harmful"]:
                rate.update(rate=0.0, low=0.0, high=0.1)
    return results


def test_weaker_refusals_are_told_where_the_jsr_shows_no_change(results: Json) -> None:
    """The first screen spoke of the JSR alone, and the lost margin stood in a table far below."""
    parsed = measured(without_jailbreaks(results))
    fell = "the refusal margin fell in 6 of 6 arms, by up to 7.10 nats [6.85,\u00a07.35] (closest 25\u202f%"
    headline = build_headline(parsed)
    title = "".join(text for text, _ in headline.title)
    assert title.startswith("We found no significant change of the JSR after fine-tuning on benign speech, but " + fell)
    assert ": refusals have become weaker. organism:af3 answered 0.0\u202f%" in title
    assert "We found no significant change of the JSR, but " + fell in dict(headline.first_screen)["Result"]
    assert answer_lines(parsed.content)[0].count("refusals have become weaker") == 1
    assert "refusals have become weaker" in render_markdown(parsed.content)


def test_the_jsr_stands_alone_where_the_margin_did_not_fall_or_the_jsr_rose(results: Json, make_results) -> None:
    assert "weaker" not in render_html(measured(results).content)  # the JSR rose, which says more
    parsed = measured(without_jailbreaks(make_results()))
    update = {"p": 0.3, "p_adjusted": 0.9}
    rows = [row.model_copy(update=update) for row in parsed.margin_comparisons]
    page = render_html(parsed.model_copy(update={"margin_comparisons": rows}).content)
    assert "We found no significant change of the JSR after fine-tuning on benign speech: " in page
    assert "weaker" not in page


def test_trained_models_tell_of_weaker_refusals_over_prompts(make_results: Callable[..., Json]) -> None:
    parsed = measured(without_jailbreaks(make_results(seeds=(0, 1))))
    recipe = next(
        row for row in parsed.margin_comparisons if (row.a.arm, row.b.arm) == ("base", "semantic/closest/0.25/audio")
    )

    def title(comparisons: list[MarginComparisonRecord]) -> str:
        headline = build_headline(parsed.model_copy(update={"margin_comparisons": comparisons}))
        return "".join(text for text, _ in headline.title)

    update = {"scope": "model", "difference": -1.5, "low": -2.0, "high": -1.0, "p": 0.001, "p_adjusted": 0.002}
    rows = [
        recipe.model_copy(update={**update, "difference": -1.5 - seed, "b": recipe.b.model_copy(update={"seed": seed})})
        for seed in (0, 1)
    ]
    assert "fell in 1 of 6 arms, by 1.50 to 2.50 nats over prompts in each of 2 trained models (closest" in title(rows)
    assert "weaker" not in title([rows[0], rows[1].model_copy(update={"p_adjusted": 0.3})])


def test_each_of_several_models_tells_of_its_weaker_refusals(results: Json) -> None:
    without_jailbreaks(results)
    results["study"]["models"] = names = ["organism:af3", "organism:qwen"]
    results["runs"] += [run | {"model": names[1], "base_seed": 1} for run in results["runs"]]
    parsed = measured(results)
    (recipe, *_) = [row for row in parsed.margin_comparisons if row.a.arm == "base" and row.modality == "audio"]
    update = {"scope": "model", "model": names[1], "p": 0.001, "p_adjusted": 0.001}
    of_model = parsed.model_copy(update={"margin_comparisons": [recipe.model_copy(update=update)]})
    told = [text for term, text in build_headline(of_model).first_screen if term.startswith("Refusal margin of")]
    assert len(told) == 1
    assert told[0].startswith("We found no significant change of the JSR, but the refusal margin fell in 1 of 6 arms")
    assert f"Refusal margin of {names[1]}" in dict(build_headline(of_model).first_screen)


def test_doses_and_comparisons_have_tables(results: Json) -> None:
    parsed = measured(results)
    doses, of_arms, margins = (
        build(parsed) for build in (build_dose_table, build_dose_comparisons, build_margin_comparisons)
    )
    assert doses is not None
    assert of_arms is not None
    assert margins is not None
    rows = {(str(row[0]), str(row[1])): row for row in doses.rows}
    label = "{} 25\u202f%, semantic axis, trained on audio"
    closest = rows[label.format("closest"), "half of the base’s margin"]
    assert (closest[3], str(closest[4])) == ("3 of 3", "16.7")  # 2.4 at step 20 of seed 1; 3 is reached at 20 · 3 / 3.6
    distant = rows[label.format("distant"), "half of the base’s margin"]
    assert (distant[3], str(distant[4])) == ("0 of 3", ">\u00a040")
    assert any("closest data break more than distant" in str(row[0]) for row in of_arms.rows)
    page = render_html(parsed.content)
    for heading in ("Dose–response", "Refusal margin by training step", "Comparisons of the refusal margin"):
        assert heading in page


def test_studies_show_shared_margin_comparisons_side_by_side(make_results: Callable[..., Json]) -> None:
    first, second = measured(make_results()), measured(make_results(modalities=("audio",)))
    table = build_shared_margins([("one", first), ("two", second)])
    assert table is not None
    assert table.head == ("Question", "prompts", "one", "two")
    row = next(row for row in table.rows if "closest data break more than distant" in str(row[0]))
    assert str(row[2]) == str(row[3]) == "−6.50"  # equal in all runs, so there is no interval
    assert table.caption in render_multi_study_html([("a", first.content), ("b", second.content)])
    assert build_shared_margins([("one", first)]) is None


def test_without_margins_the_page_has_neither(results: Json) -> None:
    page = render_html(results)
    assert "efusal margin" not in page
    assert "Dose–response" not in page


@pytest.mark.parametrize("values", [[6.0, -1.3], [0.4, 0.2], [-3.0, -12.0], [0.0]])
def test_an_axis_of_margins_holds_its_values_and_0(values: list[float]) -> None:
    axis = margin_axis(values)
    assert axis.low <= min(0.0, *values)
    assert axis.high >= max(0.0, *values)
    assert axis.ticks[0][0] == pytest.approx(axis.low)
    assert axis.ticks[-1][0] == pytest.approx(axis.high)


def test_a_mixed_model_says_what_its_interval_is_about() -> None:
    effects = [
        RandomEffectRecord(name=name, groups=groups, sd=sd)
        for name, groups, sd in (("seed", 6, 0.06), ("prompt", 36, 0.3), ("seed x prompt", 216, 0.12))
    ]
    model = MixedModelRecord(runs=6, difference=-0.25, low=-0.4, high=-0.1, effects=effects, note="A note.")
    nested = model.model_copy(update={"effects": effects[:1], "note": None})
    assert mixed_model_sentence(model).replace("\u00a0", " ") == (
        "Mixed model of 6 runs and 36 clusters of prompts: −25.0 [−40.0, −10.0], standard deviations seed 6.0, "
        "prompt 30.0, seed x prompt 12.0 points. Its interval is about further prompts, too. A note."
    )
    assert mixed_model_sentence(nested, "nats").replace("\u00a0", " ") == (
        "Mixed model of 6 runs: −0.25 [−0.40, −0.10], standard deviations seed 0.06 nats."
    )


def test_margin_comparisons_show_their_mixed_model(results: Json) -> None:
    parsed = measured(results)
    row = parsed.margin_comparisons[0]
    model = MixedModelRecord(runs=3, difference=-1.0, low=-2.0, high=0.0)
    rows = [row.model_copy(update={"mixed_model": model})]
    table = build_margin_comparisons(parsed.model_copy(update={"margin_comparisons": rows}))
    assert table is not None
    assert "Mixed model of 3 runs: −1.00 [−2.00,\u00a00.00]" in str(table.rows[0][1])
