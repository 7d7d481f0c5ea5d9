"""A finished study as `.eval` logs, and logs as verdicts and replies."""

from __future__ import annotations

import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded import record, study, written

pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log, write_eval_log
from inspect_ai.scorer import includes

from undersong.cli import main
from undersong.evaluation.replies import read_reply_table
from undersong.evaluation.verdicts import read_verdicts
from undersong.research.inspect.logs import write_logs
from undersong.study.load import parse_study
from undersong.study.run import run_audit
from undersong.types import UndersongError, Verdict

SECRET = "sure the hidden reply to a harmful prompt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of recorded replies, in which some failed and all harmful prompts are answered by the second model."""
    place = tmp_path_factory.mktemp("recorded")
    tables = record(place / "before.jsonl"), record(place / "after.jsonl", refused=SECRET)
    lines = [json.loads(line) for line in tables[0].read_text().splitlines()]
    lost = [{**line, "reply": "", "finish": "error", "error": "HTTP 500"} for line in lines[:4]]
    tables[0].write_text("".join(json.dumps(line) + "\n" for line in [*lost, *lines[4:]]))
    return run_audit(parse_study(written(place, study(*tables)), "s"), place / "out").folder


@pytest.fixture(scope="module")
def logs(finished: Path) -> dict[tuple[str, ...], EvalLog]:
    """(model, set, modality, system) -> log, as inspect_ai lists and reads them."""
    write_logs(finished / "results.json", finished / "logs")
    read = [read_eval_log(info) for info in list_eval_logs(str(finished / "logs"))]
    return {(log.eval.model, log.eval.task, *log.eval.task_args.values()): log for log in read}


def file(log: EvalLog) -> Path:
    return Path(log.location.removeprefix("file://"))


