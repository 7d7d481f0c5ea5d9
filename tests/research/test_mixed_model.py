"""The mixed model of runs and prompts: analysis of variance where the design is balanced, restricted likelihood in any
design, and a sentence where it cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_runs import no_more_than

from undersong.research.statistics.mixed_model import fit_mixed_model
from undersong.statistics.runs import paired_runs
from undersong.types import UndersongError

# Bates et al. 2015 (lme4's data Penicillin; Davies and Goldsmith 1972): diameters of 6 samples on each of 24 plates
PENICILLIN = (
    "27 23 26 23 23 21/27 23 26 23 23 21/25 21 25 24 24 20/26 23 25 23 23 20/25 22 26 22 23 20/24 22 25 23 22 19/"
    "24 20 23 21 22 19/26 22 26 24 24 21/24 21 24 22 22 20/24 21 24 23 22 19/26 23 26 24 24 21/25 22 26 24 24 20/"
    "26 24 26 24 25 22/26 23 26 23 23 20/26 23 25 24 24 22/25 22 25 23 23 20/25 21 24 23 23 20/25 22 24 23 23 19/"
    "24 21 23 21 21 19/26 23 26 24 24 21/25 21 24 22 22 18/25 22 25 22 22 20/24 21 24 22 24 19/24 21 24 22 21 18"
)
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


def test_crossed_effects_are_those_that_lme4_publishes() -> None:
    diameters = [[int(value) for value in plate.split()] for plate in PENICILLIN.split("/")]
    found = fit_mixed_model({}, diameters, residual="plate", crossed="sample")
    assert found is not None
    assert found.mean == pytest.approx(22.9722, abs=5e-5)
    assert [(part.name, part.groups) for part in found.effects] == [
        ("plate", 24),
        ("sample", 6),
        ("plate x sample", 144),
    ]
    assert [part.sd for part in found.effects] == pytest.approx([0.8467, 1.9316, 0.5499], abs=5e-5)
    assert found.high - found.mean == pytest.approx(0.8086 * 2.5706, rel=1e-4)  # t at 5 degrees of freedom


def crossed(
    runs: list[int], prompts: int, sds: tuple[float, float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Values (runs, prompts) of bases with so many runs each, by the deviations of base, run, prompt and residual."""
    base, total = np.repeat(np.arange(len(runs)), runs), sum(runs)
    by_run = sds[0] * rng.standard_normal(len(runs))[base] + sds[1] * rng.standard_normal(total)
    by_prompt = sds[2] * rng.standard_normal(prompts)
    return by_run[:, None] + by_prompt + sds[3] * rng.standard_normal((total, prompts))


@pytest.mark.parametrize("runs", [[2] * 6, [1, 2, 2, 3, 3]])
def test_nested_runs_crossed_with_prompts_have_the_restricted_likelihood_fit(runs: list[int]) -> None:
    """statsmodels' fit with all effects at once finds the same optimum."""
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    table = crossed(runs, 8, (0.3, 0.15, 0.4, 0.2), np.random.default_rng(3))
    base = np.repeat(np.arange(len(runs)), runs)
    found = fit_mixed_model({"base": base.tolist()}, table)
    of_run, of_prompt = (index.ravel() for index in np.indices(table.shape))
    labels = {"base": base[of_run], "seed": of_run, "prompt": of_prompt}
    matrices = [(codes[:, None] == np.unique(codes)).astype(float) for codes in labels.values()]
    spec = VCSpec(list(labels), [[[str(i) for i in range(m.shape[1])]] for m in matrices], [[m] for m in matrices])
    ones = np.ones((table.size, 1))
    fit = MixedLM(table.ravel(), ones, groups=np.zeros(table.size), exog_vc=spec).fit(reml=True)
    assert found is not None
    assert min(*fit.vcomp, fit.scale) > 0
    assert [part.sd for part in found.effects] == pytest.approx(np.sqrt([*fit.vcomp, fit.scale]), rel=5e-3)
    assert found.mean == pytest.approx(float(fit.fe_params[0]), abs=1e-3)
    quantile = {6: 2.5706, 5: 2.7764}[len(runs)]  # at bases - 1 degrees of freedom
    assert found.high - found.mean == pytest.approx(quantile * float(fit.bse_fe[0]), rel=5e-3)


def test_mean_squares_in_the_wrong_order_are_pooled() -> None:
    """Draws whose means spread less than seeds do add nothing, and their degrees of freedom go to the residual."""
    base, draw, values = balanced(4, 3, 3, (0.3, 0.0, 0.1), 5)
    cube = values.reshape(4, 3, 3)
    between_draws, within = 3 * cube.mean(axis=2).var(axis=1, ddof=1).mean(), cube.var(axis=2, ddof=1).mean()
    assert between_draws < within
    pooled = (8 * between_draws + 24 * within) / 32
    found = fit_mixed_model({"base": base, "draw": draw}, values)
    assert found is not None
    assert [part.sd**2 for part in found.effects] == pytest.approx(
        [(9 * cube.mean(axis=(1, 2)).var(ddof=1) - pooled) / 9, 0.0, pooled]
    )


def test_the_interval_covers_when_bases_and_prompts_vary() -> None:
    """It is about further bases and prompts; that of the runs' means alone is about these prompts."""
    rng, studies, missed = np.random.default_rng(0), 1000, {"runs": 0, "prompts": 0}
    runs, prompts = [2] * 6, 10
    base = np.repeat(np.arange(6), runs).tolist()
    for _ in range(studies):
        table = crossed(runs, prompts, (0.1, 0.05, 0.3, 0.2), rng)
        table += 0.1 * rng.standard_normal((6, prompts))[base]  # bases also differ in which prompts they answer
        for name, values in (("runs", table.mean(axis=1)), ("prompts", table)):
            found = fit_mixed_model({"base": base}, values)
            assert found is not None
            missed[name] += not found.low <= 0 <= found.high
    assert no_more_than(missed["prompts"], studies)
    assert missed["prompts"] > 0.01 * studies  # and it is not much too wide
    assert missed["runs"] > 0.25 * studies


def test_prompts_make_a_model_of_runs_that_have_one_level() -> None:
    rng = np.random.default_rng(1)
    table = crossed([1] * 4, 5, (0.2, 0.0, 0.3, 0.1), rng)
    found = fit_mixed_model({"base": [0, 1, 2, 3]}, table)
    assert found is not None
    assert [part.name for part in found.effects] == ["seed", "prompt", "seed x prompt"]
    assert found.note == "Every base has one seed only, so their spreads are one component, named seed."
    assert fit_mixed_model({"base": [0, 1, 2, 3]}, table[:, :1]) is None  # one prompt shows no spread of prompts
    level = fit_mixed_model({}, table - table.mean(axis=0) + 1)
    assert level is not None
    assert level.effects[1].sd == 0
    assert "The standard deviation by prompt was estimated as 0." in level.note


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
    found = fit_mixed_model({"base": base[1:]}, values[1:])
    assert found is not None
    assert (found.mean, found.low, found.effects) == (None, None, ())
    assert "did not converge" in found.note
