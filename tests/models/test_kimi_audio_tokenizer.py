"""The semantic tokenizer against itself written one frame at a time, and what its windows may not depend on."""

from __future__ import annotations

import math

import pytest
import tiny_kimi
import torch
from torch.nn.functional import gelu, layer_norm, pad

from undersong.models.kimi.audio_tokenizer import CodesConfig, CodesEncoder, valid_token_mask
from undersong.types import UndersongError

BLOCK = 12  # states, in the tiny tokenizer


@pytest.fixture(scope="module")
def ear() -> CodesEncoder:
    return tiny_kimi.build().audio_tokenizer


def frames(seconds: float, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, _ = tiny_kimi.sound(seconds, seed)
    return inputs["code_features"], inputs["code_attention_mask"]


def convolved(mels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int) -> torch.Tensor:
    """(mels, frames) -> (frames / stride, dim): output t sees frames stride*t - 2 … stride*t."""
    rows = []
    for t in range(0, mels.shape[1], stride):
        window = [mels[:, t - back] if t >= back else torch.zeros(len(mels)) for back in (2, 1, 0)]
        rows.append(sum(weight[:, :, k] @ window[k] for k in range(3)) + bias)
    return gelu(torch.stack(rows))


def normed(x: torch.Tensor, module: torch.nn.LayerNorm) -> torch.Tensor:
    return layer_norm(x, x.shape[-1:], module.weight, module.bias)


def naive(ear: CodesEncoder, mels: torch.Tensor, valid: list[bool]) -> tuple[list[int], torch.Tensor]:
    """One window (mels, frames): attention by a loop over states, pooling and the search of a code by loops too."""
    x = convolved(mels, ear.conv1.weight, ear.conv1.bias, 1)
    x = convolved(x.T, ear.conv2.weight, ear.conv2.bias, 2)
    heard = valid[::2]
    x = x + ear.embed_positions.weight[: len(x)]
    heads = ear.config.encoder_attention_heads
    for layer in ear.layers:
        attention, normal = layer.self_attn, normed(x, layer.self_attn_layer_norm)
        q, k, v = (m(normal).unflatten(-1, (heads, -1)) for m in (attention.q_proj, attention.k_proj, attention.v_proj))
        mixed = []
        for i in range(len(x)):
            may = [j for j in range(len(x)) if heard[j] and (j <= i or j // BLOCK == i // BLOCK)]
            scores = torch.einsum("hd,jhd->hj", q[i], k[may]) / math.sqrt(q.shape[-1])
            mixed.append(torch.einsum("hj,jhd->hd", scores.softmax(-1), v[may]).flatten())
        x = x + attention.out_proj(torch.stack(mixed))
        x = x + layer.fc2(gelu(layer.fc1(normed(x, layer.final_layer_norm))))
    pooled, codes = [], []
    for start in range(0, len(x), 4):
        pooled.append(x[start : start + 4].sum(0) / 4)  # what lacks at the end counts as zeros
        codes.append(min(range(tiny_kimi.CODES), key=lambda c: float((pooled[-1] - ear.codebook.weight[c]).norm())))
    return codes, torch.stack(pooled)


@torch.no_grad()
@pytest.mark.parametrize("seconds", [0.05, 0.61, 1.3])
def test_codes_are_those_of_a_loop_over_frames(ear, seconds):
    features, mask = frames(seconds)
    codes, valid = ear(features, mask)
    pooled, _ = ear.token_states(features, mask)
    expected, states = naive(ear, features[0], mask[0].bool().tolist())
    assert valid.sum() == math.ceil(seconds * 12.5)
    assert torch.allclose(pooled[0], states, atol=1e-5)
    assert codes[0].tolist() == expected


@torch.no_grad()
def test_a_rest_that_fills_no_whole_token_is_averaged_with_zeros(ear):
    features, mask = frames(1.3)
    features, mask = features[..., :-4], mask[..., :-4]  # 2 states too few for the last token
    expected, states = naive(ear, features[0], mask[0].bool().tolist())
    pooled, _ = ear.token_states(features, mask)
    assert torch.allclose(pooled[0], states, atol=1e-5)
    assert ear(features, mask)[0][0].tolist() == expected


@torch.no_grad()
def test_a_window_does_not_depend_on_its_batch_or_on_what_pads_it(ear):
    (short, short_mask), (long, long_mask) = frames(0.7), frames(1.9, seed=3)
    wide = long.shape[-1] - short.shape[-1]
    features = torch.cat([pad(short, (0, wide), value=9.0), long])
    mask = torch.cat([pad(short_mask, (0, wide)), long_mask])
    together, valid = ear.token_states(features, mask)
    for row, (alone, alone_mask) in enumerate([(short, short_mask), (long, long_mask)]):
        states, own = ear.token_states(alone, alone_mask)
        assert int(valid[row].sum()) == int(own.sum())
        assert torch.allclose(together[row][valid[row]], states[own], atol=1e-5)
        assert ear(features, mask)[0][row][valid[row]].tolist() == ear(alone, alone_mask)[0][own].tolist()


@torch.no_grad()
def test_the_future_beyond_a_states_own_block_changes_nothing_and_within_it_does(ear):
    features, mask = frames(1.3)
    before, _ = ear.token_states(features, mask)
    later = features.clone()
    later[..., 2 * 2 * BLOCK :] += 1.0  # frames of the third block on
    after, _ = ear.token_states(later, mask)
    whole = 2 * BLOCK // 4  # tokens of the first two blocks
    assert torch.allclose(before[:, :whole], after[:, :whole], atol=1e-5)
    assert not torch.allclose(before[:, whole], after[:, whole], atol=1e-3)
    later = features.clone()
    later[..., 2 * BLOCK - 2 : 2 * BLOCK] += 1.0  # the last state of the first block
    assert not torch.allclose(before[:, 0], ear.token_states(later, mask)[0][:, 0], atol=1e-4)


def test_a_token_is_valid_if_any_frame_of_it_is():
    for heard in range(1, 40):
        mask = torch.tensor([[1] * heard + [0] * (40 - heard)])
        assert int(valid_token_mask(mask).sum()) == math.ceil(heard / 8)


def test_states_carry_gradients_and_codes_are_whole_numbers(ear):
    features, mask = frames(0.61)
    ear.token_states(features, mask)[0].sum().backward()
    assert ear.conv1.weight.grad.abs().sum() > 0
    ear.zero_grad(set_to_none=True)
    codes, _ = ear(features, mask)
    assert codes.dtype == torch.int64
    assert 0 <= int(codes.min()) <= int(codes.max()) < tiny_kimi.CODES


def test_a_window_that_is_too_long_is_refused(ear):
    with pytest.raises(UndersongError, match=r"201 mel frames .* the 200"):
        ear(torch.zeros(1, tiny_kimi.MELS, 201), torch.ones(1, 201))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pooling_type", "max"),
        ("pooling_kernel_size", 2),
        ("encoder_causal_convolution", False),
        ("pooling_position", 1),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(key, value):
    shape = {"quantize_position": 2, "pooling_position": 2, "quantize_vocab_size": 8}
    with pytest.raises(UndersongError, match=f"{key}={value!r}"):
        CodesEncoder(CodesConfig(**tiny_kimi.whisper(**{**shape, key: value})))
