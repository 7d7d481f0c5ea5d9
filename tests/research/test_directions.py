"""Refusal directions: against a naive loop, with planted answers, and layers that have none."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.research.mechanism.directions import RefusalDirection, fit_direction, load_direction, save_direction
from undersong.types import UndersongError


def states(seed: int, layers: int, prompts: int, dim: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((layers, prompts, dim)).astype(np.float32)


@given(st.integers(0, 99), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(2, 8))
def test_against_a_naive_loop(seed: int, layers: int, harmful_n: int, harmless_n: int, dim: int) -> None:
    harmful, harmless = states(seed, layers, harmful_n, dim), states(seed + 1, layers, harmless_n, dim)
    other = states(seed + 2, layers, 3, dim)
    found = fit_direction(harmful, harmless)
    projected = found.project(other)
    for layer in range(layers):
        up = sum(row.astype(float) for row in harmful[layer]) / harmful_n
        down = sum(row.astype(float) for row in harmless[layer]) / harmless_n
        length = np.sqrt(sum(x * x for x in up - down))
        np.testing.assert_allclose(found.unit[layer], (up - down) / length, atol=1e-9)
        for prompt in range(3):
            along = sum(other[layer, prompt].astype(float) * (up - down) / length)
            middle = sum((up + down) / 2 * (up - down) / length)
            assert projected[layer, prompt] == pytest.approx((along - middle) / (length / 2), abs=1e-6)


@given(st.integers(0, 99))
def test_the_fitting_split_lies_at_plus_and_minus_one(seed: int) -> None:
    harmful, harmless = states(seed, 3, 5, 6), states(seed + 1, 3, 7, 6)
    found = fit_direction(harmful, harmless)
    np.testing.assert_allclose(found.project(harmful).mean(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.project(harmless).mean(axis=1), -1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.unit, axis=1), 1, atol=1e-12)


def test_a_planted_direction_is_recovered() -> None:
    rng = np.random.default_rng(0)
    planted = rng.standard_normal((3, 16))
    planted /= np.linalg.norm(planted, axis=1, keepdims=True)
    size = np.array([0.5, 2.0, 8.0])
    noise = lambda: rng.normal(0, 0.2, (3, 400, 16))  # noqa: E731
    harmless = noise() + 3
    harmful = noise() + 3 + (size[:, None] * planted)[:, None, :]
    found = fit_direction(harmful, harmless)
    assert (np.einsum("ld,ld->l", found.unit, planted) > 0.99).all()
    np.testing.assert_allclose(2 * found.half_distance, size, atol=0.1)
    assert (fit_direction(harmless, harmful).cosine(found) < -0.999).all()
    np.testing.assert_allclose(found.cosine(found), 1)
    np.testing.assert_allclose(
        found.cosine(RefusalDirection(planted, found.midpoint, found.half_distance)), 1, atol=0.01
    )


def test_means_are_taken_in_double_precision() -> None:
    """In float32 (or float16) the small difference would drown in what both sets share."""
    rng = np.random.default_rng(1)
    shared, gap = 10_000.0, 1 / 64
    harmless = np.full((1, 3000, 4), shared, np.float32) + rng.choice([-0.5, 0.5], (1, 3000, 4)).astype(np.float32)
    harmful = harmless.copy()
    harmful[..., 0] += np.float32(gap)
    found = fit_direction(harmful, harmless)
    assert 2 * found.half_distance[0] == pytest.approx(gap, rel=1e-9)
    np.testing.assert_allclose(found.unit[0], [1, 0, 0, 0], atol=1e-9)
    assert all(part.dtype == np.float64 for part in (found.unit, found.midpoint, found.half_distance))
    assert found.project(harmful).dtype == np.float64


def test_a_layer_with_equal_means_has_no_direction() -> None:
    """The decoder's input at an identical last token."""
    harmful, harmless = states(0, 3, 7, 5), states(1, 3, 4, 5)
    harmful[0], harmless[0] = harmful[0, :1], harmful[0, :1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_direction(harmful, harmless)
        projected = found.project(harmful)
        cosine = found.cosine(fit_direction(harmless, harmful))
    assert np.isnan(projected[0]).all()
    assert np.isfinite(projected[1:]).all()
    assert np.isnan(cosine[0])
    np.testing.assert_allclose(cosine[1:], -1)


def test_what_cannot_be_fitted_is_refused() -> None:
    good, none, broken = states(0, 2, 3, 4), np.empty((2, 0, 4), np.float32), states(0, 2, 3, 4)
    broken[1, 2, 3] = np.inf
    with pytest.raises(UndersongError, match="harmful contrast set is empty"):
        fit_direction(none, good)
    with pytest.raises(UndersongError, match="benign contrast set is empty"):
        fit_direction(good, none)
    with pytest.raises(UndersongError, match="benign contrast set has hidden states that are not finite"):
        fit_direction(good, broken)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    harmful, harmless = states(0, 3, 5, 6), states(1, 3, 5, 6)
    harmless[0] = harmful[0] = 1
    found = fit_direction(harmful, harmless)
    save_direction(found, tmp_path / "direction.safetensors")
    again = load_direction(tmp_path / "direction.safetensors")
    for name in ("unit", "midpoint", "half_distance"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert getattr(again, name).dtype == np.float64
