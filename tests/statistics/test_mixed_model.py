"""The mixed model of runs: analysis of variance where the design is balanced, a sentence where it cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.statistics import fit_mixed_model, paired_runs
from undersong.types import UndersongError

Design = tuple[list[int], list[int], np.ndarray]


def balanced(bases: int, draws: int, seeds: int, sds: tuple[float, float, float], rng_seed: int = 0) -> Design:
    rng = np.random.default_rng(rng_seed)
    values = (
        0.3
        + sds[0] * rng.standard_normal((bases, 1, 1))
        + sds[1] * rng.standard_normal((bases, draws, 1))
        + sds[2] * rng.standard_normal((bases, draws, seeds))
    )
    base, draw, _ = np.indices(values.shape)
    return base.ravel().tolist(), draw.ravel().tolist(), values.ravel()


def test_a_balanced_design_gives_the_analysis_of_variance() -> None:
    bases, draws, seeds = 5, 4, 3
    base, draw, values = balanced(bases, draws, seeds, (0.2, 0.1, 0.1))
    cube = values.reshape(bases, draws, seeds)
    within = cube.var(axis=2, ddof=1).mean()
    between_draws = seeds * cube.mean(axis=2).var(axis=1, ddof=1).mean()
    between_bases = draws * seeds * cube.mean(axis=(1, 2)).var(ddof=1)
    found = fit_mixed_model({"base": base, "draw": draw}, values)
    assert found is not None
    assert found.note == ""
    assert [(effect.name, effect.groups) for effect in found.effects] == [("base", 5), ("draw", 20), ("seed", 60)]
    assert [effect.sd**2 for effect in found.effects] == pytest.approx(
        [(between_bases - between_draws) / (draws * seeds), (between_draws - within) / seeds, within], rel=1e-3
    )


def test_a_balanced_design_gives_the_paired_t_interval_over_units() -> None:
    base, draw, values = balanced(4, 2, 2, (0.2, 0.05, 0.05), 1)
    keys = [(b, d, seed) for seed, (b, d) in enumerate(zip(base, draw))]
    plain = paired_runs(dict.fromkeys(keys, 0.0), dict(zip(keys, values)))
    found = fit_mixed_model({"base": base, "draw": draw}, values)
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((plain.difference, plain.low, plain.high), abs=1e-4)


def test_bases_with_more_runs_do_not_count_for_more_than_they_tell() -> None:
    base = [0] * 20 + [1, 1] + [2, 2] + [3, 3]
    values = np.array([0.8] * 20 + [0.2] * 2 + [0.3] * 2 + [0.1] * 2) + 0.02 * np.tile([-1, 1], 13)
    found = fit_mixed_model({"base": base}, values)
    assert found is not None
    assert found.mean is not None
    assert found.mean == pytest.approx(np.mean([0.8, 0.2, 0.3, 0.1]), abs=0.01)  # and not the runs' mean, 0.66


def test_a_component_at_its_edge_is_said_to_be_zero() -> None:
    cube = np.array([[0.1, 0.5, 0.3], [0.3, 0.1, 0.5], [0.5, 0.3, 0.1]])  # bases have equal means
    found = fit_mixed_model({"base": np.repeat([0, 1, 2], 3).tolist()}, cube.ravel())
    assert found is not None
    assert found.mean == pytest.approx(0.3)
    assert [effect.sd for effect in found.effects] == pytest.approx([0, np.sqrt(cube.var() * 9 / 8)])
    assert found.note == "The standard deviation by base was estimated as 0."


def test_one_seed_a_draw_makes_one_component_of_both() -> None:
    base, draw, values = balanced(3, 4, 1, (0.2, 0.1, 0.1))
    found = fit_mixed_model({"base": base, "draw": draw}, values)
    assert found is not None
    assert [effect.name for effect in found.effects] == ["base", "seed"]
    assert "Every draw has one seed only" in found.note


@pytest.mark.parametrize("levels", [{"base": [0, 0, 0]}, {"base": [0, 1, 2]}, {"base": [0, 0, 0], "draw": [1, 2, 3]}])
def test_without_two_levels_the_plain_reading_is_all(levels: dict[str, list[int]]) -> None:
    assert fit_mixed_model(levels, [0.1, 0.3, 0.2]) is None


def test_equal_runs_and_failed_fits_invent_nothing() -> None:
    equal = fit_mixed_model({"base": [0, 0, 1, 1]}, [0.3] * 4)
    no_noise = fit_mixed_model({"base": [0, 0, 1, 1, 2, 2]}, [0.1, 0.1, 0.5, 0.5, 0.3, 0.3])
    for found in (equal, no_noise):
        assert found is not None
        assert (found.mean, found.low, found.high, found.effects) == (None, None, None, ())
    assert equal is not None
    assert "agree exactly" in equal.note
    assert no_noise is not None
    assert "run noise is unknown" in no_noise.note


def test_broken_input_is_refused() -> None:
    with pytest.raises(UndersongError, match="one label of each level per run"):
        fit_mixed_model({"base": [0, 1]}, [0.1])
    with pytest.raises(UndersongError, match="not a number"):
        fit_mixed_model({"base": [0, 0, 1]}, [0.1, float("nan"), 0.2])


def test_a_fit_that_does_not_converge_gives_a_sentence_and_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from statsmodels.regression import mixed_linear_model

    def fails(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError

    monkeypatch.setattr(mixed_linear_model.MixedLM, "fit", fails)
    base, _, values = balanced(3, 2, 1, (0.5, 0.05, 0.05))
    found = fit_mixed_model({"base": base}, values)
    assert found is not None
    assert (found.mean, found.low, found.effects) == (None, None, ())
    assert "did not converge" in found.note
