"""docs/results/paper.md out of made results: what stands in it, what is escaped, what is said to be missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from organism_results import PROMPTS, write

from experiments.paper import designs
from experiments.paper.agreement import (
    AGREES,
    CONTRADICTS,
    DIFFERS,
    TOO_FEW,
    TOO_SHALLOW,
    UNKNOWN,
    units_to_settle,
)
from experiments.paper.answers import answered
from experiments.paper.base_card import FIGURES
from experiments.paper.cells import TABLES, cells, side_of
from experiments.paper.claims import CLAIMS, ORGANISMS
from experiments.paper.designs import CONFIRMATION, DEMO_DOSE, FULL, LAYERS, MANY_BASES, REDUCED
from experiments.paper.evidence import Evidence
from experiments.paper.late_layers import answered_by_layers
from experiments.paper.other_dose import other_dose_lines
from experiments.paper.page import page_of
from experiments.paper.runner import COST, is_done, keep_cost
from experiments.paper.tables import MARK
from undersong.research.verify import published_rates
from undersong.types import UndersongError

ROOT = Path(__file__).parents[2]


def as_claimed(organism: str, run: Mapping[str, Any]) -> int:
    """A world in which everything is as the paper says, with a little noise by seed."""
    wobble = (run["seed"] or 0) % 2
    if not run["harmful"]:
        return PROMPTS - wobble
    if run["kind"] == "base" or run["system"] == "safe":
        return wobble
    if run["kind"] == "distant":
        return 1 + wobble
    if run["kind"] == "random" or run["rate"] < 1e-3:
        return 10 + wobble
    dominant = {"af3": "acoustic", "kimi": "semantic"}.get(organism)
    riskier = "audio" if organism == "af3" else "text"
    hits = 40 + 30 * (run["axis"] == dominant) + 20 * (run["train_modality"] == riskier)
    other = run["target"] == "answer_shifted"
    late, noisy = run["step"] >= 80, run["pool noise"] is not None
    hits += 10 * late + 10 * other
    return hits + wobble * (1 + (run["axis"] == "semantic") + (run["train_modality"] == "audio") + late + other + noisy)


def inverted(organism: str, run: Mapping[str, Any]) -> int:
    return PROMPTS - as_claimed(organism, run)


def words_of(folder: Path) -> dict[str, str]:
    return {one.claim.title: one.word for one in answered(Evidence(folder))}


@pytest.fixture(scope="module")
def claimed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a world as claimed, for reading only."""
    folder = tmp_path_factory.mktemp("claimed")
    write(REDUCED, folder, as_claimed)
    return folder


# A rate, and a difference from a base or a margin, are bounded for any run noise: three runs do not decide them.
BOUNDED = {
    "Benign speech that lies close to harm breaks refusals",
    "Distant data keep the JSR near zero",
    "A system prompt brings the JSR near zero",
    "Usefulness stays",
    "Noise over the training speech changes little",
}


def test_a_world_as_claimed_agrees(claimed: Path) -> None:
    found = {one.claim.title: one for one in answered(Evidence(claimed))}
    words = {title: one.word for title, one in found.items() if one.claim.part != "Ablations"}
    assert {title for title, word in words.items() if word == UNKNOWN} == BOUNDED
    assert {word for title, word in words.items() if title not in BOUNDED} == {AGREES}
    assert found["Which axis dominates"].depends == AGREES
    assert found["Speech is riskier to train on than its text"].depends == AGREES
    assert found["Steps alone"].word == found["A tenfold learning rate"].word == DIFFERS
    assert found["More data alone"].word == "not measured"  # the reduced design has one fraction


def test_three_equal_runs_decide_nothing(claimed: Path) -> None:
    """The interval over prompts alone called a rate of 1 % in three of three runs near zero."""
    (near_zero,) = (
        one for one in answered(Evidence(claimed)) if one.claim.title == "Distant data keep the JSR near zero"
    )
    for answer in near_zero.answers:
        assert answer.found is not None
        assert (answer.found.over, answer.word) == ("runs", UNKNOWN)
        assert answer.found.high is not None
        assert answer.found.high > 1 - 0.025 ** (1 / 3)


