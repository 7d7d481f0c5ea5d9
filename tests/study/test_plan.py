"""A plan is a run that makes nothing: the same artifacts, counted in a store that stays as it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from undersong.cli import main
from undersong.models.load_options import LoadOptions
from undersong.store.inventory import list_store
from undersong.study.load import packaged_study, parse_study, with_seeds
from undersong.study.planning.plan import StudyPlan, plan_study, study_status
from undersong.study.planning.planning_store import plan_artifacts
from undersong.study.planning.store_use import folders_of_study
from undersong.study.run import run_audit
from undersong.study.schema import Study
from undersong.types import UndersongError

TINY = {
    "study": "tiny",
    "models": ["organism:af3"],
    "pool": "organism:pool",
    "reference": "organism:reference",
    "prompt_sets": {
        "harm": {"corpus": "organism:unseen-harm", "harmful": True},
        "near": {"corpus": "organism:test-near"},
    },
    "axes": {"semantic": "tfidf", "characters": "char-ngrams"},
    "selection": {"kinds": ["closest"], "fractions": [0.25], "filters": {"speaker": ["A"]}},
    "tuning": {"modalities": ["audio"], "seeds": [0], "draws": [0], "save_steps": [1, 2], "batch_size": 4},
    "evaluation": {"modalities": ["audio"], "max_new_tokens": 6, "per_step_prompt_sets": ["harm"]},
    "mechanism": {
        "contrast_harmful": "organism:reference",
        "contrast_benign": "organism:unseen-benign",
        "held_out_harmful": "harm",
        "held_out_benign": "near",
    },
}


def tiny(**changes: object) -> Study:
    return parse_study({**TINY, **changes}, "tiny")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished run of `tiny`."""
    out = tmp_path_factory.mktemp("plan")
    run_audit(tiny(), out)
    return out / "store"


def counts(planned: StudyPlan) -> dict[str, tuple[int, int]]:
    """stage -> (in all, in the store)"""
    return {row.stage: (row.total, row.done) for row in planned.rows}


def contents(root: Path) -> list[tuple[Path, int]]:
    return [(path, path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))]


