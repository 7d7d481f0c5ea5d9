"""Every family of speech encoders: valid frames only, whatever else is in the batch, of the layer that was asked for.

The oracle is transformers' own class on one clip, without padding.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_speech
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from undersong.corpora.decode import load_clip
from undersong.encoders.clip_encoder import ClipEncoder
from undersong.encoders.speech import speech_encoder
from undersong.encoders.speech_networks import count_frames
from undersong.types import Clip, UndersongError

RATE = 16_000


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("speech")
    return {name: tiny_speech.save(name, root / name) for name in tiny_speech.FAMILIES}


@pytest.fixture(scope="module")
def encoders(folders) -> dict[str, ClipEncoder]:
    made = {name: speech_encoder(folder, pool="mean" if one_vector(name) else "mean+std", seconds=9.0)
            for name, folder in folders.items()}  # fmt: skip
    return {**made, "whisper-bucket": speech_encoder(folders["whisper"], pad="bucket", layer="mix:1-3")}


def one_vector(name: str) -> bool:
    return name in tiny_speech.SPEAKERS or name in tiny_speech.CLAPS


# Four lengths, two of them equal: what shares a pass differs from example to example.
LENGTHS = st.lists(st.sampled_from([0.4, 0.97, 1.3, 1.3, 1.9, 2.0, 2.31, 4.6]), min_size=2, max_size=5)


@pytest.mark.parametrize("name", [*tiny_speech.FAMILIES, "whisper-bucket"])
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=LENGTHS, seed=st.integers(0, 9))
def test_a_vector_does_not_depend_on_its_batch(encoders, spoken, name: str, lengths: list[float], seed: int) -> None:
    samples = [spoken(str(i), s, pitch=90 + 40 * i, gain=0.2 + i, seed=seed) for i, s in enumerate(lengths)]
    encoder = encoders[name]
    together = encoder.encode(samples)
    for row, sample in enumerate(samples):
        alone = encoder.encode([sample])
        assert alone.frames[0] == together.frames[row]
        assert np.abs(alone.vectors[0] - together.vectors[row]).max() < 1e-5


@pytest.mark.parametrize("name", tiny_speech.WAVES)
def test_frames_are_counted_as_the_network_makes_them(folders, name: str) -> None:
    model = AutoModel.from_pretrained(folders[name]).eval()
    for samples in (800, 801, 1119, 1120, 16_001):
        with torch.inference_mode():
            frames = model(torch.zeros(1, samples)).last_hidden_state.shape[1]
        assert count_frames(model.config, samples) == frames
    assert count_frames(model.config, 50) < 1


@pytest.mark.parametrize("name", tiny_speech.WAVES)
def test_the_mean_is_of_transformers_own_frames(folders, spoken, name: str) -> None:
    samples = [spoken("a", 0.83), spoken("b", 1.6, pitch=210)]
    made = speech_encoder(folders[name]).encode(samples)
    for row, sample in enumerate(samples):
        states, output, frames = by_hand(folders[name], load_clip(sample).samples)
        assert made.frames[row] == frames == len(output)
        assert np.abs(made.vectors[row] - output.mean(axis=0)).max() < 1e-5
    assert len(states) == tiny_speech.LAYERS + 1


@pytest.mark.parametrize("name", ["wav2vec2-base", "hubert-large", "wavlm-base", "data2vec", "conformer"])
def test_layers_are_counted_from_what_enters_the_first(folders, spoken, name: str) -> None:
    """Also where the blocks above are left out."""
    sample = spoken("a", 1.1)
    states, output, _ = by_hand(folders[name], load_clip(sample).samples)
    wanted = {
        0: states[0], 1: states[1], 2: states[2], 3: output, "mix:0+2": (states[0] + states[2]) / 2,
        "mix:all": (states[0] + states[1] + states[2] + output) / 4, "mix:1-2": (states[1] + states[2]) / 2,
    }  # fmt: skip
    for layer, frames in wanted.items():
        made = speech_encoder(folders[name], layer=layer).encode([sample]).vectors[0]
        assert np.abs(made - frames.mean(axis=0)).max() < 1e-5, layer


def by_hand(folder: Path, wave: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, int]:
    """What enters the first block and leaves each (by hooks), the network's output, and how many frames it says."""
    import torch
    from transformers import AutoModel, Wav2Vec2FeatureExtractor

    model = AutoModel.from_pretrained(folder).eval()
    states: list[np.ndarray] = []
    first = model.encoder.layers[0].register_forward_pre_hook(lambda _, args: states.append(args[0][0].numpy()))
    hooks = [
        layer.register_forward_hook(
            lambda _, __, out: states.append((out[0] if isinstance(out, tuple) else out)[0].numpy())
        )
        for layer in model.encoder.layers
    ]
    values = Wav2Vec2FeatureExtractor.from_pretrained(folder)(wave, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        output = model(values["input_values"]).last_hidden_state[0].numpy()
    for hook in (first, *hooks):
        hook.remove()
    return states, output, int(model._get_feat_extract_output_lengths(len(wave)))


def test_padding_would_have_been_heard(folders, spoken) -> None:
    """Why group-normalised models are never padded: zeros behind a clip change its own frames, mask or no mask."""
    import torch
    from transformers import Wav2Vec2Model

    model = Wav2Vec2Model.from_pretrained(folders["wav2vec2-base"]).eval()
    wave = torch.from_numpy(load_clip(spoken("a", 0.8)).samples)[None]
    padded = torch.nn.functional.pad(wave, (0, 12_800))
    mask = (torch.arange(padded.shape[1]) < wave.shape[1]).long()[None]
    with torch.inference_mode():
        alone = model(wave).last_hidden_state[0]
        masked = model(padded, attention_mask=mask).last_hidden_state[0, : len(alone)]
    assert (alone - masked).abs().max() > 1e-2


@pytest.mark.parametrize("name", tiny_speech.SPEAKERS)
def test_speaker_embeddings_are_the_heads(folders, spoken, name: str) -> None:
    import torch
    import transformers

    kind = f"{tiny_speech.SPEAKERS[name][0]}ForXVector"
    model = getattr(transformers, kind).from_pretrained(folders[name]).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folders[name])
    samples = [spoken("a", 0.9), spoken("b", 1.7, pitch=200)]
    made = speech_encoder(folders[name]).encode(samples)
    for row, sample in enumerate(samples):
        values = extractor(load_clip(sample).samples, sampling_rate=RATE, return_tensors="pt")["input_values"]
        with torch.inference_mode():
            assert np.abs(made.vectors[row] - model(values).embeddings[0].numpy()).max() < 1e-5


