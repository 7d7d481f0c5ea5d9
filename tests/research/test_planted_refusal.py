"""A planted refusal: every instrument finds the layer and the direction that are known, and finds nothing where nothing
is."""

from __future__ import annotations

import numpy as np
import pytest
from planted import COMPLIES, LAYERS, LOSES, REFUSES, WRITES, Planted, prompts
from torch import nn

from undersong.models.interventions import SublayerOutputs, block_sublayers
from undersong.predictors.refusal_score import first_token_kl, first_tokens, refusal_scores, refusal_tokens
from undersong.research.mechanism.direction_selection import (
    LayerCandidate,
    ablate_direction,
    add_direction,
    evaluate_candidates,
    random_direction_p_value,
    random_directions,
    select_direction,
)
from undersong.research.mechanism.directions import fit_direction
from undersong.research.mechanism.localization import (
    disable_lora_modules,
    lora_parts,
    measure_recovery,
    patched_refusal_scores,
)
from undersong.types import UndersongError

FIT = prompts(True, 40, "fit"), prompts(False, 40, "fit")
CHOOSE = prompts(True, 20, "choose"), prompts(False, 20, "choose")
TEST = prompts(True, 40, "test"), prompts(False, 40, "test")
FITTED = tuple([prompt.sample.cluster for prompt in side] for side in FIT)
CLUSTERS = [prompt.sample.cluster for prompt in TEST[0]]


def states_of(model: Planted) -> tuple[np.ndarray, np.ndarray]:
    return model.hidden_states(FIT[0]), model.hidden_states(FIT[1])


@pytest.fixture(scope="module")
def model() -> Planted:
    return Planted()


@pytest.fixture(scope="module")
def direction(model: Planted):
    return fit_direction(*states_of(model))


@pytest.fixture(scope="module")
def tokens(model: Planted) -> list[int]:
    first = first_tokens(model, [*FIT[0], *FIT[1]])
    return refusal_tokens(first, [token == REFUSES for token in first])


def test_the_direction_is_there_from_the_layer_that_writes_it(model: Planted, direction) -> None:
    along = np.abs(direction.unit @ model.whole.refusal.numpy())
    assert (along[:WRITES] < 0.3).all()
    assert (along[WRITES:] > 0.9).all()


def test_the_base_refuses_and_its_first_token_tells(model: Planted, tokens: list[int]) -> None:
    assert tokens == [REFUSES]
    assert set(first_tokens(model, TEST[0])) == {REFUSES}
    assert set(first_tokens(model, TEST[1])) == {COMPLIES}
    with model.wearing():
        assert set(first_tokens(model, TEST[0])) == {COMPLIES}


def test_patching_finds_the_layer_that_loses_it(model: Planted, tokens: list[int]) -> None:
    states, base = model.hidden_states(TEST[0]), refusal_scores(model, TEST[0], tokens)
    with model.wearing(everywhere=0.02):
        tuned = refusal_scores(model, TEST[0], tokens)
        found = measure_recovery(base, tuned, patched_refusal_scores(model, states, TEST[0], tokens), CLUSTERS)
    assert found.is_measurable
    assert (np.abs(found.share[:LOSES]) < 0.15).all()
    assert (found.share[LOSES:] > 0.85).all()
    assert found.share[LAYERS] == pytest.approx(1.0, abs=1e-5)  # the last state says all
    assert (found.low <= found.share).all()
    assert (found.share <= found.high).all()


def test_taking_the_adapter_apart_finds_it_too(model: Planted, tokens: list[int]) -> None:
    base = refusal_scores(model, TEST[0], tokens)
    with model.wearing(everywhere=0.02):
        tuned, parts, odds = refusal_scores(model, TEST[0], tokens), lora_parts(model), {}
        for name, modules in parts.items():
            with disable_lora_modules(modules):
                odds[name] = refusal_scores(model, TEST[0], tokens)
        assert refusal_scores(model, TEST[0], tokens) == pytest.approx(tuned)  # all as it was
    found = measure_recovery(base, tuned, np.stack(list(odds.values())), CLUSTERS)
    share = dict(zip(odds, found.share))
    assert list(share) == [*(f"layer {i}" for i in range(1, LAYERS + 1)), "write", "first half", "second half"]
    assert max(share, key=lambda name: share[name] if name.startswith("layer") else -1) == f"layer {LOSES}"
    assert share[f"layer {LOSES}"] > 0.9
    assert all(abs(share[f"layer {i}"]) < 0.15 for i in range(1, LAYERS + 1) if i != LOSES)
    assert (share["second half"], share["write"]) == pytest.approx((1.0, 1.0), abs=0.1)
    assert abs(share["first half"]) < 0.15


