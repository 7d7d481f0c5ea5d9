"""A results file of a made-up study, for the tests of the report."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from results_factory import Json, synthetic


@pytest.fixture(scope="session")
def make_results() -> Callable[..., Json]:
    """The generator; every call makes a fresh results file that a test may change."""
    return synthetic


@pytest.fixture
def results() -> Json:
    """The demo: one axis, three kinds, two training modalities, three seeds."""
    return synthetic()
