"""Probes: planted truth, nothing planted, traps for leaks, and chance that is what it says."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.research.mechanism.probes import ProbeResult, ProbeSet, cross_validate_probe
from undersong.types import UndersongError


def between(
    seed: int,
    clusters: int = 12,
    sizes: tuple[int, int] = (2, 2),
    signal: tuple[float, ...] = (0, 0),
    dim: int = 6,
    name: str = "c",
) -> ProbeSet:
    """Clusters of one label, alike within; `signal` by layer is how far apart the labels lie."""
    rng = np.random.default_rng(seed)
    label = np.arange(2 * clusters) % 2
    cluster = np.repeat(np.arange(2 * clusters), np.where(label, sizes[1], sizes[0]))
    harmful = label[cluster] == 1
    centres = rng.standard_normal((len(signal), 2 * clusters, dim))
    states = centres[:, cluster] + 0.3 * rng.standard_normal((len(signal), len(cluster), dim))
    states[..., 0] += np.array(signal)[:, None] * harmful
    return ProbeSet(states.astype(np.float32), harmful, [f"{name}{i}" for i in cluster], "fitted")


def matched(seed: int, clusters: int = 16, signal: tuple[float, ...] = (0, 0), dim: int = 6) -> ProbeSet:
    """Each cluster has two voices of a harmful text and two of its harmless twin; clusters lie far apart."""
    rng = np.random.default_rng(seed)
    cluster, side = np.repeat(np.arange(clusters), 4), np.tile([0, 0, 1, 1], clusters)
    states = 3 * rng.standard_normal((len(signal), clusters, dim))[:, cluster]
    states += rng.standard_normal((len(signal), 2 * clusters, dim))[:, 2 * cluster + side]
    states += 0.2 * rng.standard_normal(states.shape)
    states[..., 0] += np.array(signal)[:, None] * side
    return ProbeSet(states.astype(np.float32), side == 1, [f"m{i}" for i in cluster], "fitted")


def with_constant_input(given: ProbeSet) -> ProbeSet:
    """A decoder whose input is the same at every last token, and one layer."""
    states = given.states.copy()
    states[0] = states[0, 0]
    return ProbeSet(states, given.harmful, given.clusters, given.name)


def test_a_planted_signal_is_found_where_it_is_and_nowhere_else() -> None:
    signal = (0, 0, 0, 0, 0, 0, 0, 6, 6)
    found = cross_validate_probe(between(0, signal=signal, clusters=15), 0, permutations=199, draws=200).cross_validated
    assert (found.balanced_accuracy[7:] > 0.95).all()
    assert (found.auc[7:] > 0.98).all()
    assert (found.p_holm[7:] <= 0.05).all()
    assert (found.p_holm[:7] > 0.05).all()
    assert (found.high[:7] < 0.85).all()
    assert (found.low[7:] > 0.75).all()
    np.testing.assert_allclose(found.chance, 0.5, atol=0.05)
    assert found.late_accuracy.value == pytest.approx(found.balanced_accuracy[7:].mean())
    assert found.late_p_value == 1 / 200
    assert found.late_chance == pytest.approx(0.5, abs=0.05)


def test_a_matched_design_is_told_and_uses_its_pairs() -> None:
    found = cross_validate_probe(matched(0, signal=(0, 8)), 0, permutations=99, draws=100)
    assert found.design == "matched"
    # clusters of spread 3.2 lie 8 apart: the best that a direction can do is .90, and 32 pairs cannot find it quite
    assert found.cross_validated.balanced_accuracy[1] > 0.75
    assert found.cross_validated.late_p_value <= 0.02
    assert found.cross_validated.p_value[0] > 0.05
    both = between(1, signal=(0, 5)), matched(1, signal=(0, 5))
    mixed = ProbeSet(
        np.concatenate([s.states for s in both], axis=1),
        np.concatenate([s.harmful for s in both]),
        [*both[0].clusters, *both[1].clusters],
        "fitted",
    )
    assert cross_validate_probe(both[0], 0, permutations=1, draws=10).design == "between"
    found = cross_validate_probe(mixed, 0, permutations=99, draws=100)
    assert found.design == "mixed"
    assert found.cross_validated.late_p_value <= 0.02


def rejections(makes, seeds: int) -> int:
    """Seeds whose late p is at most .05, with nothing planted."""
    return sum(
        cross_validate_probe(
            with_constant_input(makes(seed)), seed, folds=3, permutations=39, draws=2
        ).cross_validated.late_p_value
        <= 0.05
        for seed in range(seeds)
    )


def most(seeds: int) -> int:
    """The largest count that a one-sided binomial test of "at most 5 %" passes at 1 %: 18 of 200."""
    from scipy.stats import binom

    return int(binom.isf(0.01, seeds, 0.05))


def test_the_late_p_is_calibrated() -> None:
    assert most(200) == 18
    assert rejections(lambda seed: between(seed, dim=4), 200) <= 18


@pytest.mark.parametrize("makes", [matched, lambda seed: between(seed, sizes=(1, 4))], ids=["matched", "sizes"])
def test_the_late_p_is_calibrated_for_pairs_and_for_labels_whose_clusters_differ_in_size(makes) -> None:
    assert rejections(makes, 40) <= most(40)


@pytest.mark.slow
@pytest.mark.parametrize(
    "makes", [between, matched, lambda seed: between(seed, sizes=(1, 4))], ids=["between", "matched", "sizes"]
)
def test_the_late_p_is_calibrated_with_all_folds(makes) -> None:
    ps = [
        cross_validate_probe(
            with_constant_input(makes(seed)), seed, permutations=39, draws=2
        ).cross_validated.late_p_value
        for seed in range(200)
    ]
    assert sum(p <= 0.05 for p in ps) <= 18
    assert 70 <= sum(p <= 0.5 for p in ps) <= 130


def test_a_cluster_that_can_be_memorised_says_nothing_of_another() -> None:
    """Voices of one behavior are nearly the same point: split between folds, its label would be known by heart."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    rates, leaked = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        cluster = np.repeat(np.arange(24), 6)
        centres = 3 * rng.standard_normal((24, 60))
        states = (centres[cluster] + 0.05 * rng.standard_normal((144, 60))).astype(np.float32)
        harmful = cluster % 2 == 1
        trap = ProbeSet(np.stack([states, states]), harmful, cluster.tolist(), "trap")
        found = cross_validate_probe(trap, seed, draws=10, permutations=19).cross_validated
        rates.append(found.balanced_accuracy[1])
        split = StratifiedKFold(5, shuffle=True, random_state=seed)
        leaked.append(cross_val_score(LogisticRegression(), states, harmful, cv=split).mean())
    assert np.mean(leaked) > 0.95
    assert abs(np.mean(rates) - 0.5) < 0.1