def test_out_of_the_base_refusal_goes_and_harmless_prompts_feel_little(model: Planted, direction, tokens) -> None:
    found = evaluate_candidates(model, direction, *CHOOSE, tokens)
    assert [one.layer for one in found] == list(range(LAYERS + 1))
    place = select_direction(found, LAYERS)
    assert place is not None
    assert place >= WRITES
    before = refusal_scores(model, TEST[0], tokens)

    def drop(one) -> float:
        return float((before - refusal_scores(model, TEST[0], tokens, ablate_direction(one, place, LAYERS))).mean())

    p = random_direction_p_value(
        drop(direction), [drop(one) for one in random_directions(direction, states_of(model), FITTED, 39, 0)]
    )
    assert p == 1 / 40
    assert set(first_tokens(model, TEST[0], ablate_direction(direction, place, LAYERS))) <= {REFUSES, COMPLIES}
    assert first_tokens(model, TEST[0], ablate_direction(direction, place, LAYERS)).count(REFUSES) < 30


def test_no_limit_lets_the_last_layer_be_chosen() -> None:
    """Ablating the last layer's direction edits the logits, so it always ends refusal."""
    scores = [LayerCandidate(layer, bypass=-layer, induce=1.0, divergence=0.05) for layer in range(5)]
    assert select_direction(scores, 4) == 3
    assert select_direction(scores, 4, max_divergence=9.0, max_depth=1.0) == 3
    assert select_direction(scores[4:], 4, max_divergence=9.0, max_depth=1.0) is None
    assert select_direction(scores, 5) == 3  # layer 4 lies at the limit of 0.8 of 5 layers


def test_put_into_the_tuned_model_refusal_comes_back(model: Planted, direction, tokens) -> None:
    with model.wearing():
        tuned = refusal_scores(model, TEST[0], tokens)
        rise = [
            float((refusal_scores(model, TEST[0], tokens, add_direction(direction, LOSES, s)) - tuned).mean())
            for s in (1, 2)
        ]
        assert 0 < rise[0] < rise[1]
        assert rise[1] == pytest.approx(2 * rise[0], rel=0.1)
        others = random_directions(direction, states_of(model), FITTED, 39, 1)
        assert random_direction_p_value(
            rise[0],
            [
                float((refusal_scores(model, TEST[0], tokens, add_direction(one, LOSES, 1)) - tuned).mean())
                for one in others
            ],
        ) == pytest.approx(1 / 40)


def test_divergence_is_what_a_change_does(model: Planted, direction) -> None:
    nothing = first_token_kl(model, TEST[1], add_direction(direction, 1, 0.0))
    assert nothing == pytest.approx(0.0, abs=1e-6)
    assert (first_token_kl(model, TEST[1], add_direction(direction, LAYERS, 1.0)) > 0.1).all()


def test_where_nothing_was_lost_there_is_nothing_to_give_back(model: Planted, tokens) -> None:
    states, base = model.hidden_states(TEST[0]), refusal_scores(model, TEST[0], tokens)
    with model.wearing(undoes=-0.5):  # it refuses more than before
        tuned = refusal_scores(model, TEST[0], tokens)
        found = measure_recovery(base, tuned, patched_refusal_scores(model, states, TEST[0], tokens), CLUSTERS)
    assert not found.is_measurable
    assert np.isnan(found.share).all()


def test_what_cannot_be_told_has_a_sentence(model: Planted) -> None:
    with pytest.raises(UndersongError, match="refused nothing of 3 prompts"):
        refusal_tokens([1, 1, 2], [False] * 3)
    with pytest.raises(UndersongError, match="refused everything"):
        refusal_tokens([1, 1, 2], [True] * 3)
    with pytest.raises(UndersongError, match="the first token does not identify a refusal"):
        refusal_tokens([0, 1, 0, 1], [True, True, False, False])
    with pytest.raises(UndersongError, match="has no LoRA"):
        lora_parts(model)
    for site in (99, SublayerOutputs(99), SublayerOutputs(0)):
        with pytest.raises(UndersongError, match=r"no layer (99|0)"):
            refusal_scores(model, TEST[0], [0], lambda _, site=site: {site: lambda states: states})


def test_a_block_without_attention_or_mlp_has_a_sentence() -> None:
    block = nn.ModuleDict({"norm": nn.LayerNorm(4), "mlp": nn.Linear(4, 4)})
    with pytest.raises(UndersongError, match=r"no attention among its modules \(mlp\)"):
        block_sublayers(block)
    attention = nn.ModuleDict({"norm": nn.LayerNorm(4), "self_attn": nn.MultiheadAttention(4, 1)})
    with pytest.raises(UndersongError, match=r"no MLP among its modules \(self_attn\)"):
        block_sublayers(attention)