def test_an_empty_store_stays_empty(tmp_path: Path) -> None:
    planned = plan_study(tiny(), tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert {row.done for row in planned.rows} == {0}
    assert "upper limits" in planned.summary
    assert all(row.cost != "unknown" for row in planned.rows)  # the organism's costs are known


def test_plans_what_the_run_then_makes(tmp_path: Path, store: Path) -> None:
    made = {folder.name: sum(not path.name.startswith(".") for path in folder.iterdir()) for folder in store.iterdir()}
    assert counts(plan_study(tiny(), tmp_path / "empty")) == {stage: (count, 0) for stage, count in made.items()}


def test_after_the_run_there_is_nothing_to_do(store: Path) -> None:
    before = contents(store)
    planned = plan_study(tiny(), store)
    assert all(row.done == row.total and row.cost == "0" for row in planned.rows)
    assert planned.summary.startswith(f"All {sum(row.total for row in planned.rows)} artifacts are in ")
    assert contents(store) == before


def test_what_is_missing_is_found_by_name(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    for folder in (tmp_path / "store" / "verdicts").iterdir():
        if not folder.name.startswith("."):
            shutil.rmtree(folder)
            break
    shutil.rmtree(tmp_path / "store" / "selection")  # drawn again from the distances, so the adapter is still found
    whole, planned = counts(plan_study(tiny(), store)), counts(plan_study(tiny(), tmp_path / "store"))
    assert planned == whole | {"verdicts": (whole["verdicts"][0], whole["verdicts"][0] - 1), "selection": (1, 0)}


def test_a_second_seed_is_one_more_training_at_the_cost_of_the_first(store: Path) -> None:
    planned = plan_study(with_seeds(tiny(), 2), store)
    assert counts(planned)["adapter"] == (2, 1)
    assert counts(planned)["selection"] == (1, 1)  # closest draws nothing
    assert counts(planned)["replies"] == (5, 3)  # base; two steps of two runs
    rows = {row.stage: row for row in planned.rows}
    assert rows["adapter"].cost not in ("0", "unknown")
    assert "upper limits" not in planned.summary


def test_another_dtype_hears_again(store: Path) -> None:
    planned = counts(plan_study(tiny(), store, LoadOptions(dtype="bfloat16")))
    assert planned["corpus"][0] == planned["corpus"][1]
    assert planned["features"][1] == planned["adapter"][1] == planned["replies"][1] == 0
    with pytest.raises(UndersongError, match="no dtype 'float8'"):
        plan_study(tiny(), store, LoadOptions(dtype="float8"))


def test_what_the_store_holds_under_another_loading_is_told(store: Path) -> None:
    shared = ("corpus", "embeddings")  # by which no model was loaded
    held = sum(not path.name.startswith(".") for path in store.glob("*/*") if path.parent.name not in shared)
    for asked, how in (
        (LoadOptions(dtype="bfloat16"), "--dtype float32"),
        (LoadOptions(attention="eager", quantize=8), "--dtype float32 without --attention and --quantize"),
    ):
        line = f"The store holds {held} of these made with {how}; pass {how} to see them."
        assert study_status(tiny(), store, asked).other_loadings == (line,)
        assert plan_study(tiny(), store, asked).other_loadings == (line,)


def test_what_is_missing_under_every_loading_is_not_told_of_one(store: Path, tmp_path: Path) -> None:
    bfloat16 = LoadOptions(dtype="bfloat16")
    assert study_status(tiny(), store).other_loadings == ()  # all there
    assert (
        study_status(with_seeds(tiny(), 2), store).other_loadings == ()
    )  # missing, and of the very loading that was asked
    assert study_status(tiny(models=["organism:kimi"]), store, bfloat16).other_loadings == ()  # of another model
    assert study_status(tiny(), tmp_path / "empty", bfloat16).other_loadings == ()
    shutil.copytree(store, tmp_path / "store")
    next((tmp_path / "store" / "replies").glob("[0-9a-f]*/replies.parquet")).unlink()
    assert (
        study_status(tiny(), tmp_path / "store", bfloat16).other_loadings == ()
    )  # damaged, which is told who asks for it
    with pytest.raises(UndersongError, match=r"replies\.parquet is missing"):
        study_status(tiny(), tmp_path / "store")


def test_several_loadings_are_told_by_the_options_that_make_them(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    given = LoadOptions(dtype="bfloat16", attention="eager", quantize=4)
    first = next(one for one in plan_artifacts(tiny(), store, given).planned.values() if one.stage == "features")
    made = next((store / "features").glob("[0-9a-f]*/provenance.json"))
    facts = json.loads(made.read_bytes())
    facts |= {"config": {**facts["config"], "loading": given.cache_key}, "hash": first.expected.hash, "files": {}}
    folder = tmp_path / "store" / "features" / first.expected.location.name
    folder.mkdir()
    (folder / "provenance.json").write_text(json.dumps(facts))
    told = study_status(tiny(), tmp_path / "store", LoadOptions(dtype="float16")).other_loadings
    assert len(told) == 2
    how = "--dtype bfloat16 --attention eager --quantize 4"
    assert f"The store holds 1 of these made with {how}; pass {how} to see them." in told


def test_the_verbs_tell_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    for verb in ("status", "plan"):
        asked = ["undersong", verb, str(tmp_path / "tiny.yaml"), "--store", str(store), "--dtype", "bfloat16"]
        monkeypatch.setattr(sys, "argv", asked)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
        assert "made with --dtype float32; pass --dtype float32 to see them.\n" in capsys.readouterr().out


def test_the_cost_of_another_model_is_unknown(tmp_path: Path) -> None:
    planned = plan_study(tiny(models=["someone/speaks"], evaluation={"judge": "keyword"}), tmp_path / "store")
    assert {row.cost for row in planned.rows} == {"unknown"}
    assert "cost is unknown" in planned.summary


def test_what_a_run_would_refuse_a_plan_refuses(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="nearest known is 'tfidf'"):
        plan_study(tiny(axes={"semantic": "tfid"}), tmp_path)
    with pytest.raises(UndersongError, match="no organism 'af9'"):
        plan_study(tiny(models=["organism:af9"]), tmp_path)
    with pytest.raises(UndersongError, match=r"no manifest nowhere\.jsonl"):
        plan_study(tiny(pool="nowhere.jsonl"), tmp_path)


def test_the_demo_trains_every_arm_once(tmp_path: Path) -> None:
    study = packaged_study("demo")
    selection, tuning = study.selection, study.tuning
    selections = sum(len(tuning.draws) if kind == "random" else 1 for kind in selection.kinds)
    arms = len(selection.axes) * len(selection.kinds) * len(selection.fractions) * len(tuning.seeds)
    planned = counts(plan_study(study, tmp_path / "store"))
    assert planned["selection"][0] == len(selection.axes) * len(selection.fractions) * selections
    assert planned["adapter"][0] == arms * len(tuning.modalities)
    assert planned["replies"][0] == len(study.models) * (1 + planned["adapter"][0] * len(tuning.save_steps))


def test_the_verb_loads_no_model(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY, sort_keys=False))
    code = (
        "import sys; from undersong.cli import main\n"
        "sys.argv = ['undersong', 'plan', 'tiny.yaml']\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print('loaded', [name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    assert "loaded []" in done.stdout
    assert "artifacts are to be made" in done.stdout.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_store_knows_what_a_study_does_not_use(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    folders = list_store(copy)
    needed = folders_of_study(tiny(), copy, folders, LoadOptions())
    assert [folder.stage for folder in folders if (folder.stage, folder.name) not in needed] == []
    with pytest.raises(UndersongError, match="holds nothing of study tiny, so what it needs is not known"):
        folders_of_study(tiny(models=["organism:kimi"], pool="organism:unseen-benign"), copy, folders, LoadOptions())

    fewer = {key: value for key, value in TINY.items() if key != "mechanism"}
    (tmp_path / "fewer.yaml").write_text(yaml.safe_dump(fewer))
    before = {folder.stage for folder in folders}
    monkeypatch.setattr(
        sys, "argv", ["undersong", "store", str(copy), "--unused-by", str(tmp_path / "fewer.yaml"), "--delete"]
    )
    with pytest.raises(SystemExit):
        main()
    assert "artifacts (" in (out := capsys.readouterr().out)
    assert "were removed." in out
    assert before - {folder.stage for folder in list_store(copy)} == {"direction", "states", "projections"}
    status = study_status(tiny(mechanism=None), copy, LoadOptions())
    assert all(row.done == row.total for row in status.rows)  # what it needs is all there

    shutil.rmtree(copy / "proximity")
    shutil.rmtree(copy / "selection")
    with pytest.raises(UndersongError, match="does not hold the screening of study tiny on axis semantic"):
        folders_of_study(tiny(), copy, list_store(copy), LoadOptions())


def test_a_benign_reference_that_is_tested_on_is_remarked(tmp_path: Path) -> None:
    remarks = plan_study(tiny(benign_reference="organism:test-near"), tmp_path).remarks
    assert "organism:test-near is the prompt set near, too" in remarks[0]
    assert plan_study(tiny(benign_reference="organism:test-far"), tmp_path).remarks == ()
