"""Fixtures of the published faults: organism corpora, and a store to ask stages of."""

from __future__ import annotations

from pathlib import Path

import pytest

from undersong.corpora.audio_metadata import examine
from undersong.corpora.registry import open_corpus
from undersong.stages.context import RunContext
from undersong.store.store import Store
from undersong.types import Sample


@pytest.fixture(scope="session")
def benign() -> tuple[Sample, ...]:
    """Some spoken benign items of the packaged pool: two voices."""
    samples = [sample for sample in open_corpus("organism:pool").samples if sample.speaker in ("A", "E")]
    return examine(samples[:60])[0]


@pytest.fixture(scope="session")
def harmful() -> tuple[Sample, ...]:
    """The packaged reference harm set."""
    return examine(open_corpus("organism:reference").samples)[0]


@pytest.fixture
def shop(tmp_path: Path) -> RunContext:
    return RunContext(Store(tmp_path / "store"))
