"""The archive of the paper's results: it holds what the page cites, and the page is what it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.paper import designs
from experiments.paper.archive import ARCHIVE, pack, unpack
from experiments.paper.designs import DEMO_DOSE, MANY_BASES
from experiments.paper.page import page_of
from undersong.results.files import read_results_file
from undersong.results.schema import parse_results, result_hash
from undersong.types import UndersongError

PAGE = Path(__file__).parents[2] / "docs" / "results" / "paper.md"
DEMO_BASE, KINDS = 104, {"closest by words": "closest", "random": "random", "most distant by words": "distant"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the archive in out/paper and the card of the bases where studies name it."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        unpack(Path("out/paper"))
        yield folder / "out" / "paper"


def test_a_folder_comes_back_as_it_was_but_for_the_place_of_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(designs, "BASES", tmp_path / "cards")
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "af3.json").write_text("[]")
    study = tmp_path / "out" / MANY_BASES.name / "organism-a"
    study.mkdir(parents=True)
    results = {"runs": [1.5], "provenance": {"store": "/home/me/store", "hash": "x"}}
    (study / "results.json").write_text(json.dumps(results))
    (study.parent / "cost.json").write_text("{}")
    assert pack(tmp_path / "out", tmp_path / "a.tar.xz") == ["organism-a"]
    pack(tmp_path / "out", tmp_path / "b.tar.xz")
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
    monkeypatch.setattr(designs, "BASES", tmp_path / "new")
    unpack(tmp_path / "again", tmp_path / "a.tar.xz")
    (found,) = (tmp_path / "again").glob("*/*/results.json")
    assert json.loads(found.read_text()) == results | {"provenance": {"store": "out/paper/store", "hash": "x"}}
    assert [card.read_text() for card in (tmp_path / "new").iterdir()] == ["[]"]
    (tmp_path / "new" / "af3.json").write_text("[1]")
    unpack(tmp_path / "again", tmp_path / "a.tar.xz")
    assert (tmp_path / "new" / "af3.json").read_text() == "[1]"
    with pytest.raises(UndersongError, match="holds no results of the designs; run them first"):
        pack(tmp_path / "empty", tmp_path / "c.tar.xz")


def test_the_page_cites_the_results_of_the_archive(unpacked: Path) -> None:
    cited = dict(re.findall(r"^\| (organism-[\w-]+) \|.*\| ([0-9a-f]{16}) \|$", PAGE.read_text(), re.M))
    files = {file.parent.name: file for file in (unpacked / MANY_BASES.name).glob("*/results.json")}
    assert cited.keys() == files.keys()
    for name in sorted(cited)[::40]:
        assert result_hash(parse_results(read_results_file(files[name]))).startswith(cited[name])


@pytest.mark.slow
def test_the_archive_gives_the_page(unpacked: Path) -> None:
    assert page_of(MANY_BASES, unpacked / MANY_BASES.name) == PAGE.read_text()


def test_the_archive_names_no_folder_of_the_machine_that_made_it(unpacked: Path) -> None:
    assert ARCHIVE.stat().st_size < 2**20
    for file in unpacked.rglob("*.json"):
        assert not re.search(r'"/(home|root|work|tmp|Users)\b', file.read_text()), file


def test_the_overview_cites_the_demos_base_as_the_archive_has_it(unpacked: Path) -> None:
    rates: dict[str, dict[int, float]] = {kind: {} for kind in KINDS.values()}
    for file in (unpacked / DEMO_DOSE.name).glob("organism-distant-qwen-*/results.json"):
        for run in json.loads(file.read_text())["runs"]:
            if (run["axis"], run["train_modality"], run["step"]) == ("semantic", "audio", 40):
                found = {(row["metric"], row["modality"], row["system"]): row["rate"] for row in run["rates"]}
                rates[run["kind"]][int(file.parent.name.split("-")[-1])] = 100 * found["jsr", "audio", "plain"]
    overview = PAGE.with_name("index.md").read_text()
    for label, kind in KINDS.items():
        ordered = sorted(rates[kind].values())
        own = rates[kind][DEMO_BASE]
        cells = [f"{own:.1f} %", str(ordered.index(own) + 1), f"{ordered[0]:.0f} and {ordered[-1]:.0f} %"]
        assert len(ordered) == 12
        assert f"| speech, {label} | {' | '.join(cells)} |" in overview