@settings(max_examples=8)
@given(st.integers(0, 99))
def test_scale_shift_and_order_of_dimensions_change_nothing(seed: int) -> None:
    given_ = between(seed, clusters=10, signal=(0, 1.5))
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-2, 2, 6) * rng.choice([-1, 1], 6)
    moved = (given_.states * scale + 5 * rng.standard_normal(6))[:, :, rng.permutation(6)]
    plain = cross_validate_probe(given_, 0, permutations=9, draws=9).cross_validated
    other = cross_validate_probe(
        ProbeSet(moved, given_.harmful, given_.clusters, "moved"), 0, permutations=9, draws=9
    ).cross_validated
    np.testing.assert_allclose(other.decisions, plain.decisions, atol=2e-3 * np.abs(plain.decisions).max())


@settings(max_examples=8)
@given(st.integers(0, 99))
def test_the_order_of_prompts_changes_nothing(seed: int) -> None:
    given_ = between(seed, clusters=10, signal=(0, 1.5))
    order = np.random.default_rng(seed).permutation(len(given_.harmful))
    moved = ProbeSet(
        given_.states[:, order], np.asarray(given_.harmful)[order], [given_.clusters[i] for i in order], "moved"
    )
    plain, other = (cross_validate_probe(s, 0, permutations=9, draws=9).cross_validated for s in (given_, moved))
    np.testing.assert_allclose(other.decisions, plain.decisions[:, order], atol=2e-3 * np.abs(plain.decisions).max())


def test_a_rotation_changes_little() -> None:
    """Not nothing: standardising each dimension is not the same in other axes, and whitening would fit noise."""
    given_ = between(3, clusters=40, signal=(0, 2.5), dim=12)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    turned = ProbeSet(given_.states @ rotation, given_.harmful, given_.clusters, "turned")
    plain, other = (cross_validate_probe(s, 0, permutations=19, draws=9).cross_validated for s in (given_, turned))
    np.testing.assert_allclose(other.balanced_accuracy, plain.balanced_accuracy, atol=0.06)
    assert np.corrcoef(plain.decisions[1], other.decisions[1])[0, 1] > 0.9


