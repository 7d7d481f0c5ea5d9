"""What holds for all tests: one thread, no network, no time limit on an example; and a tiny audio model to try on.

The variables are set here, before anything imports torch or transformers.
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"  # two oversubscribed threads were 12-40x slower on tiny models
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # modules that several rooms' tests share

# No time limit on an example: the first one pays for imports that stay inside functions.
settings.register_profile("undersong", deadline=None)
settings.load_profile("undersong")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder as `from_pretrained` takes it: a random-weight Audio Flamingo 3 with some thirty words."""
    import tiny_af3

    return tiny_af3.save(tmp_path_factory.mktemp("tiny") / "af3")


@pytest.fixture(scope="session")
def shared_tiny(tiny_folder: Path) -> AudioModel:
    """The tiny model, loaded once, its ears full.  For reading only; a test that changes anything takes `tiny`."""
    import tiny_af3

    from undersong.models.load import load_model

    model = load_model(str(tiny_folder))
    model.audio_features = dict(zip((clip.id for clip in tiny_af3.CLIPS), model.encode_audio(tiny_af3.CLIPS)))
    return model


@pytest.fixture
def tiny(shared_tiny: AudioModel) -> AudioModel:
    """A copy of the tiny model of one's own."""
    from undersong.models.audio_lm import AudioModel

    own = shared_tiny
    copied = AudioModel(copy.deepcopy(own.model), own.processor, own.family, own.name, own.fingerprint)
    copied.audio_features = dict(own.audio_features)
    return copied
