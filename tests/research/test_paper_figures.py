"""Figures for a paper: what is drawn are the numbers of the page, as PDF and PNG, equal for equal results."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from undersong.report.summary import arm_summaries, default_verdict_filter, estimate_rate
from undersong.research.report import paper_figures
from undersong.research.report.paper_figures import FIGURES, write_figures
from undersong.research.report.paper_figures_common import matplotlib_style
from undersong.results.schema import parse_results
from undersong.types import UndersongError

Json = dict[str, Any]
NAMES = set(FIGURES)


def fractions(results: Json) -> Json:
    """The same arms at 50 % too, with half the damage."""
    for run in [run for run in results["runs"] if run["kind"] != "base"]:
        other = copy.deepcopy(run)
        other |= {"fraction": 0.5, "k": 648, "arm": run["arm"].replace("0.25", "0.5")}
        for row in other["rates"]:
            row.update({key: row[key] / 2 for key in ("jsr", "low", "high") if row.get(key) is not None})
        results["runs"].append(other)
    return results


def drawn(draw: Callable[..., Figure | None], results: Json) -> Figure:
    with matplotlib_style():
        figure = draw(parse_results(results))
    assert figure is not None
    return figure


def bars(figure: Figure, panel: int) -> dict[str, list[float]]:
    """Label -> heights, of a panel."""
    found: dict[str, list[float]] = {}
    for one in figure.axes[panel].containers:
        if isinstance(one, BarContainer) and len(one.patches) == 1:
            found.setdefault(str(one.get_label()), []).append(one.patches[0].get_height())
    return found


def rate(results: Json, arm: str, asked: str) -> float:
    found = parse_results(results)
    given = default_verdict_filter(found)
    assert given is not None
    (one,) = (one for one in arm_summaries(found) if one.name == arm)
    number = estimate_rate(given.run_rates(one.runs_at(one.last_step), asked))
    assert number is not None
    return number.mean


@pytest.fixture(scope="module")
def written(make_results: Callable[..., Json], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_figures(make_results(), tmp_path_factory.mktemp("new") / "figures")


def test_all_four_are_written_as_pdf_and_png(written: list[Path]) -> None:
    assert {path.stem for path in written} == NAMES
    assert {path.name for path in written[0].parent.iterdir()} == {
        f"{name}.{ending}" for name in NAMES for ending in ("pdf", "png")
    }
    assert all(path.read_bytes()[:5] in (b"%PDF-", b"\x89PNG\r") for path in written)


def test_equal_results_give_equal_bytes_and_settings_are_put_back(
    written: list[Path], results: Json, tmp_path: Path
) -> None:
    before = dict(matplotlib.rcParams)
    again = write_figures(results, tmp_path)
    assert dict(matplotlib.rcParams) == before
    assert [one.read_bytes() for one in written] == [two.read_bytes() for two in again]


def test_bars_by_axis_and_fraction_are_the_rates_of_the_arms(make_results: Callable[..., Json]) -> None:
    results = fractions(make_results(axes=("semantic", "acoustic")))
    figure = drawn(paper_figures.draw_jsr_by_axis, results)
    assert [one.get_title(loc="left") for one in figure.axes] == [
        "Trained on audio, spoken prompts", "Trained on text, typed prompts",
    ]  # fmt: skip
    for panel, trained in enumerate(("audio", "text")):
        for axis in ("semantic", "acoustic"):
            wanted = [rate(results, f"{axis}/closest/{share}/{trained}", trained) for share in (0.25, 0.5)]
            assert bars(figure, panel)[f"closest, {axis}"] == pytest.approx(wanted)
            assert f"random, {axis}" in bars(figure, panel)
    assert [one.get_text() for one in figure.axes[0].get_xticklabels()] == ["25\u202f%", "50\u202f%"]


def test_kinds_stand_beside_each_other_and_the_base(results: Json) -> None:
    found = bars(drawn(paper_figures.draw_jsr_by_kind, results), 0)
    wanted = {
        kind: [rate(results, f"semantic/{kind}/0.25/audio", "audio")] for kind in ("closest", "random", "distant")
    }
    assert found == {kind: pytest.approx(values) for kind, values in wanted.items()}
    (base,) = (
        line for line in drawn(paper_figures.draw_jsr_by_kind, results).axes[0].lines if line.get_label() == "base"
    )
    jsr = next(
        row["rate"] for row in results["runs"][0]["rates"] if row["modality"] == "audio" and row["prompt_set"] == "harm"
    )
    assert base.get_ydata()[0] == pytest.approx(jsr)


def test_modalities_start_at_the_base_and_go_over_the_fractions(results: Json) -> None:
    figure = drawn(paper_figures.draw_jsr_by_modality, fractions(results))
    lines = {box.get_label(): box.lines[0].get_ydata() for box in figure.axes[0].containers}
    base = next(
        row["rate"] for row in results["runs"][0]["rates"] if row["modality"] == "audio" and row["prompt_set"] == "harm"
    )
    for trained in ("audio", "text"):
        wanted = [base, *(rate(results, f"semantic/closest/{share}/{trained}", "audio") for share in (0.25, 0.5))]
        assert lines[f"trained on {trained}"] == pytest.approx(wanted)


def test_layers_have_writing_left_and_voice_right(results: Json) -> None:
    figure = drawn(paper_figures.draw_refusal_gap, results)
    assert [one.get_title(loc="left") for one in figure.axes[:2]] == [
        "Trained on audio, typed prompts", "Trained on audio, spoken prompts",
    ]  # fmt: skip
    gaps = [p["gap"] for p in results["mechanism"]["layer_measurements"]
            if (p["arm"], p["modality"], p["layer"]) == ("semantic/closest/0.25/audio", "text", 4)]  # fmt: skip
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "after, closest")
    assert line.get_ydata()[-1] == pytest.approx(np.mean(gaps))
    assert figure.axes[0].lines[0].get_label() == "before"


def test_what_was_not_measured_is_not_drawn(make_results: Callable[..., Json], tmp_path: Path) -> None:
    results = make_results(modalities=("audio",))
    results["mechanism"] = None
    written = {path.stem for path in write_figures(results, tmp_path)}
    assert written == {"jsr-by-axis-and-fraction", "base-closest-random-distant"}
    results["runs"], results["comparisons"] = results["runs"][:1], []
    with pytest.raises(UndersongError, match="nothing is drawn"):
        write_figures(results, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UndersongError, match="is a file"):
        write_figures(make_results(), tmp_path / "file")


def test_names_from_elsewhere_are_no_formulas(results: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("undersong.research.report.paper_figures.FIGURES", {"one": paper_figures.draw_jsr_by_kind})
    for run in results["runs"]:
        if run["kind"] != "base":
            run["axis"] = r"$\frac{$ <b> \u202e %n"
            run["model"] = "$x^{2"
    assert len(write_figures(results, tmp_path)) == 2
