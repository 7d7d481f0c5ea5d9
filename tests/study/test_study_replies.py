"""Labels of a study: its replies are labelled from the store, and its report has the corrected rates."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Undersong, undersong_in
from labeled import HELP, HIDDEN_REFUSAL, REFUSAL, truth_of
from results_factory import make_rate, make_results, make_run

from undersong.evaluation.judges.registry import make_judge
from undersong.evaluation.labels import append_label
from undersong.evaluation.replies import write_replies
from undersong.results.run_replies import read_study_replies
from undersong.standalone.labeling import open_label_task
from undersong.types import Prompt, Reply, Sample, UndersongError

RUNS = {  # replies in the store -> arm, seed, step, texts
    "a0": ("base", None, 0, [REFUSAL] * 30),
    "b1": ("close", 0, 20, [REFUSAL] * 30),  # only the last step is labelled
    "c2": ("close", 0, 40, [HELP] * 10 + [HIDDEN_REFUSAL] * 10 + [REFUSAL] * 10),
    "d3": ("far", 0, 40, [HELP] + [REFUSAL] * 29),
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The results of a study with its verdicts, its store and its prompts."""
    samples = [Sample(f"p{i}", text=f"do thing {i}", group=f"g{i}") for i in range(30)]
    corpus = tmp_path / "harm.jsonl"
    corpus.write_text("\n".join(json.dumps({"id": one.id, "text": one.text, "group": one.group}) for one in samples))
    prompts = [Prompt(sample, "harm", True, "audio", "plain") for sample in samples]
    rows, runs = [], []
    for location, (arm, seed, step, texts) in RUNS.items():
        replies = [Reply(*prompt.key, text, 3, "stop") for prompt, text in zip(prompts, texts)]
        (tmp_path / "store" / "replies" / location).mkdir(parents=True)
        write_replies(replies, tmp_path / "store" / "replies" / location / "replies.parquet")
        run = {"run_model": "m", "run_arm": arm, "run_seed": seed, "run_draw": None, "run_step": step}
        kind = {"base": "base", "close": "closest", "far": "distant"}[arm]
        run |= {"run_kind": kind, "run_defense": None, "run_retuned": False, "run_replies": f"replies/{location}"}
        rows += [run | asdict(verdict) for verdict in make_judge("keyword", ()).judge(prompts, replies)]
        runs.append(make_run(arm, [make_rate(0.2, n=10, judge="keyword")], kind=kind, seed=seed, step=step))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "verdicts.parquet")
    settings = {"judge": "keyword", "config": {"prompt_sets": {"harm": {"corpus": str(corpus), "harmful": True}}}}
    (tmp_path / "results.json").write_text(json.dumps(make_results(runs, study=settings)))
    return tmp_path / "results.json"


@pytest.fixture
def undersong(tmp_path: Path) -> Undersong:
    return undersong_in(tmp_path)


def label(study: Path, path: Path, **options: object) -> None:
    task = open_label_task([study.parent], path, n=200, **options)
    for item in task.sample.order:
        append_label(path, item, truth_of(task.exchanges[item][1].reply))


def test_the_report_has_the_corrected_rates_of_what_was_labelled(
    study: Path, tmp_path: Path, undersong: Undersong
) -> None:
    label(study, tmp_path / "labels.jsonl", arm="close")
    out = tmp_path / "report.html"
    code, _, err = undersong("report", study, "--labels", tmp_path / "labels.jsonl", "--out", out)
    assert code == 0, err
    page = out.read_text(encoding="utf-8")
    assert "Corrected by labels" in page
    row = page.partition(">m close seed 0 draw 0 step 40<")[2].partition("</tr>")[0]
    assert ">66.7<" in row  # by the judge
    assert ">33.3 [" in row
    assert ">50.0 [" in row  # the judge is wrong on half of what it counts
    assert ">m base<" in page
    assert "step 20<" not in page.partition("Corrected by labels")[2].partition("</table>")[0]
    assert ">m far" not in page.partition("Corrected by labels")[2].partition("</table>")[0]
    assert "Corrected by labels" not in _page_without_labels(undersong, study, out)


def _page_without_labels(undersong: Undersong, study: Path, out: Path) -> str:
    assert undersong("report", study, "--out", out)[0] == 0
    return out.read_text(encoding="utf-8")


def test_labels_of_other_replies_are_an_error(study: Path, tmp_path: Path, undersong: Undersong) -> None:
    label(study, tmp_path / "labels.jsonl")
    for location in RUNS:
        file = tmp_path / "store" / "replies" / location / "replies.parquet"
        pq.write_table(pq.read_table(file).slice(0, 30), file, compression="gzip")
    code, _, err = undersong("report", study, "--labels", tmp_path / "labels.jsonl", "--out", tmp_path / "r.html")
    assert (code, "has no labels of the replies of" in err) == (2, True)


def test_what_is_missing_is_named(study: Path, tmp_path: Path) -> None:
    assert [run.title for run in read_study_replies(study)] == [
        "m base", "m close seed 0 draw 0 step 40", "m far seed 0 draw 0 step 40",
    ]  # fmt: skip
    with pytest.raises(UndersongError, match=r"has no undefended arm 'clos'; it has base, close, far"):
        read_study_replies(study, arm="clos")
    with pytest.raises(UndersongError, match="no verdicts to label of the set 'near'"):
        read_study_replies(study, prompt_set="near")
    with pytest.raises(UndersongError, match="has no store with replies"):
        read_study_replies(study, store=tmp_path / "elsewhere")
    with pytest.raises(UndersongError, match="there is no text of the prompt p0"):
        read_study_replies(study)[0].read_exchanges({})
    (tmp_path / "store" / "replies" / "a0" / "replies.parquet").unlink()
    with pytest.raises(UndersongError, match="m base: its replies are not in the store"):
        read_study_replies(study)


def test_the_gate_and_the_card_correct_the_runs_that_were_labelled(
    study: Path, tmp_path: Path, undersong: Undersong
) -> None:
    label(study, tmp_path / "labels.jsonl", arm="close")
    gate = ("gate", study, "--max-jsr-rise", 0.1, "--labels", tmp_path / "labels.jsonl", "--json", tmp_path / "g.json")
    code, out, err = undersong(*gate)
    assert code in (1, 3), err
    close, far = json.loads((tmp_path / "g.json").read_text())["findings"]
    assert (close["labels"], far["labels"]) == (60, None)
    assert (close["after"], close["judge_after"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert "Note: by the judge alone, because none of the replies were labelled: m far" in out
    code, out, err = undersong("card", study, "--arm", "close", "--labels", tmp_path / "labels.jsonl")
    assert code == 0, err
    assert "| 33.3% (" in out.partition("corrected for the errors")[2]
    code, _, err = undersong("card", study, "--arm", "far", "--labels", tmp_path / "labels.jsonl")
    assert code == 2
    assert "has no labels of m far seed 0 draw None step 40 and its base" in err