@pytest.mark.parametrize("name", tiny_speech.CLAPS)
def test_clap_is_the_projected_tower_of_a_short_clip(folders, spoken, name: str) -> None:
    import torch
    from transformers import ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(folders[name]).eval()
    extractor = ClapFeatureExtractor.from_pretrained(folders[name])
    sample = spoken("a", 0.9)
    inputs = extractor(load_clip(sample).samples, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        wanted = (
            model.get_audio_features(inputs["input_features"], is_longer=torch.zeros(1, 1)).pooler_output[0].numpy()
        )
    assert np.abs(speech_encoder(folders[name]).encode([sample]).vectors[0] - wanted).max() < 1e-5


@pytest.mark.parametrize("name", tiny_speech.CLAPS)
def test_clap_hears_a_long_clip_whole_and_draws_nothing(folders, spoken, name: str) -> None:
    encoder = speech_encoder(folders[name])
    long = spoken("long", 5.0)
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = encoder.encode([long])
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(2)
    assert np.array_equal(first.vectors, encoder.encode([long]).vectors)
    assert first.frames.tolist() == [3]


@pytest.mark.parametrize("name", ["wav2vec2-large", "wavlm-sv", "wavlm-base", "whisper"])
def test_too_short_for_a_frame_is_quarantined(folders, spoken, name: str) -> None:
    made = speech_encoder(folders[name]).encode([spoken("ok", 0.6), spoken("short", 0.008)])
    if name == "whisper":  # which has a frame for anything
        assert made.ids == ("ok", "short")
    else:
        assert made.ids == ("ok",)
        assert [item.reason for item in made.quarantined] == ["too short: no valid frame"]


def test_a_long_clip_is_heard_in_windows_to_its_end(folders, spoken) -> None:
    made = speech_encoder(folders["wavlm-base"], pool="mean+std").encode([spoken("long", 31.0), spoken("cut", 30.0)])
    assert made.frames.tolist() == [1500 + 50, 1500]
    assert np.abs(made.vectors[0] - made.vectors[1]).max() > 1e-5


def test_values_that_are_not_finite_name_the_clip_and_the_module(tmp_path: Path) -> None:
    encoder = speech_encoder(tiny_speech.save("wav2vec2-base", tmp_path / "model"))
    module = encoder.embed.network.module
    with torch.no_grad():
        next(layer for name, layer in module.named_modules() if name.endswith("q_proj")).weight[0, 0] = float("nan")
    clip = Clip("c1", np.random.default_rng(0).normal(size=16_000).astype(np.float32) / 8, 16_000)
    with pytest.raises(UndersongError, match=r"not finite for clip c1 \(first in \S*layers.0.attention.q_proj\)"):
        encoder.embed([clip])