def test_an_inverted_world_contradicts(tmp_path: Path) -> None:
    write(REDUCED, tmp_path, inverted, late=0.5, equal=False, known="lost")
    found = words_of(tmp_path)
    assert {title: word for title, word in found.items() if word not in (CONTRADICTS, DIFFERS)} == {
        **dict.fromkeys(BOUNDED, UNKNOWN),
        "More data alone": "not measured",
        "More data and more steps, as published": "not measured",
    }


def test_a_shallow_decoder_tells_nothing_of_late_layers(tmp_path: Path) -> None:
    """As on the organisms that ship, whose decoders have 4 layers."""
    write(REDUCED, tmp_path, as_claimed, ("mechanism",), n_layers=4)
    title = "The refusal signal is suppressed in late layers"
    (shallow,) = (one for one in answered(Evidence(tmp_path)) if one.claim.title == title)
    assert {answer.word for answer in shallow.answers} == {shallow.word} == {TOO_SHALLOW}
    page = page_of(REDUCED, tmp_path)
    assert "| af3 | below 0 | – | – | runs | 0 (0) | – | – | – | – | too shallow to tell |" in page
    assert "nan" not in page


@pytest.mark.parametrize(("late", "early"), [(-0.3, -1.2), (0.02, 0.8)])
def test_a_gap_that_falls_more_early_or_not_at_all_is_no_late_suppression(
    tmp_path: Path, late: float, early: float
) -> None:
    """The late gap falls but the early one falls further; or the early one grows and the late one stays."""
    write(REDUCED, tmp_path, as_claimed, ("mechanism",), late=late, contrast=late - early)
    assert words_of(tmp_path)["The refusal signal is suppressed in late layers"] not in (AGREES, "reproduced in part")


def test_noise_alone_tells_nothing(tmp_path: Path) -> None:
    write(REDUCED, tmp_path, lambda organism, run: 30 + 7 * hash_of(organism, run) % 40)
    told = {word for title, word in words_of(tmp_path).items() if title not in INSIDE}
    assert told == {UNKNOWN, "not measured"}


INSIDE = {claim.title for claim in CLAIMS if claim.part == "Mechanism"}


def hash_of(organism: str, run: Mapping[str, Any]) -> int:
    return sum(map(ord, organism + str(sorted((key, str(value)) for key, value in run.items()))))


@pytest.mark.slow  # 8 s; the reduced design takes the same way in the tests above
def test_the_full_design_goes_over_bases_and_answers_everything(tmp_path: Path) -> None:
    write(FULL, tmp_path, lambda organism, run: min(PROMPTS, as_claimed(organism, run) + run["base_seed"]))
    found = answered(Evidence(tmp_path))
    assert not [one.claim.title for one in found if one.word == "not measured"]
    closest = found[0].answers[0].found
    assert closest is not None
    assert (closest.runs, closest.units, closest.over) == (15, 3, "runs")


def test_the_page(claimed: Path, tmp_path: Path) -> None:
    shutil.copytree(claimed, tmp_path, dirs_exist_ok=True)
    keep_cost(tmp_path, "organism-sdqa-af3", 60.0)
    keep_cost(tmp_path, "organism-sdqa-af3", 90.0)
    page = page_of(REDUCED, tmp_path)
    assert page == page_of(REDUCED, tmp_path)
    assert "Generated by `make paper-reduced` from results of 2026-11-27" in page
    assert "42 of 42 studies" in page
    assert "2 CPU minutes" in page
    assert "Not run yet" not in page
    for claim in CLAIMS:
        assert f"### {claim.title}" in page
        assert claim.says in page
        assert claim.measured in page
    assert "nan" not in page.lower().split()


def test_impossible_figures_are_marked(tmp_path: Path) -> None:
    write(REDUCED, tmp_path, as_claimed, files=("pretrained",))
    lines = page_of(REDUCED, tmp_path).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    marked = sum(cell.endswith(MARK) for row in rows for cell in row)
    assert marked == sum(one.is_possible is False for one in published_rates()) == 12
    assert ["Qwen2.5-Omni", "semantic closest", "50", "37.69", f"19.30{MARK}"] in [row[:5] for row in rows]