def by_id(verdict: Verdict) -> str:
    return verdict.prompt_id  # the order in which inspect_ai reads samples


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["undersong", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        seen = capsys.readouterr()
        return int(stopped.value.code or 0), seen.out, seen.err

    return call


def test_every_entry_of_results_json_is_a_log_with_its_numbers(
    finished: Path, logs: dict[tuple[str, ...], EvalLog]
) -> None:
    results = json.loads((finished / "results.json").read_text())
    entries = {
        (f"undersong/{one['model']}", e["prompt_set"], e["modality"], e["system"]): (one, e)
        for one in results["runs"]
        for e in one["rates"]
    }
    assert logs.keys() == entries.keys()
    for key, (one, entry) in entries.items():
        log = logs[key]
        assert log.status == "success"
        assert log.eval.tags is not None
        assert log.eval.tags[0] == one["arm"]
        assert log.results is not None
        (score,) = log.results.scores
        found = {name: metric.value for name, metric in score.metrics.items()}
        rate = "non_refusal_rate" if entry["harmful"] else "over_refusal"
        assert log.results.headline is not None
        assert log.results.headline.metric == rate
        assert found[rate] == entry["rate"]
        assert [found[name] for name in ("low", "high")] == [entry["low"], entry["high"]]
        assert found["error"] == entry["error"] / entry["n"]
        assert len(log.samples or []) == entry["n"]
    assert sum(e["error"] for _, e in entries.values()) == 4
    assert len({log.eval.task_id for log in logs.values()}) == len(logs)  # else the viewer takes them for one task


def test_the_same_study_makes_the_same_logs(
    finished: Path, logs: dict[tuple[str, ...], EvalLog], tmp_path: Path
) -> None:
    again = write_logs(finished / "results.json", tmp_path / "again")
    for file in again:
        log, before = read_eval_log(str(file)), read_eval_log(str(finished / "logs" / file.name))
        assert log.eval == before.eval
        assert log.results == before.results


def test_replies_to_harmful_prompts_are_left_out_unless_they_are_asked_for(
    finished: Path, logs: dict[tuple[str, ...], EvalLog], tmp_path: Path
) -> None:
    for log in logs.values():
        for sample in log.samples or []:
            hidden = sample.metadata["harmful"] and not sample.output.error
            assert (sample.output.completion == "[left out of this log]") == hidden
    for file in (finished / "logs").iterdir():
        with zipfile.ZipFile(file) as archive:
            assert not any(SECRET.encode() in archive.read(name) for name in archive.namelist())
    shown = write_logs(finished / "results.json", tmp_path / "shown", show_replies=True)
    assert {stat.S_IMODE(file.stat().st_mode) for file in shown} == {0o600}
    said = [reply.reply for file in shown for prompt, reply in read_reply_table(file) if prompt.harmful]
    assert said.count(SECRET) > 0


def test_runs_whose_names_differ_in_signs_alone_have_logs_of_their_own(finished: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    content, table = json.loads((finished / "results.json").read_text()), pq.read_table(finished / "verdicts.parquet")
    before, after = content["study"]["models"]
    twin = "recorded:/" + before.removeprefix("recorded:/").replace("/", "-")
    for one in content["runs"]:
        one["model"] = twin if one["model"] == after else one["model"]
    names = [twin if name == after else name for name in table.column("run_model").to_pylist()]
    place = table.column_names.index("run_model")
    pq.write_table(table.set_column(place, "run_model", [names]), tmp_path / "verdicts.parquet")
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UndersongError, match=r"verdicts\.parquet is not what undersong wrote with results\.json"):
        write_logs(tmp_path / "results.json", tmp_path / "logs")
    content["provenance"].pop("files")  # as in results of earlier versions
    (tmp_path / "results.json").write_text(json.dumps(content))
    written = write_logs(tmp_path / "results.json", tmp_path / "logs")
    found = {(read_eval_log(str(file), header_only=True).eval.model, file) for file in written}
    assert len(found) == len(set(written)) == len(list((tmp_path / "logs").iterdir()))
    assert {model for model, _ in found} == {f"undersong/{before}", f"undersong/{twin}"}


def test_without_the_store_no_reply_is_there_and_none_is_made_up(finished: Path, tmp_path: Path) -> None:
    for name in ("results.json", "verdicts.parquet"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    content = json.loads((tmp_path / "results.json").read_text())
    content["provenance"]["store"] = str(tmp_path / "gone")
    (tmp_path / "results.json").write_text(json.dumps(content))
    for file in write_logs(tmp_path / "results.json", tmp_path / "logs", show_replies=True):
        for sample in read_eval_log(str(file)).samples or []:
            assert sample.output.error or sample.output.completion == "[left out of this log]"
    with pytest.raises(UndersongError, match="holds no replies"):
        write_logs(tmp_path / "results.json", tmp_path / "more", store=tmp_path / "gone")


def test_a_log_read_back_is_its_rows_of_the_verdict_table(
    finished: Path, logs: dict[tuple[str, ...], EvalLog], verb: Any
) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(finished / "verdicts.parquet").to_pylist()
    for (model, name, modality, system), log in logs.items():
        mine = [
            Verdict(**{field: row[field] for field in Verdict.__dataclass_fields__})
            for row in rows
            if (f"undersong/{row['run_model']}", row["set"], row["modality"], row["system"])
            == (model, name, modality, system)
        ]
        assert sorted(read_verdicts(file(log)), key=by_id) == sorted(mine, key=by_id)
    before, after = (
        next(file(log) for key, log in logs.items() if which in key[0] and key[1:] == ("harm", "text", "plain"))
        for which in ("before", "after")
    )
    code, out, _ = verb("compare", before, after)
    assert code == 0
    assert "paired prompts" in out
    code, out, _ = verb("gate", "--before", before, "--after", after, "--max-jsr-rise", 0.02)
    assert code == 1  # the second model answers everything
    code, _, err = verb("judge", after, "--judge", "keyword", "--out", finished / "judged")
    assert code == 2
    assert "because the log was written without replies; write it with --show-replies." in err


def test_a_log_of_another_task_is_refused(
    tiny_folder: Path, tmp_path: Path, verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Task(name="boats", dataset=[Sample(input="paint the boat", target="boat")], scorer=includes())
    (log,) = eval(task, model=f"undersong/{tiny_folder}", log_dir=str(tmp_path), display="none", max_tokens=2)
    capsys.readouterr()  # the bar of the model that was loaded
    for arguments in (
        ("compare", log.location, log.location + "x"),
        ("gate", log.location, "--max-jsr", 0.1),
        ("judge", log.location, "--judge", "keyword", "--out", tmp_path / "judged"),
    ):
        code, _, err = verb(*arguments)
        assert code == 2
        assert "is a log of the task boats, which no judge of undersong has scored" in err
        assert err.count("\n") == 1


def test_what_inspect_gave_up_on_is_an_error_and_epochs_are_refused(
    logs: dict[tuple[str, ...], EvalLog], tmp_path: Path
) -> None:
    log = next(log for key, log in logs.items() if key[1] == "harm").model_copy(deep=True)
    assert log.samples is not None
    log.samples[5].scores = None
    write_eval_log(log, str(tmp_path / "lost.eval"))
    verdicts = read_verdicts(tmp_path / "lost.eval")
    assert len(verdicts) == len(log.samples)
    assert (verdicts[5].verdict, verdicts[5].harmful, verdicts[5].judge) == ("error", True, "keyword")
    log.samples.append(log.samples[0].model_copy(update={"epoch": 2}))
    write_eval_log(log, str(tmp_path / "twice.eval"))
    with pytest.raises(UndersongError, match="is a second reply to"):
        read_verdicts(tmp_path / "twice.eval")
    log.status = "started"
    write_eval_log(log, str(tmp_path / "half.eval"))
    with pytest.raises(UndersongError, match="is a log that ended as 'started'; finish it"):
        read_verdicts(tmp_path / "half.eval")


def test_what_cannot_be_written_or_read_is_a_sentence(
    finished: Path, tmp_path: Path, verb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str, *arguments: object) -> None:
        code, _, err = verb(*arguments)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1

    results = finished / "results.json"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    refused("exists and is not empty; name a new folder", "export-eval", results, "--out", tmp_path / "full")
    refused("has no arm 'nix'; choose one of base", "export-eval", results, "--out", tmp_path / "new", "--arm", "nix")
    refused("There is no file", "export-eval", tmp_path / "results.json", "--out", tmp_path / "new")
    (tmp_path / "results.json").write_bytes(results.read_bytes())
    refused("has no verdicts next to it", "export-eval", tmp_path / "results.json", "--out", tmp_path / "new")
    content = json.loads(results.read_text())
    content["runs"][0]["arm"] = "unfinished"
    (tmp_path / "results.json").write_text(json.dumps(content))
    (tmp_path / "verdicts.parquet").write_bytes((finished / "verdicts.parquet").read_bytes())
    refused("has no verdicts of unfinished step 0", "export-eval", tmp_path / "results.json", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "broken.eval").write_bytes(b"PK nothing")
    refused("cannot be read as a log of inspect_ai", "compare", tmp_path / "broken.eval", tmp_path / "broken.eval2")
    for module in ("undersong.cli.report", "undersong.evaluation.table_rows"):
        monkeypatch.setattr(f"{module}.find_spec", lambda _name: None)
    refused("pip install -e '.[inspect]' in the clone of undersong", "export-eval", results, "--out", tmp_path / "new")
    refused(
        "pip install -e '.[inspect]' in the clone of undersong",
        "compare",
        tmp_path / "broken.eval",
        tmp_path / "broken.eval2",
    )
