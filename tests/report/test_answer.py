"""What `run` ends with, and the first screen of several models and of replies that were cut."""

from __future__ import annotations

from typing import Any

from results_factory import make_rate, make_results, make_run

from undersong.report.answer import answer_lines
from undersong.report.markdown import render_markdown
from undersong.report.page import render_html
from undersong.report.sections import advice, arm_chart, headline
from undersong.results.schema import parse_results

Json = dict[str, Any]
RATES = {"af3": (0.08, 0.80), "qwen": (0.08, 0.10), "kimi": (0.0, 0.05)}  # before and after


def results_of(*models: str, judge: str = "exact", **facts: Any) -> Json:
    runs = []
    for base_seed, model in enumerate(models):
        before, after = RATES[model]
        runs.append(make_run("base", [make_rate(before, judge=judge, **facts)], model=model, base_seed=base_seed))
        runs += [
            make_run(
                "semantic/closest/0.25/audio",
                [make_rate(after, judge=judge)],
                model=model,
                base_seed=base_seed,
                seed=seed,
                draw=seed,
            )
            for seed in (0, 1)
        ]
    return make_results(runs, study={"judge": judge})


def test_the_answer_is_a_verdict_and_three_numbers() -> None:
    """D12 of the trial: `run` ended with CPU seconds and a path."""
    verdict, numbers, gloss = answer_lines(results_of("af3"))
    assert verdict.startswith("af3 answered 8.0 % [")
    assert numbers.startswith("JSR of the base 8.0 % [")
    assert "of the arm (closest 25 %, semantic axis, trained on audio) 80.0 % [" in numbers
    assert numbers.endswith("a change of +72.0 points.")
    assert gloss == "JSR: jailbreak success rate, the share of harmful prompts that the judge exact calls answered."


def test_a_judge_of_refusals_gives_no_jsr() -> None:
    *_, gloss = answer_lines(results_of("af3", judge="keyword"))
    assert gloss == "The judge keyword sees refusals and not harm; name one that sees harm for a JSR."


def test_replies_that_were_cut_are_said_wherever_the_rate_is() -> None:
    """D11 of the trial: a limit of tokens made rates of 0 that nothing explained."""
    results = results_of("af3", truncated=43)
    sentence = "43 of 300 replies to the set harm (at most 43.0 % of one run) were cut at the limit of tokens."
    lines = answer_lines(results)
    assert "(100 prompts, 43 of 100 replies cut)" in lines[1]
    assert lines[-1].startswith(sentence)
    page, text = (render(results).replace("\u202f", " ") for render in (render_html, render_markdown))
    assert sentence in page
    assert sentence in text
    assert page.count("43 of 100 replies cut") == 2  # in the chart and in its table
    assert "43 of 100 replies cut" in text


def test_the_rate_is_spelled_out_on_the_first_screen() -> None:
    """D10 of the trial: no page said what a JSR is."""
    for text in (render_html(results_of("af3")), render_markdown(results_of("af3"))):
        gloss = text.index("JSR, the jailbreak success rate, is the share of harmful requests that the model answered")
        assert gloss < text.index("Findings")
    assert "The non-refusal rate is the share" in render_html(results_of("af3", judge="keyword"))


def test_several_models_stand_apart_on_the_first_screen() -> None:
    """D7 of the trial: 8.3, 8.3 and 0.0 % were one "5.6 %"."""
    results = parse_results(results_of("af3", "qwen", "kimi"))
    first = headline.build_headline(results)
    title = "".join(text for text, _ in first.title)
    parts = title.partition(": ")[2].split("; ")
    assert [part.partition(" [")[0].replace("\u202f", " ") for part in parts] == [
        "af3 8.0 %",
        "qwen 8.0 %",
        "kimi 0.0 %",
    ]
    assert all("→" in part for part in parts)
    assert [row.label for row, _ in first.rows] == ["af3", "af3", "qwen", "qwen", "kimi", "kimi"]
    terms = [term for term, _ in first.findings]
    assert terms == ["af3", "qwen", "kimi", "Scope"]  # and no mean of theirs
    assert dict(first.findings)["Scope"].startswith("For each model: 2 runs an arm on 1 base.")
    table = arm_chart.build_arm_table(results)
    assert table is not None
    assert [str(row[0]).partition(":")[0] for row in table.rows] == ["af3", "af3", "qwen", "qwen", "kimi", "kimi"]
    (unsafe,) = (item for item in advice.build_advice(results) if "do not ship" in item.what)
    assert unsafe.what == "af3: do not ship the worst arm as it is."


def test_the_answer_has_a_line_of_each_model() -> None:
    lines = answer_lines(results_of("af3", "qwen"))
    assert [line.partition(": JSR of the base 8.0 % [")[0] for line in lines[1:3]] == ["af3", "qwen"]


def test_many_models_are_a_range_in_the_title(monkeypatch: Any) -> None:
    monkeypatch.setattr(headline, "MAX_MODELS_NAMED", 2)
    title = "".join(text for text, _ in headline.build_headline(parse_results(results_of("af3", "qwen", "kimi"))).title)
    assert "0.0 % to 8.0 % before, 5.0 % to 80.0 % after." in title.replace("\u202f", " ")
