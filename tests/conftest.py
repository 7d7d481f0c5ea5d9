"""What holds for all tests: one thread, no network, no time limit on an example; and a tiny audio model to try on.

The variables are set here, before anything imports torch or transformers.
"""

from __future__ import annotations

import copy
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# One thread: two oversubscribed ones were 12-40x slower on tiny models. More are for a trial of the tests themselves.
os.environ["OMP_NUM_THREADS"] = os.environ.get("UNDERSONG_TEST_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["UNDERSONG_CACHE"] = ""  # none: no test reads or writes the user's own

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from undersong.corpora.audio_metadata import AudioMetadata
    from undersong.models.audio_lm import AudioModel
    from undersong.types import Sample

sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # modules that several rooms' tests share

# No time limit on an example: the first one pays for imports that stay inside functions.
settings.register_profile("undersong", deadline=None)
settings.load_profile("undersong")


LONG_FOLDERS = {"research", "study", "screening", "standalone", "tuning", "models", "experiments", "store"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the folders with long files first, so that parallel workers finish together."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(tests).parts[0] not in LONG_FOLDERS)


@pytest.fixture(scope="session", autouse=True)
def packaged_clips_examined_once() -> Iterator[None]:
    """A study in a new store examines all its clips, which takes seconds: those of the package once a process."""
    from undersong.corpora import audio_metadata

    examine, known = audio_metadata.decode_sample_metadata, dict[tuple[str, bytes], "AudioMetadata"]()

    def remembered(sample: Sample) -> AudioMetadata:
        if not isinstance(sample.audio, bytes):  # clips in files are the tests' own
            return examine(sample)
        key = sample.id, sample.audio
        return known[key] if key in known else known.setdefault(key, examine(sample))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio_metadata, "decode_sample_metadata", remembered)
        yield


@pytest.fixture(scope="module", autouse=True)
def imports_frozen() -> None:
    """Keep imported modules out of garbage collection, which trainers and statsmodels run at every call."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder as `from_pretrained` takes it: a random-weight Audio Flamingo 3 with some thirty words."""
    import tiny_af3

    return tiny_af3.save(tmp_path_factory.mktemp("tiny") / "af3")


@pytest.fixture(scope="session")
def shared_tiny(tiny_folder: Path) -> AudioModel:
    """The tiny model, loaded once, its audio features cached. For reading only; a test that changes anything takes
    `tiny`.
    """
    import tiny_af3

    from undersong.models.load import load_model

    model = load_model(str(tiny_folder))
    model.audio_features = dict(zip((clip.id for clip in tiny_af3.CLIPS), model.encode_audio(tiny_af3.CLIPS)))
    return model


def copy_of(model: AudioModel) -> AudioModel:
    from undersong.models.audio_lm import AudioModel

    copied = AudioModel(copy.deepcopy(model.model), model.processor, model.family, model.name, model.fingerprint)
    copied.audio_features = dict(model.audio_features)
    return copied


@pytest.fixture
def tiny(shared_tiny: AudioModel) -> AudioModel:
    """A copy of the tiny model of one's own."""
    return copy_of(shared_tiny)


@pytest.fixture(scope="module")
def module_tiny(shared_tiny: AudioModel) -> AudioModel:
    """A copy for what the tests of a module share: trainings that several of them compare with."""
    return copy_of(shared_tiny)
