"""studies/organism: the published studies on organisms, in two designs of which one is a part of the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
from undersong.study.load import load_studies
from undersong.study.planning.plan import plan_study
from undersong.study.planning.planning_store import plan_artifacts
from undersong.study.planning.power import design_lines, independent_units
from undersong.study.schema import Study
from undersong.types import UndersongError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "studies" / "organism"
# A part of the others, and studies that the paper does not have.
APART = {"shared", "defenses", "architecture", "architecture_pilot", "dose_pilot", "gradients"}
ABLATIONS = {"dose", "targets", "rate"}


@pytest.fixture(scope="module")
def designs():
    from experiments.paper import designs as paper_designs

    return paper_designs


def test_every_file_is_run_and_stands_for_a_published_one(designs) -> None:
    assert {file.stem for file in FOLDER.glob("*.yaml")} - APART == set(designs.FILES)
    published = {file.stem for file in (ROOT / "studies" / "paper").glob("*.yaml")} - {"shared"}
    assert published - set(designs.FILES) == {"datasets"}  # the closed world has one benign corpus
    assert set(designs.FILES) - published == ABLATIONS


def test_each_is_of_one_organism_and_says_what_it_stands_for(designs) -> None:
    for file in designs.FILES:
        head = (FOLDER / f"{file}.yaml").read_text().splitlines()[1]
        assert head.startswith("# Ablation: " if file in ABLATIONS else ("# Table ", "# The figure on ")), file
        found = designs.FULL.studies(file)
        assert {one.models[0] for one in found} == {"organism:af3", "organism:qwen", "organism:kimi"}
        for one in found:
            assert len(one.models) == 3
            assert one.study.startswith(f"organism-{file.replace('_', '-')}-")


def test_the_defenses_beyond_the_paper_still_run() -> None:
    (study,) = load_studies(FOLDER / "defenses.yaml").studies
    assert len(study.defenses) > 10


def trainings(study: Study, store: Path) -> set[str]:
    """Hashes of all that would be trained; which ids are chosen is not known before a pool is screened."""
    return {
        key for key, one in plan_artifacts(study, store, DEFAULT_LOAD_OPTIONS).planned.items() if one.stage == "adapter"
    }


def test_the_reduced_design_is_a_part_of_the_full_one(designs, tmp_path: Path) -> None:
    for file in designs.FILES:
        whole = {one.study: one for one in designs.FULL.studies(file)}
        parts = {one.study: one for one in designs.REDUCED.studies(file)}
        assert parts.keys() == whole.keys()
        for name, part in parts.items():
            full = whole[name]
            assert part.models == full.models[:1]
            assert set(part.selection.fractions) <= set(full.selection.fractions)
            assert part.selection.fractions == (0.25,)
            assert set(part.tuning.seeds) < set(full.tuning.seeds)
            # and nothing else is another
            same = full.model_copy(update={"models": part.models})
            same.selection.__dict__["fractions"] = part.selection.fractions
            same.tuning.__dict__.update(seeds=part.tuning.seeds, draws=part.tuning.draws)
            assert same == part


@pytest.mark.parametrize("file", ["mechanism", "noise"])
def test_what_the_reduced_design_makes_serves_the_full_one(designs, file: str, tmp_path: Path) -> None:
    part, whole = (design.studies(file)[-1] for design in (designs.REDUCED, designs.FULL))
    assert trainings(part, tmp_path) < trainings(whole, tmp_path)


def test_studies_share_what_they_have_in_common(designs, tmp_path: Path) -> None:
    """Arms of one study are those of another, asked the same, so in one store they are made once."""

    def made(file: str, number: int = 0) -> set[str]:
        return set(plan_artifacts(designs.REDUCED.studies(file)[number], tmp_path, DEFAULT_LOAD_OPTIONS).planned)

    assert made("pretrained") - made("sdqa") == set()
    assert made("bbh") - made("sdqa") == set()
    assert made("system") - made("sdqa") == set()
    assert made("sdqa") - made("distant") == set()
    clean, pink = ([*designs.REDUCED.studies("noise")][number] for number in (0, 1))
    assert clean.selection.noise is None
    assert pink.selection.noise == "pink:10"
    assert trainings(clean, tmp_path) <= made("sdqa")
    assert not trainings(pink, tmp_path) & made("sdqa")


def test_studies_of_both_designs_can_be_planned(designs, tmp_path: Path) -> None:
    for file in designs.FILES:
        planned = plan_study(designs.REDUCED.studies(file)[-1], tmp_path / "store")
        assert "artifacts are to be made, some" in planned.summary
        assert "unknown" not in planned.summary
    assert not (tmp_path / "store").exists()


def test_what_the_designs_can_show_is_told(designs) -> None:
    for design, unit in ((designs.REDUCED, ("draw", 3)), (designs.FULL, ("base", 3))):
        for study in (study for file in designs.FILES for study in design.studies(file)):
            assert independent_units(study) == unit
            assert any(
                f"3 independent {unit[0]}s" in line or "nothing is trained" in line for line in design_lines(study)
            )


@pytest.fixture
def many_bases(designs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The design of many bases, with three that were trained: two accepted, one rejected."""
    for name in ("af3", "qwen", "kimi"):
        entries = [{"seed": seed, "accepted": seed != 101, "folder": f"{name}-{seed}"} for seed in (100, 101, 102)]
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    monkeypatch.setattr(designs, "BASES", tmp_path)
    return designs.MANY_BASES


def test_each_accepted_base_has_a_study_with_a_seed_and_a_draw_of_its_own(many_bases, tmp_path: Path) -> None:
    for file in many_bases.files:
        studies = many_bases.studies(file)
        assert len(studies) == 6
        for study in studies:
            seed = int(study.study.rpartition("-")[2])
            assert seed in (100, 102)
            assert study.models[0].endswith(f"-{seed}")
            assert study.tuning.seeds == study.tuning.draws == (seed,)
            architecture = Path(study.models[0]).name.partition("-")[0]
            assert study.tuning.learning_rate == many_bases.learning_rates[architecture]
    assert {study.selection.noise for study in many_bases.studies("noise")} == {"pink:10"}


def test_a_missing_list_of_bases_names_the_command(many_bases, tmp_path: Path) -> None:
    (tmp_path / "kimi.json").unlink()
    with pytest.raises(UndersongError, match=r"recipes\.organisms\.bases --arch kimi"):
        many_bases.studies("distant")
