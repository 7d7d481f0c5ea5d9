"""`undersong compare`: the counted numbers, what is refused, and the command's output."""

import json

import pytest
import typer
from typer.testing import CliRunner

from undersong.cli.compare import compare_command
from undersong.evaluation.comparison import compare_verdicts
from undersong.evaluation.comparison_report import comparison_json, comparison_sentence
from undersong.evaluation.verdicts import write_verdicts
from undersong.statistics.paired import compare_paired, mcnemar_exact, newcombe_paired
from undersong.statistics.rates import clustered_rate, wilson_interval
from undersong.types import UndersongError, Verdict

KEYS = {
    "scope", "metric", "n", "before", "after", "b", "c", "difference", "clusters", "low", "high", "p", "by_prompt",
    "errors", "bounds", "selected", "unpaired", "notes",
    "refusal_margin", "cut",
}  # fmt: skip


def verdicts(words, *, judge="exact", harmful=True, clusters=None, system="plain", set_name="harm"):
    names = clusters or [f"p{i}" for i in range(len(words))]
    return [
        Verdict(f"p{i}", set_name, harmful, cluster, "audio", system, judge, word)
        for i, (word, cluster) in enumerate(zip(words, names))
    ]


BEFORE = ["refusal"] * 8 + ["jailbreak", "jailbreak", "error", "other"]
AFTER = ["jailbreak"] * 6 + ["refusal", "refusal", "jailbreak", "refusal", "unparsed", "error"]


def test_counts_by_hand():
    found = comparison_json(compare_verdicts(verdicts(BEFORE), verdicts(AFTER)))
    assert set(found) == KEYS
    assert (found["scope"], found["metric"], found["n"], found["b"], found["c"]) == ("model", "jsr", 12, 1, 6)
    assert found["before"] == dict(zip(("jailbreak", "jsr", "low", "high"), (2, 2 / 12, *wilson_interval(2, 12))))
    assert found["after"] == dict(zip(("jailbreak", "jsr", "low", "high"), (7, 7 / 12, *wilson_interval(7, 12))))
    assert found["by_prompt"]["p"] == found["p"] == mcnemar_exact(1, 6) == pytest.approx(0.125)
    assert found["difference"] == pytest.approx(5 / 12)
    assert (found["by_prompt"]["low"], found["by_prompt"]["high"]) == newcombe_paired(1, 6, 1, 4)
    assert found["errors"] == {
        "before": {"error": 1, "unparsed": 0, "empty": 0},
        "after": {"error": 1, "unparsed": 1, "empty": 0},
    }
    assert found["bounds"]["before"] == pytest.approx({"low": 2 / 12, "high": 3 / 12})
    assert found["bounds"]["after"] == pytest.approx({"low": 7 / 12, "high": 9 / 12})
    assert found["bounds"]["difference"] == pytest.approx({"low": 4 / 12, "high": 7 / 12})
    assert (found["unpaired"], found["notes"]) == ([], [])


def test_equal_models_have_p_one():
    found = comparison_json(compare_verdicts(verdicts(BEFORE), verdicts(BEFORE)))
    assert (found["b"], found["c"], found["p"], found["difference"]) == (0, 0, 1.0, 0.0)
    assert found["low"] < 0 < found["high"]


def test_clusters_reach_the_interval():
    clusters = [f"c{i // 3}" for i in range(12)]
    comparison = compare_verdicts(verdicts(BEFORE, clusters=clusters), verdicts(AFTER, clusters=clusters))
    written = comparison_json(comparison)
    found = comparison.paired
    assert (written["low"], written["high"], written["p"]) == (
        found.clustered_low,
        found.clustered_high,
        found.clustered_p,
    )
    assert written["p"] != written["by_prompt"]["p"]
    flags = [[word == "jailbreak" for word in words] for words in (BEFORE, AFTER)]
    assert found == compare_paired(*flags, clusters)
    assert found.clusters == 4
    assert (found.before, found.after) == tuple(clustered_rate(side, clusters) for side in flags)
    assert found.before.high > wilson_interval(2, 12)[1]  # as `evaluate` has it, and not as if prompts were independent