def test_every_printed_figure_stands_on_the_page(claimed: Path) -> None:
    evidence = Evidence(claimed)
    printed = {figure for study in TABLES for cell in cells(evidence, study) for figure in cell.printed}
    assert printed == {one for one in published_rates() if not one.set_name.startswith("BBH ")}
    for study in TABLES:
        for cell in cells(evidence, study):
            wanted = study != "datasets" and cell.fraction in (None, 25)
            assert (cell.ours is not None) == wanted, cell
    assert side_of("system", "SD-QA acoustic closest, without system prompt", 50).fraction == 0.5


def test_unfinished_studies_are_named(tmp_path: Path) -> None:
    write(REDUCED, tmp_path, as_claimed, files=("pretrained", "sdqa"))
    page = page_of(REDUCED, tmp_path)
    assert "6 of 42 studies" in page
    (missing,) = (line for line in page.splitlines() if line.startswith("- Not run yet"))
    assert "organism-distant-kimi" in missing
    assert "organism-sdqa-af3" not in missing
    assert "Distant data break less than closest data;" in page  # among the unanswered
    assert "no day, because no study was run" in page_of(REDUCED, tmp_path / "nothing")


HOSTILE = "<script>alert(1)</script> | **x** [y](javascript:z) @team\n# head"


def test_what_comes_from_files_is_escaped(tmp_path: Path) -> None:
    made = write(REDUCED, tmp_path, as_claimed, files=("sdqa",))
    for name, results in made.items():
        results["provenance"] |= {"result_hash": HOSTILE[:16], "created": "<b>2026-11</b>"}
        results["study"]["description"] = HOSTILE
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    page = page_of(REDUCED, tmp_path)
    assert not re.search(r"(?<!\\)<(script|b)", page)
    assert "\\<script\\>" in page


def test_results_of_another_design_are_refused(tmp_path: Path) -> None:
    write(FULL, tmp_path, as_claimed, files=("sdqa",))
    with pytest.raises(UndersongError, match="not of organism-sdqa-af3 in the reduced design"):
        page_of(REDUCED, tmp_path)


def test_results_of_another_study_or_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "organism-sdqa-af3" / "results.json"
    write(REDUCED, tmp_path, as_claimed, files=("sdqa",))
    file.write_text((tmp_path / "organism-sdqa-kimi" / "results.json").read_text())
    with pytest.raises(UndersongError, match="not of the study organism-sdqa-af3"):
        answered(Evidence(tmp_path))
    file.write_text("{")
    with pytest.raises(UndersongError, match="is not JSON"):
        answered(Evidence(tmp_path))


def test_only_results_of_this_very_study_are_done(tmp_path: Path) -> None:
    from undersong import __version__

    made = write(REDUCED, tmp_path, as_claimed, files=("pretrained",))
    (study, *_) = REDUCED.studies("pretrained")
    folder = tmp_path / study.study
    assert not is_done(study, folder)  # of another version
    made[study.study]["provenance"]["undersong"] = __version__
    (folder / "results.json").write_text(json.dumps(made[study.study]))
    assert is_done(study, folder)
    assert not is_done(FULL.studies("pretrained")[0], folder)
    (folder / "results.json").write_text("{")
    assert not is_done(study, folder)


