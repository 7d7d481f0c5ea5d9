"""The projection keeps cosines as the lemma says, and is one matrix whatever the blocks, order and company."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from undersong.tuning.gradient_features import project_gradients, sign_blocks
from undersong.types import UndersongError


def matrix(name: str, parameters: int, dim: int, seed: int, block: int = 7) -> np.ndarray:
    """(parameters, dim) signs, all at once."""
    return np.concatenate([signs.numpy() for _, signs in sign_blocks(name, parameters, dim, seed, block)])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) of rows."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 9), st.integers(1, 50))
def test_blocks_of_any_size_give_one_matrix(parameters: int, dim: int, seed: int, block: int) -> None:
    whole = matrix("layer", parameters, dim, seed, parameters)
    assert whole.shape == (parameters, dim)
    assert np.array_equal(whole, matrix("layer", parameters, dim, seed, block))


def test_signs_are_fair_and_their_columns_unrelated() -> None:
    signs = matrix("layer", 20_000, 40, 0, 4096)
    assert set(np.unique(signs)) == {-1, 1}
    share = signs.T @ signs / len(signs)
    assert np.abs(signs.mean(0)).max() < 4.5 / np.sqrt(len(signs))
    assert np.abs(share - np.eye(40)).max() < 4.5 / np.sqrt(len(signs))


def test_names_and_seeds_have_signs_of_their_own() -> None:
    drawn = [matrix(name, 500, 64, seed) for name in ("q_proj", "k_proj") for seed in (0, 1)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert abs((one * other).mean()) < 4.5 / np.sqrt(one.size)


@given(st.integers(1, 5), st.integers(1, 60), st.integers(0, 5))
def test_it_is_the_product_with_that_matrix(samples: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = {name: rng.standard_normal((samples, size)).astype(np.float32) for name, size in (("a", 33), ("b", 12))}
    naive = sum(part.astype(np.float64) @ matrix(name, part.shape[1], dim, seed) for name, part in parts.items())
    made = project_gradients({name: torch.from_numpy(part) for name, part in parts.items()}, dim, seed, block=10)
    assert made.dtype == np.float64
    np.testing.assert_allclose(made, naive / np.sqrt(dim), atol=1e-5)


@pytest.mark.parametrize("dim", [64, 1024])
@pytest.mark.parametrize("kind", ["spread", "few large"])
def test_cosines_are_kept_to_the_bound_of_the_lemma(dim: int, kind: str) -> None:
    """24 matrices, 25 pairs each, at every cosine: no bias, the predicted spread, no outlier beyond 600 normal draws'.

    Pairs that share a matrix share its luck, so the bias is judged over matrices.
    """
    rng = np.random.default_rng(5)
    matrices, pairs, size = 24, 25, 600
    scale = np.ones(size) if kind == "spread" else 1 / np.arange(1, size + 1)
    for true in (-0.5, 0.0, 0.3, 0.9):
        spread = (1 - true**2) / np.sqrt(dim)  # of a cosine after a Gaussian projection (Fisher); signs have no more
        errors = []
        for seed in range(matrices):
            a, b = pairs_at(true, pairs, scale, rng)
            both = torch.from_numpy(np.concatenate([a, b]).astype(np.float32))
            # Parts of one vector under two names, as a model's tensors are.
            made = project_gradients({"first": both[:, : size // 3], "rest": both[:, size // 3 :]}, dim, seed)
            errors.append(cosines(made[:pairs], made[pairs:]) - true)
            assert np.abs(np.linalg.norm(made, axis=1) - 1).max() < 5 / np.sqrt(2 * dim)
        means = np.mean(errors, axis=1)
        assert abs(means.mean()) < 4.5 * means.std(ddof=1) / np.sqrt(matrices)
        assert (0.8 if kind == "spread" else 0.0) * spread < np.std(errors) < 1.2 * spread
        off = np.arctanh(np.array(errors) + true) - np.arctanh(true)  # on this scale (Fisher) there is no skew
        assert np.abs(off).max() < 5 / np.sqrt(dim)


def pairs_at(true: float, pairs: int, scale: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows whose pairs have exactly this cosine, entries on `scale`."""
    a, c = (rng.standard_normal((pairs, len(scale))) * scale for _ in range(2))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    c -= (c * a).sum(1, keepdims=True) * a
    return a, true * a + np.sqrt(1 - true**2) * c / np.linalg.norm(c, axis=1, keepdims=True)


def test_what_cannot_be_projected_is_refused() -> None:
    with pytest.raises(UndersongError, match="to 0 numbers"):
        project_gradients({"a": torch.ones(1, 3)}, 0, 0)
    with pytest.raises(UndersongError, match=r"of \[1, 2\] samples"):
        project_gradients({"a": torch.ones(1, 3), "b": torch.ones(2, 3)}, 4, 0)
    with pytest.raises(UndersongError, match="of \\[\\] samples"):
        project_gradients({}, 4, 0)
