"""Seeds: the order samples come in, and global random state that is as it was afterwards."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from undersong.tuning.reproducibility import sample_order, temporary_seed

counts, lengths, seeds = st.integers(1, 40), st.integers(1, 200), st.integers(0, 2**32)


@given(counts, lengths, seeds)
def test_samples_come_in_full_rounds(count: int, length: int, seed: int) -> None:
    order = sample_order(count, length, seed)
    assert len(order) == length
    for start in range(0, length - count + 1, count):
        assert sorted(order[start : start + count]) == list(range(count))
    times = Counter(order)
    assert max(times.values()) - min(times.get(i, 0) for i in range(count)) <= 1


@given(counts, lengths, lengths, seeds)
def test_a_shorter_run_sees_the_same_beginning(count: int, one: int, other: int, seed: int) -> None:
    short, long = sorted((one, other))
    assert sample_order(count, long, seed)[:short] == sample_order(count, short, seed)


def test_the_seed_decides() -> None:
    assert sample_order(30, 60, 1) == sample_order(30, 60, 1)
    assert sample_order(30, 60, 1) != sample_order(30, 60, 2)
    first = sample_order(30, 60, 1)
    assert first[:30] != first[30:]  # every round is shuffled anew


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(1))


@given(st.integers(0, 2**40))
def test_inside_the_seed_decides_and_outside_nothing_changed(seed: int) -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    undisturbed = draws(), draws()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert draws() == undisturbed[0]
    with temporary_seed(seed):
        inside = draws()
    assert draws() == undisturbed[1]
    with temporary_seed(seed):
        assert draws() == inside
    with temporary_seed(seed + 1):
        assert all(a != b for a, b in zip(draws(), inside))


def test_state_is_restored_after_an_exception() -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = draws()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    with pytest.raises(ZeroDivisionError), temporary_seed(1):
        _ = draws()[0] / 0
    assert draws() == expected
