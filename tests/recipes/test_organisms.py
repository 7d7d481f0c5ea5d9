"""The organisms' recipe: bases that are deeper than what ships, the median base, and the card's rows on causes."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path

import pytest

import undersong
from recipes.organisms.architecture import LAYERS, NAMES, architecture
from recipes.organisms.causes import FILE, cause_table
from recipes.organisms.median import FILE as MEDIAN
from recipes.organisms.median import median_seed, median_table, packaged, ranked
from recipes.organisms.world import SHIPPED
from undersong.cli.demo import demo
from undersong.research.mechanism.direction_selection import LayerCandidate, select_direction
from undersong.settings.defaults import MAX_DEPTH, MAX_KL
from undersong.study.load import packaged_study

ROOT = Path(__file__).parents[2]
CARD = Path(undersong.__file__).parent / "data" / "organism" / "CARD.md"


@pytest.mark.parametrize("name", NAMES)
def test_a_decoder_gets_the_layers_that_are_requested(name: str) -> None:
    shallow, deep = architecture(name), architecture(name, 8)
    assert (name, f"{name}-8-layers") == (shallow.NAME, deep.NAME)
    vocabulary = shallow.vocabulary(SHIPPED.vocabulary())
    states = [arch.build(vocabulary, 6).get_decoder() for arch in (shallow, deep)]
    assert [len(decoder.layers) for decoder in states] == [LAYERS, 8]
    sizes = [sum(parameter.numel() for parameter in decoder.layers[0].parameters()) for decoder in states]
    assert sizes[0] == sizes[1]
    assert deep.vocabulary(["word"]) == shallow.vocabulary(["word"])


def test_a_decoder_without_layers_is_refused() -> None:
    with pytest.raises(SystemExit, match="cannot have 0 layers"):
        architecture("af3", 0)


def test_the_cards_rows_on_causes_are_of_the_published_limits() -> None:
    causes = json.loads(FILE.read_text())
    assert list(causes) == [f"{name}/{modality}" for name in NAMES for modality in ("text", "audio")]
    for measured in causes.values():
        assert (measured["max_kl"], measured["max_depth"]) == (MAX_KL, MAX_DEPTH)
        candidates = [LayerCandidate(**row) for row in measured["candidates"]]
        ablation = measured["ablation"]
        assert select_direction(candidates, LAYERS) == (ablation and ablation["layer"])
    assert cause_table(causes) in CARD.read_text()


def test_the_median_base_is_the_one_in_the_middle_and_equal_ones_are_ranked_by_seed() -> None:
    figures = {12: [0.5, 0.5], 7: [0.0, 0.2], 9: [0.4, 0.6], 30: [1.0, 0.9], 8: [0.3, 0.1]}
    assert ranked(figures) == [(7, 0.1), (8, 0.2), (9, 0.5), (12, 0.5), (30, 0.95)]
    assert median_seed(figures) == 9
    assert median_seed({seed: values for seed, values in figures.items() if seed != 30}) == 8  # the lower of two


def test_the_demo_uses_the_median_base_of_its_architecture() -> None:
    measured = json.loads(MEDIAN.read_text())
    assert {name: len(values) for name, values in measured.items()} == dict.fromkeys(NAMES, 15)
    assert median_table(measured) in CARD.read_text()
    figures = {int(seed): values for seed, values in measured["qwen"].items()}
    name = packaged("qwen")[median_seed(figures)]
    assert packaged_study("demo").models == (f"organism:{name}",)
    assert signature(demo).parameters["model"].default == f"organism:{name}"
    overview = (ROOT / "docs" / "results" / "index.md").read_text()
    cells = [(f"{seed}", f"{100 * mean:.0f}") for seed, mean in ranked(figures)]
    for column, heading in enumerate(("seed", "JSR")):
        row = [pair[column] for pair in cells]
        row[len(row) // 2] = f"**{row[len(row) // 2]}**"
        assert f"| {heading} | {' | '.join(row)} |" in overview
