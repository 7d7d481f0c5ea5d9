"""Bases of the organisms' recipe that are deeper than what ships."""

from __future__ import annotations

import pytest

from recipes.organisms.architecture import LAYERS, NAMES, architecture
from recipes.organisms.world import SHIPPED


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