def other_models_set(seed: int, signal: tuple[float, ...]) -> ProbeSet:
    given_ = between(seed, clusters=8, signal=signal, name="other")
    return ProbeSet(given_.states, given_.harmful, given_.clusters, "held-out")


def test_a_held_out_set_is_scored_by_probes_that_never_saw_it() -> None:
    seen = between(0, signal=(0, 5))
    kept: ProbeResult = cross_validate_probe(seen, 0, other_models_set(1, (0, 5)), permutations=199, draws=100)
    assert kept.held_out is not None
    assert kept.held_out.balanced_accuracy[1] > 0.9
    assert kept.held_out.late_p_value <= 0.01
    assert kept.held_out.decisions.shape == (2, 32)
    gone = cross_validate_probe(
        seen, 0, other_models_set(1, (0, 0)), permutations=199, draws=100
    )  # what was learned does not carry
    assert gone.cross_validated.late_p_value <= 0.01
    assert gone.held_out is not None
    assert gone.held_out.late_p_value > 0.05
    np.testing.assert_array_equal(gone.cross_validated.decisions, kept.cross_validated.decisions)


def test_a_constant_layer_has_no_probe() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cross_validate_probe(with_constant_input(between(0, signal=(0, 5))), 0, permutations=49, draws=50)
    for name in ("balanced_accuracy", "low", "high", "auc", "auc_low", "auc_high", "chance", "p_value", "p_holm"):
        assert np.isnan(getattr(found.cross_validated, name)[0])
        assert np.isfinite(getattr(found.cross_validated, name)[1])
    assert found.cross_validated.p_holm[1] == found.cross_validated.p_value[1]  # the missing layer is no comparison
    assert found.notes == ("Layers 0 are constant over the prompts and have no probe.",)


def test_a_decoder_that_is_constant_throughout_has_no_late_number() -> None:
    given_ = between(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cross_validate_probe(
            ProbeSet(np.ones_like(given_.states), given_.harmful, given_.clusters, "flat"), 0, permutations=9, draws=9
        ).cross_validated
    assert np.isnan([found.late_accuracy.value, found.late_p_value, found.late_chance]).all()
    assert found.late_accuracy.low is None


def test_too_few_permutations_for_the_layers_are_told() -> None:
    assert any("takes 39" in note for note in cross_validate_probe(between(0), 0, permutations=9, draws=9).notes)
    assert cross_validate_probe(between(0), 0, permutations=39, draws=9).notes == ()


def test_the_same_seed_gives_the_same_numbers() -> None:
    one, same, other = (
        cross_validate_probe(between(0), seed, permutations=19, draws=20).cross_validated for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.decisions, same.decisions)
    assert one.late_accuracy == same.late_accuracy
    assert not np.array_equal(one.fold, other.fold)


def test_what_cannot_be_probed_is_refused() -> None:
    good = between(0)
    broken = good.states.copy()
    broken[1, 2, 3] = np.inf
    few = between(0, clusters=9)
    one_kind = ProbeSet(good.states, np.ones(len(good.harmful)), good.clusters, "held-out")
    wide = ProbeSet(np.concatenate([good.states] * 2, axis=2), good.harmful, [f"x{c}" for c in good.clusters], "wide")
    cases = [
        ((ProbeSet(broken, good.harmful, good.clusters, "fitted"), 0), "fitted set .* not finite at layer 1"),
        ((ProbeSet(good.states[:, 1:], good.harmful, good.clusters, "fitted"), 0), "one label and cluster per prompt"),
        ((ProbeSet(good.states, [2] * 48, good.clusters, "fitted"), 0), "labels other than harmful or not"),
        ((ProbeSet(good.states[:, :0], [], [], "fitted"), 0), "no prompts"),
        ((few, 0), "9 clusters with harmful prompts and needs at least 10"),
        ((good, 0, one_kind), "Cluster c0 is in both"),
        ((good, 0, ProbeSet(good.states, one_kind.harmful, wide.clusters, "held-out")), "0 clusters with benign"),
        ((good, 0, wide), "use states of one model"),
        ((good, 0, None, 2), "use at least 3 folds"),
        ((good, 0, None, 5, 0), "0 permutations"),
    ]
    for arguments, message in cases:
        with pytest.raises(UndersongError, match=message):
            cross_validate_probe(*arguments)
    assert cross_validate_probe(few, 0, folds=4, permutations=1, draws=1).design == "between"
