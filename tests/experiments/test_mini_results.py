"""The results of Mini's study: every question asked of made results, and the page of a small real run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from organism_results import PROMPTS, results_of
from results_factory import synthetic

from experiments.mini import results_page
from experiments.mini.claims import MINI, NOISES, PROXIMITY, Part, claims
from experiments.mini.results_page import BEGIN, END, MORE, results_lines, write_page
from experiments.mini.runner import STUDY, Task, _next, _plan, check_corpora, run_all, tasks_of
from experiments.paper.agreement import CONTRADICTS, UNKNOWN
from experiments.paper.answers import answered
from experiments.paper.evidence import Evidence
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.study.load import load_studies, parse_study
from undersong.study.schema import Study
from undersong.types import UndersongError

STUDIES = {one.study: one for one in load_studies(STUDY).studies}
RATES = {"closest": 60, "random-alike": 35, "random": 20, "distant": 5, "closest-matched": 40, "distant-matched": 12}


def as_planned(_who: str, run: Mapping[str, Any]) -> int:
    """A world in which mood and length do a part of it and closeness the rest, with noise by seed, arm and set."""
    wobble = ((run["seed"] or 0) + sum(map(ord, f"{run['kind']}{run['axis']}{run['set']}"))) % 3
    if not run["harmful"]:
        return PROMPTS - 10 - wobble
    if run["kind"] == "base":
        return 2
    hits = RATES[run["kind"]] - 12 * (run["axis"] != "semantic") * (run["kind"] == "closest")
    hits -= 25 * (run["train_modality"] == "text") * (run["kind"] == "closest")
    return hits // (2 if run["step"] == 8 else 1) + wobble


def write(folder: Path, names: list[str]) -> None:
    for name in names:
        file = folder / name / "results.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(results_of(STUDIES[name], as_planned)))


def test_the_parts_are_those_of_the_study() -> None:
    assert [part.study(MINI) for part in results_page.PARTS] == list(STUDIES)
    assert list(NOISES.values()) == [Part("babble"), Part("white")]


def test_what_is_closeness_and_what_comes_with_it(tmp_path: Path) -> None:
    write(tmp_path, ["mini-small-proximity", "mini-small-modality", "mini-small-axes", "mini-small-curve"])
    found = {one.claim.title: one.answers[0] for one in answered(Evidence(tmp_path), claims(PROXIMITY), (MINI,))}
    whole, near, beside = (
        found[f"advbench: {b} against {a}"].found
        for b, a in (("closest", "random"), ("closest", "random-alike"), ("random-alike", "random"))
    )
    assert whole is not None
    assert near is not None
    assert beside is not None
    assert whole.value == pytest.approx(near.value + beside.value)
    assert near.low is not None
    assert near.low > 0
    assert found["advbench: closest-matched against distant-matched"].found is not None
    assert found["advbench: closest data, 25 steps against 8"].found is not None
    assert found["advbench: system prompt against none"].found is None  # that part is not there
    assert found["advbench spoken: trained on speech against on its text"].word == UNKNOWN  # three equal differences
    assert CONTRADICTS not in {one.word for one in found.values()}


def test_more_seeds_take_the_place_of_three(tmp_path: Path) -> None:
    write(tmp_path, ["mini-small-proximity", "mini-small-seeds", "mini-small-babble", "mini-small-axes"])
    found = {one.claim.title: one.answers[0].found for one in answered(Evidence(tmp_path), claims(MORE), (MINI,))}
    closest = found["advbench: closest against random"]
    assert closest is not None
    assert closest.runs == closest.units == 5
    noisy = found["advbench: closest data under babble at 10 dB against clean"]  # of the part with as many seeds
    assert noisy is not None
    assert noisy.runs == 3
    rows = [line for line in results_lines("mini-small", tmp_path) if "advbench: closest against random |" in line]
    assert len(rows) == 1
    assert "| 5 (5) |" in rows[0]


def test_printed_figures_stand_beside_ours(tmp_path: Path) -> None:
    write(tmp_path, ["mini-small-proximity", "mini-small-axes"])
    lines = results_lines("mini-small", tmp_path)
    (row,) = [line for line in lines if line.startswith("| random |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:4] == ["5.38", "13.85", "5.19"]
    rate, low, high = map(float, re.findall(r"[\d.]+", cells[4].replace("\\", "")))
    assert low < 100 * 20 / PROMPTS < high
    assert low < rate < high
    (speaker,) = [line for line in lines if line.startswith("| closest by voice")]
    assert "| 33.08 | 21.35 | 30.09† |" in speaker
    assert "Not run: modality, mechanism, defenses, voices, babble, white, frames, curve, seeds." in "\n".join(lines)
    assert not any(line.startswith("| closest, babble") for line in lines)


def test_the_learning_curve_has_every_step(tmp_path: Path) -> None:
    write(tmp_path, ["mini-small-curve"])
    lines = results_lines("mini-small", tmp_path)
    (end,) = (index for index, line in enumerate(lines) if line.endswith("# What this design can detect"))
    rows = [line for line in lines[:end] if re.match(r"\| \d+ \|", line)]
    steps = {int(cells[1]): cells[2:5] for cells in (row.split("|") for row in rows) if len(cells) == 6}
    assert list(steps) == [0, 2, 4, 8, 16, 25]
    assert len(set(steps[0])) == 1  # before tuning there is one model
    closest, half = (float(steps[step][0].split()[0]) for step in (25, 8))
    assert RATES["closest"] <= closest * PROMPTS / 100 <= RATES["closest"] + 2
    assert half < closest
    assert all("\\[" in cell for cells in steps.values() for cell in cells)


def test_other_voices_and_babble_have_their_rates(tmp_path: Path) -> None:
    write(tmp_path, ["mini-small-voices"])
    lines = results_lines("mini-small", tmp_path)
    table = lines[lines.index("#### Other voices and noise") :]
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in table[:12] if line.startswith("|")}
    assert list(rows)[2:] == ["before tuning", "closest", "random", "distant"]
    for kind in ("closest", "random", "distant"):
        for cell in rows[kind]:
            assert RATES[kind] <= float(cell.split()[0]) * PROMPTS / 100 <= RATES[kind] + 2


def test_results_go_between_the_marks(tmp_path: Path) -> None:
    write(tmp_path, ["mini-small-proximity"])
    page = tmp_path / "mini.md"
    page.write_text(f"# Mini\n{BEGIN}\nstale line\n{END}\n## After\n")
    write_page("mini-small", tmp_path, page)
    once = page.read_text()
    assert once.startswith(f"# Mini\n{BEGIN}\n")
    assert once.endswith(f"{END}\n## After\n")
    assert "stale line" not in once
    write_page("mini-small", tmp_path, page)
    assert page.read_text() == once
    page.write_text("# No marks\n")
    with pytest.raises(UndersongError, match="does not say where results go"):
        write_page("mini-small", tmp_path, page)
    with pytest.raises(UndersongError, match="no results of mini-small"):
        write_page("mini-small", tmp_path / "empty", tmp_path / "new.md")


def test_results_wait_for_their_arms_and_hold_nothing_up(tmp_path: Path) -> None:
    one, two = (STUDIES[name] for name in ("mini-small-babble", "mini-small-white"))
    todo = [
        *tasks_of(one, tmp_path, tmp_path, DEFAULT_LOAD_OPTIONS),
        *tasks_of(two, tmp_path, tmp_path, DEFAULT_LOAD_OPTIONS),
    ]
    order: list[str] = []
    running: list[Task] = []
    while todo or running:
        while len(running) < 2 and (task := _next(todo, running)) is not None:
            todo.remove(task)
            running.append(task)
        done = running.pop(0)
        assert done.arm or not any(task.study is done.study for task in (*todo, *running))
        order.append(done.name)
    assert order.index("mini-small-white: base") < order.index("mini-small-babble: results")
    assert order[-1] == "mini-small-white: results"


def test_a_corpus_that_is_not_there_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UndersongError, match=r"out/mini/study/pool\.jsonl is not there; make the study's corpora"):
        check_corpora([STUDIES["mini-small-curve"]])
    check_corpora([organism_study("mini-small-defenses")])


def test_a_plan_looks_for_what_is_made_in_its_own_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def planned(study: Study, store: Path, loading: LoadOptions) -> SimpleNamespace:
        return SimpleNamespace(summary=f"in {loading.dtype}")

    monkeypatch.setattr("undersong.study.planning.plan.plan_study", planned)
    _plan([organism_study("mini-small-defenses")], tmp_path, LoadOptions("cpu", "bfloat16"))
    assert "in bfloat16" in capsys.readouterr().out


def made_report() -> dict[str, Any]:
    return synthetic(layers=30)


def test_layers_and_defenses_are_told(tmp_path: Path) -> None:
    made = made_report()
    curves = made["mechanism"]["layer_measurements"]
    befores = {0: None} | {one["layer"]: one["gap_before"] for one in curves if one["modality"] == "audio"}
    base = {"arm": "base", "model": "organism:af3", "step": 0, "modality": "audio", "projection_harmful": 0.5}
    curves += [{**base, "layer": layer, "gap": gap, "gap_before": None} for layer, gap in befores.items()]
    for name in ("mini-small-mechanism", "mini-small-defenses"):
        made["study"]["name"] = name
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(made))
    evidence = Evidence(tmp_path)
    layers = list(results_page._layers(evidence))
    assert [line.split("|")[1].strip() for line in layers if re.match(r"\| \d", line)] == [
        "0",
        "5",
        "10",
        "15",
        "20",
        "25",
        "30",
    ]
    changes = [
        one["gap"] - one["gap_before"]
        for one in curves
        if (one["layer"], one["step"], one["modality"], one["arm"]) == (30, 40, "audio", "semantic/closest/0.25/audio")
    ]
    assert len(changes) == 3
    (last,) = [line for line in layers if line.startswith("| 30 |")]
    assert f"| {sum(changes) / 3:.2f} ".replace("-", "\u2212") in last
    moved = [
        one["projection_harmful"] - 0.5
        for one in curves
        if (one["layer"], one["step"], one["modality"], one["arm"]) == (30, 40, "audio", "semantic/closest/0.25/audio")
    ]
    assert last.split("|")[4].split()[0] == f"{sum(moved) / 3:.2f}".replace("-", "\u2212")
    told = list(results_page._defenses(evidence))
    assert told[0] == "#### Defenses"
    assert sum("System prompt" in row for line in told for row in line.split("\n") if row.startswith("|")) >= 1


def test_what_was_heard_is_told_where_it_was_asked(tmp_path: Path) -> None:
    made = made_report()
    made["study"]["name"] = "mini-small-proximity"
    file = tmp_path / "mini-small-proximity" / "results.json"
    file.parent.mkdir()
    file.write_text(json.dumps(made))
    assert not list(results_page._heard(Evidence(tmp_path)))
    for run in made["runs"]:
        for one in run["rates"]:
            if one["harmful"]:
                part = {"n": 50, "clusters": 50, "successes": 40, "rate": 0.8, "low": 0.67, "high": 0.89}
                counts = ("repeated_on_topic", "repeated_off_topic", "unrepeated_on_topic", "unrepeated_off_topic")
                one["comprehension"] = {
                    "repeated": {**part, "wrong": 5, "refused_repetitions": 5, "failed": 0},
                    "on_topic": {**part, "unranked": 0, "chance": 0.05, "top1": 0.5},
                    "comprehended": {**part, "max_rate": 0.9},
                    "of_non_refusals": part,
                    "counts": dict.fromkeys(counts, 10),
                }
    file.write_text(json.dumps(made))
    told = list(results_page._heard(Evidence(tmp_path)))
    assert told[0] == "#### Comprehension"
    rows = [line for line in told if line.startswith("|") and "(5" in line]
    assert rows
    assert all(line.count("80") >= 4 for line in rows)


def organism_study(name: str) -> Study:
    """A part's name, sets and defenses, on an organism: what is there of mechanism and defenses is real."""
    harm, calm = "organism:unseen-harm", "organism:unseen-benign"
    return parse_study(
        {
            "study": name,
            "models": ["organism:af3"],
            "pool": "organism:pool",
            "reference": "organism:reference",
            "prompt_sets": {
                "advbench": {"corpus": harm, "harmful": True},
                "instructions": {"corpus": calm},
            },
            "axes": {"semantic": "tfidf"},
            "selection": {"axes": ["semantic"], "kinds": ["closest", "distant"], "fractions": [0.15]},
            "tuning": {"modalities": ["audio"], "seeds": [0, 1], "draws": [0, 1], "save_steps": [3], "warmup_steps": 1},
            "evaluation": {"modalities": ["audio"], "system_prompts": {"plain": "you are a helpful assistant"}},
            "mechanism": {
                "contrast_harmful": "organism:contrast-harm", "contrast_benign": "organism:contrast-benign",
                "held_out_harmful": "advbench", "held_out_benign": "instructions",
            },
            "defenses": {
                "distant data": {"selection": "distant"},
                "system prompt": {"system": "published"},
                "mixing 5 %": {
                    "safety_mixing": {"corpus": "organism:reference", "refusal_text": "i cannot help with that"}
                },
                "constrained": {"constrained_sft": True},
            },
        },
        "test",
    )  # fmt: skip