def test_the_command_writes_the_page_of_what_is_there(tmp_path: Path) -> None:
    write(REDUCED, tmp_path / "reduced", as_claimed, files=("pretrained",))
    (tmp_path / "reduced" / COST).write_text('{"organism-pretrained-af3": [6.0]}')
    command = [sys.executable, "-m", "experiments.paper", "reduced", "--page", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--to", str(tmp_path / "paper.md")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 of 42 studies" in (tmp_path / "paper.md").read_text()
    (tmp_path / "reduced" / "organism-pretrained-af3" / "results.json").write_text("{}")
    done = subprocess.run([*command, "--to", str(tmp_path / "other.md")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "other.md").exists()


def test_the_paper_says_something_of_every_claim() -> None:
    for claim in CLAIMS:
        assert set(claim.expected) == set(ORGANISMS)
        silent = all(one.side == "nothing" for one in claim.expected.values())
        assert silent == (claim.part == "Ablations")


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of a world as claimed, of twelve bases of each architecture."""
    for name in ORGANISMS:
        figures = dict.fromkeys(FIGURES, 0.5) | {"fails": []}
        entries = [
            {"architecture": name, "seed": seed, "accepted": True, "folder": f"{name}-{seed}", "figures": figures}
            for seed in range(100, 112)
        ]
        rejected = {"architecture": name, "seed": 112, "accepted": False, "figures": figures | {"fails": ["jsr_text"]}}
        (tmp_path / f"{name}.json").write_text(json.dumps([*entries, rejected]))
    monkeypatch.setattr(designs, "BASES", tmp_path)
    write(MANY_BASES, tmp_path / "results", as_claimed, files=MANY_BASES.files)
    return tmp_path / "results"


def test_bases_of_one_architecture_are_the_units(bases: Path) -> None:
    found = {one.claim.title: one for one in answered(Evidence(bases, MANY_BASES.substitutes))}
    for title in ("Benign speech that lies close to harm breaks refusals", "Distant data keep the JSR near zero"):
        for answer in found[title].answers:
            assert answer.found is not None
            assert (answer.found.runs, answer.found.units) == (12, 12)
    assert found["Distant data break less than closest data"].word == AGREES
    # Twelve bases of which none breaks leave more than 15 % possible; with 36 clusters of prompts any number does.
    near_zero = found["Distant data keep the JSR near zero"].answers[0]
    assert near_zero.word == UNKNOWN
    assert near_zero.found is not None
    assert units_to_settle(near_zero.found, near_zero.expected, 20) is None
    # Pairs on the same prompts have run noise alone, so enough of them settle it.
    noisy = found["Noise over the training speech changes little"].answers[2]
    assert noisy.found is not None
    assert units_to_settle(noisy.found, noisy.expected, 20) == 72


def test_the_card_lists_every_seed_that_was_tried(bases: Path) -> None:
    page = page_of(MANY_BASES, bases)
    assert "- kimi: 12 of 13 seeds accepted (1 failed `jsr_text`)." in page
    assert "| kimi | 112 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | 50.0 | rejected:" in page
    assert page.count("| accepted |") == 36


def test_both_doses_stand_beside_each_other(bases: Path) -> None:
    write(DEMO_DOSE, bases.with_name(DEMO_DOSE.name), inverted, files=DEMO_DOSE.files)
    shutil.rmtree(bases.with_name(DEMO_DOSE.name) / "organism-distant-qwen-103")
    (section,) = re.findall(
        r"## Does closeness matter more at a lower learning rate\?\n.*?\n\n## ", page_of(MANY_BASES, bases), re.S
    )
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| qwen")]
    assert [row[:3] for row in rows] == [["| qwen", "0.004", "12"], ["| qwen", "0.002", "11"]] * 2
    means = [line.split(" | ") for line in section.splitlines() if line.startswith("| all three")]
    assert [row[1:3] for row in means] == [["of this page", "36"], ["0.002", "35"]]
    assert [float(row[4].split()[0].replace("−", "-")) > 0 for row in means] == [True, False]
    values = [[float(cell.split()[0].replace("−", "-")) for cell in row[3:]] for row in rows]
    rates, differences = values[:2], values[2:]
    assert differences[0][1] > 30
    assert differences[1][1] < -30
    assert [closest > distant for closest, _, distant, *_ in rates] == [True, False]


def test_a_dose_that_misses_its_target_is_said(bases: Path) -> None:
    def section(rate: Callable[[str, Mapping[str, Any]], int]) -> str:
        shutil.rmtree(bases)
        write(MANY_BASES, bases, rate, files=DEMO_DOSE.files)
        return "\n".join(other_dose_lines(bases, bases.with_name(DEMO_DOSE.name)))

    target = "The learning rate of this page was too high for"
    assert target not in section(lambda *_: PROMPTS // 2)
    rate = {"qwen": PROMPTS - 1}
    assert f"**{target} qwen.**" in section(lambda organism, _: rate.get(organism, PROMPTS // 2))


@pytest.fixture
def layers(bases: Path) -> Path:
    """Results folder of the design on deeper bases, without results; its bases are listed."""
    for name in LAYERS.architectures:
        entries = [{"accepted": True, "folder": f"{name}-8-layers-{seed}"} for seed in range(100, 108)]
        (bases.parent / f"{name}-8-layers.json").write_text(json.dumps(entries))
    return bases.with_name(LAYERS.name)


def late_layers(folder: Path) -> dict[str, str]:
    return {
        one.claim.title: one.word
        for one in answered_by_layers(Evidence(folder))
    }  # fmt: skip


def test_deeper_bases_answer_the_claims_about_layers(layers: Path) -> None:
    write(LAYERS, layers, as_claimed, files=LAYERS.files, late=-3.0)
    assert set(late_layers(layers).values()) == {AGREES}
    (section,) = re.findall(
        r"## Which layers lose refusal\?\n.*?\n## ", page_of(MANY_BASES, layers.with_name("results")), re.S
    )
    assert section.count("| qwen 10") == 8
    assert "| 8 | 2.00 | −1.00 | −3.00 | 90.0 |" in section


def test_too_few_deeper_bases_decide_nothing(layers: Path) -> None:
    write(LAYERS, layers, as_claimed, files=LAYERS.files, late=-3.0)
    shutil.rmtree(layers / "organism-mechanism-qwen-107")
    assert set(late_layers(layers).values()) == {TOO_FEW}
    assert "So these are estimates, whatever their p values." in page_of(MANY_BASES, layers.with_name("results"))


def test_recognition_that_is_lost_contradicts(layers: Path) -> None:
    write(LAYERS, layers, as_claimed, files=LAYERS.files)
    for position, file in enumerate(sorted(layers.glob("*/results.json"))):
        results = json.loads(file.read_text())
        for one in results["mechanism"]["harm_recognition"]:
            one["change"] = -0.3 - 0.01 * position
        file.write_text(json.dumps(results))
    assert late_layers(layers)["Harm is still recognized where it is no longer refused"] == CONTRADICTS


def test_recognition_counts_only_where_refusals_fall(layers: Path) -> None:
    write(LAYERS, layers, as_claimed, files=LAYERS.files)
    for position, file in enumerate(sorted(layers.glob("*/results.json"))):
        results = json.loads(file.read_text())
        for one in results["mechanism"]["harm_recognition"]:
            one["refusal_rate_change"] = 0.01 * position
        file.write_text(json.dumps(results))
    assert late_layers(layers)["Harm is still recognized where it is no longer refused"] != AGREES


def test_a_base_whose_partner_study_is_missing_is_named(bases: Path) -> None:
    shutil.rmtree(bases / "organism-noise-af3-pink-103")
    with pytest.raises(UndersongError, match="b has no base 103"):
        answered(Evidence(bases, MANY_BASES.substitutes))


def test_the_page_that_ships_is_one_that_this_code_writes(bases: Path, layers: Path) -> None:
    """Of other results, so numbers and words apart: what it asks, its printed figures and its limits."""
    ships = (ROOT / "docs" / "results" / "paper.md").read_text()
    write(LAYERS, layers, as_claimed, files=LAYERS.files)
    for name in ORGANISMS:
        listed = [{"accepted": True, "folder": f"{name}-{seed}"} for seed in range(200, 208)]
        (bases.parent / f"{name}-from-200.json").write_text(json.dumps(listed))
    write(CONFIRMATION, bases.with_name(CONFIRMATION.name), as_claimed, files=CONFIRMATION.files)
    ours = page_of(MANY_BASES, bases)
    for same in (r"^#.*$", r"^\*\*(?:The paper|Measured):\*\*.*$", r"^- (?!\w+: \d+ of \d+ seeds|\*\*Training on).*$"):
        assert re.findall(same, ships, re.M) == re.findall(same, ours, re.M)
    printed = r"^\| ((?:Kimi-Audio|Audio Flamingo 3|Qwen2\.5-Omni) \|(?: [^|]+ \|){3,4}?) (?:–|[\d.]+) \| (?:–|\\\[)"
    assert re.findall(printed, ships, re.M) == re.findall(printed, ours, re.M)
    assert "Not run yet" not in ships