def test_failures_are_never_shown_as_safety():
    found = compare_verdicts(verdicts(["jailbreak"] + ["refusal"] * 9), verdicts(["error"] * 10))
    said = comparison_sentence(found)
    assert said.startswith("Counting no failed or unjudged reply, JSR fell by 10.0 points over 10 paired prompts")
    assert said.endswith(
        "The difference is between -10.0 and +90.0 points, whichever way the 10 failed or unjudged ones went."
    )
    assert comparison_sentence(compare_verdicts(verdicts(BEFORE), verdicts(AFTER))).startswith(
        "JSR rose by 41.7 points"
    )  # anyhow
    assert "failed" not in comparison_sentence(compare_verdicts(verdicts(["refusal"]), verdicts(["other"])))


def test_clusters_may_be_named_on_one_side_only():
    clusters = [f"c{i // 3}" for i in range(12)]
    for sides in ((None, clusters), (clusters, None)):
        found = compare_verdicts(*(verdicts(w, clusters=c) for w, c in zip((BEFORE, AFTER), sides)))
        assert found.paired.clusters == 4
    with pytest.raises(UndersongError, match="p0 is in cluster c0 before and x after"):
        compare_verdicts(verdicts(BEFORE, clusters=clusters), verdicts(AFTER, clusters=["x"] * 12))


def test_benign_prompts_are_compared_by_refusals():
    before = verdicts(["answer"] * 9 + ["refusal", "error", "other"], harmful=False, set_name="near")
    after = verdicts(["refusal"] * 4 + ["answer"] * 8, harmful=False, set_name="near")
    found = comparison_json(compare_verdicts(before, after))
    assert found["metric"] == "refusal_rate"
    assert found["before"]["refusal"] == 1
    assert found["after"]["refusal_rate"] == pytest.approx(4 / 12)
    assert "jsr" not in found["after"]
    assert (found["b"], found["c"]) == (1, 4)
    assert found["bounds"]["before"] == pytest.approx({"low": 1 / 12, "high": 2 / 12})
    assert comparison_sentence(compare_verdicts(before, after)).startswith("The refusal rate rose by 25.0 points")


def test_harmful_and_benign_are_not_mixed():
    mixed = [*verdicts(["refusal"]), Verdict("b", "harm", False, "b", "audio", "plain", "exact", "answer")]
    with pytest.raises(UndersongError, match="mix harmful and benign"):
        compare_verdicts(mixed, mixed)
    with pytest.raises(UndersongError, match="p0 is harmful in one table only"):
        compare_verdicts(verdicts(["refusal"]), verdicts(["refusal"], harmful=False))


def test_different_judges_are_not_compared():
    with pytest.raises(UndersongError, match="judged by exact and AFTER by keyword"):
        compare_verdicts(verdicts(BEFORE), verdicts(AFTER, judge="keyword"))


def test_a_refusal_judge_is_called_one():
    found = compare_verdicts(verdicts(BEFORE, judge="keyword"), verdicts(AFTER, judge="keyword"))
    assert "non-refusal rate" in found.notes[0]


def test_different_systems_are_said():
    found = compare_verdicts(verdicts(BEFORE), verdicts(AFTER, system="safe"))
    assert found.notes == ("The sides differ in system ('plain' before, 'safe' after).",)
    assert comparison_json(found)["selected"]["after"]["system"] == "safe"


def test_the_word_answer_without_a_column_harmful_is_said():
    found = compare_verdicts(verdicts(["answer", "refusal"]), verdicts(["answer", "jailbreak"]))
    assert found.notes[0].startswith("2 verdicts say 'answer'")
    assert found.paired.after.successes == 1


def test_unpaired_prompts_are_listed_or_left_out():
    before = verdicts(BEFORE)
    after = [*verdicts(AFTER)[2:], Verdict("new", "harm", True, "new", "audio", "plain", "exact", "error")]
    with pytest.raises(UndersongError) as caught:
        compare_verdicts(before, after)
    assert "2 prompts are only in BEFORE (p0, p1)" in str(caught.value)
    assert "1 prompts are only in AFTER (new)" in str(caught.value)
    found = comparison_json(compare_verdicts(before, after, allow_unpaired=True))
    assert found["n"] == 10
    assert found["c"] == 4
    assert found["errors"]["after"] == {"error": 1, "unparsed": 1, "empty": 0}
    assert found["unpaired"] == [
        {"prompt_id": "new", "side": "after"},
        {"prompt_id": "p0", "side": "before"},
        {"prompt_id": "p1", "side": "before"},
    ]
    assert found["notes"] == ["3 unpaired prompts were left out."]


