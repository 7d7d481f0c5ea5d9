"""What holds for all tests: one thread, no network, no time limit on an example; and a tiny audio model to try on.

The variables are set here, before anything imports torch or transformers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"  # two oversubscribed threads were 12-40x slower on tiny models
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel

sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # modules that several rooms' tests share

# No time limit on an example: the first one pays for imports that stay inside functions.
settings.register_profile("undersong", deadline=None)
settings.load_profile("undersong")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder as `from_pretrained` takes it: a random-weight Audio Flamingo 3 of 30 words."""
    import tiny_af3

    return tiny_af3.save(tmp_path_factory.mktemp("tiny") / "af3")


@pytest.fixture(scope="session")
def tiny_loaded(tiny_folder: Path) -> AudioModel:
    """Loaded once; take `tiny`, which checks that a test left it as it was."""
    from undersong.models.load import load_model

    return load_model(str(tiny_folder))


@pytest.fixture
def tiny(tiny_loaded: AudioModel) -> Iterator[AudioModel]:
    """The tiny model in eval mode, its ears full; a test that leaves an adapter or a changed weight behind fails."""
    import tiny_af3

    tiny_af3.fill_ears(tiny_loaded)
    before = tiny_af3.state(tiny_loaded)
    yield tiny_loaded
    tiny_af3.assert_unchanged(tiny_loaded, before)