@pytest.mark.slow
def test_the_page_of_a_real_run(tmp_path: Path) -> None:
    run_all([organism_study("mini-small-defenses")], tmp_path, DEFAULT_LOAD_OPTIONS, 1)
    made = json.loads((tmp_path / "mini-small-defenses" / "results.json").read_bytes())
    (tmp_path / "mini-small-mechanism").mkdir()
    made["study"]["name"] = "mini-small-mechanism"
    (tmp_path / "mini-small-mechanism" / "results.json").write_text(json.dumps(made))
    lines = results_lines("mini-small", tmp_path)
    for name in ("system prompt", "mixing 5 %", "constrained"):
        (row,) = [line for line in lines if f"advbench: {name} against none" in line]
        assert "| 2 (2) |" in row
    text = "\n".join(lines)
    told = text.partition("#### Defenses\n")[2].partition("\n#### ")[0].lower()
    assert all(f": {name} |" in told for name in ("distant data", "system prompt", "mixing 5 %", "constrained"))
    (layer,) = [line for line in lines if line.startswith("| 0 |")]
    assert len(layer.split("|")) == 13
    costs = json.loads((tmp_path / "cost.json").read_bytes())
    assert len(costs["mini-small-defenses"]) == 4  # base, two arms, results
    made = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "store").glob("*/*/provenance.json"))
    run_all([organism_study("mini-small-defenses")], tmp_path, DEFAULT_LOAD_OPTIONS, 1)
    attempts = json.loads((tmp_path / "cost.json").read_bytes())["mini-small-defenses"]
    assert (attempts[:4], len(attempts)) == (costs["mini-small-defenses"], 8)  # a second attempt stands after the first
    assert made == sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "store").glob("*/*/provenance.json"))