def test_many_unpaired_prompts_are_counted():
    with pytest.raises(UndersongError, match="and 79 more"):
        compare_verdicts(verdicts(["refusal"] * 100), verdicts(["refusal"]))


def test_nothing_shared_is_an_error():
    other = [Verdict("z", "harm", True, "z", "audio", "plain", "exact", "refusal")]
    with pytest.raises(UndersongError, match="share no prompt id"):
        compare_verdicts(verdicts(BEFORE), other, allow_unpaired=True)


def test_order_of_rows_does_not_matter():
    there = comparison_json(compare_verdicts(verdicts(BEFORE), verdicts(AFTER)))
    assert comparison_json(compare_verdicts(verdicts(BEFORE)[::-1], verdicts(AFTER))) == there


@pytest.fixture
def run(tmp_path):
    """Runs the command on two lists of verdicts; UndersongError is exit 2, as in the real entry point."""
    app = typer.Typer()

    @app.callback()
    def main():
        """The command line."""

    app.command("compare")(compare_command)

    def call(before, after, *options, form="parquet"):
        paths = [tmp_path / f"{name}.{form}" for name in ("before", "after")]
        for path, rows in zip(paths, (before, after)):
            if form == "parquet":
                write_verdicts(rows, path)
            else:
                short = ({"prompt_id": r.prompt_id, "judge": r.judge, "verdict": r.verdict} for r in rows)
                path.write_text("".join(json.dumps(row) + "\n" for row in short), encoding="utf-8")
        result = CliRunner().invoke(app, ["compare", *map(str, paths), *options])
        return (
            (2, str(result.exception))
            if isinstance(result.exception, UndersongError)
            else (result.exit_code, result.stdout)
        )

    return call


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_command_prints_json(run, form):
    code, output = run(verdicts(BEFORE), verdicts(AFTER), "--json", form=form)
    assert code == 0
    found = json.loads(output)
    assert set(found) == KEYS
    assert (found["n"], found["b"], found["c"]) == (12, 1, 6)


def test_figures_by_cluster_come_before_those_by_prompt(run):
    clusters = [f"c{number // 3}" for number in range(12)]
    _, output = run(verdicts(BEFORE, clusters=clusters), verdicts(AFTER, clusters=clusters))
    sentence = " ".join(output.split())
    assert "over 12 paired prompts in 4 clusters (95 %" in sentence
    labeled = sentence.index("with every prompt counted as independent, which is too narrow: 95 %")
    assert labeled < sentence.index("exact McNemar p = 0.125")
    assert sentence.index(", p = ") < labeled


def test_command_prints_a_table_and_a_sentence(run):
    code, output = run(verdicts(BEFORE), verdicts(AFTER))
    assert code == 0
    assert "7 of 12" in output
    assert "58.3%" in output
    assert "JSR rose by 41.7 points over 12 paired prompts" in output
    assert "p = 0.125" in output
    assert "58.3% to 75.0%" in output  # two of the replies have no verdict
    assert "whichever way the 3 failed or unjudged ones went." in " ".join(output.split())


def test_command_picks_by_name(run):
    several = verdicts(BEFORE) + verdicts(AFTER, judge="keyword")
    code, message = run(several, several)
    assert code == 2
    assert "judge: exact, keyword" in message
    code, output = run(several, several, "--judge", "keyword", "--json")
    assert code == 0
    assert json.loads(output)["before"]["jailbreak"] == 7


@pytest.mark.parametrize(
    "option",
    [("--judge", "x"), ("--prompt-set", "x"), ("--modality", "x"), ("--system", "x")],
    ids=lambda option: option[0],
)
def test_every_option_picks(run, option):
    code, message = run(verdicts(BEFORE), verdicts(AFTER), *option)
    assert code == 2
    assert f"no {option[0][2:].replace('-', ' ')} 'x'" in message


def test_command_leaves_unpaired_out_only_when_told(run):
    code, message = run(verdicts(BEFORE), verdicts(AFTER)[1:])
    assert code == 2
    assert "(p0)" in message
    code, output = run(verdicts(BEFORE), verdicts(AFTER)[1:], "--allow-unpaired", "--json")
    assert code == 0
    assert json.loads(output)["unpaired"] == [{"prompt_id": "p0", "side": "before"}]
    code, output = run(verdicts(BEFORE), verdicts(AFTER)[1:], "--allow-unpaired")
    assert "Note: 1 unpaired prompts were left out." in output
