"""A Whisper-class encoder from a folder: valid frames only, whole clips, complete weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from undersong.corpora.decode import load_clip
from undersong.encoders.registry import make_encoder
from undersong.types import UndersongError

WINDOW = 2  # seconds: 200 mel frames, 100 encoder frames


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One tiny random model saved in the three ways a Whisper encoder is found on disk."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=64, num_mel_bins=80, d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64,
        decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64, max_source_positions=WINDOW * 50,
        max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WhisperForConditionalGeneration(config)
    root, out = tmp_path_factory.mktemp("whisper"), {}
    for name, part in (("whole", model), ("headless", model.model), ("encoder", model.model.encoder)):
        out[name] = root / name
        part.save_pretrained(out[name], max_shard_size="60KB" if name == "headless" else "5GB")
        WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW).save_pretrained(out[name])
    return out


@pytest.fixture(scope="module")
def reference(folders):
    """The model itself, run by transformers on one padded window."""
    import torch
    from transformers import WhisperForConditionalGeneration

    return torch.inference_mode()(
        WhisperForConditionalGeneration.from_pretrained(folders["whole"]).eval().model.encoder
    )


def test_mean_of_valid_frames_only(folders, reference, spoken) -> None:
    from transformers import WhisperFeatureExtractor

    samples = [spoken("a", 0.513), spoken("b", 1.99, pitch=200)]
    made = make_encoder(f"whisper:{folders['whole']}", fit=[]).encode(samples)
    assert made.frames.tolist() == [26, 100]  # ceil(ceil(8208 / 160) / 2), ceil(199 / 2)
    assert made.vectors.shape == (2, 32)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW)
    for row, sample in enumerate(samples):
        features = extractor(load_clip(sample).samples, sampling_rate=16_000, return_tensors="pt")["input_features"]
        hidden = reference(features).last_hidden_state[0].numpy()
        assert np.allclose(made.vectors[row], hidden[: made.frames[row]].mean(axis=0), atol=1e-6)
        if row == 0:
            assert not np.allclose(made.vectors[row], hidden.mean(axis=0), atol=1e-3)  # the padding would be heard


def test_independent_of_the_batch(folders, spoken) -> None:
    encoder = make_encoder(f"whisper:{folders['whole']}", fit=[])
    samples = [spoken(f"s{i}", seconds, pitch=100 + 30 * i) for i, seconds in enumerate((0.3, 1.7, 0.9, 2.6))]
    together = encoder.encode(samples)
    for row, sample in enumerate(samples):
        assert np.array_equal(encoder.encode([sample]).vectors[0], together.vectors[row])


def test_a_long_clip_is_heard_to_its_end(folders, spoken) -> None:
    encoder = make_encoder(f"whisper:{folders['whole']}", fit=[])
    made = encoder.encode([spoken("long", 4.5), spoken("cut", 2.0), spoken("just over", 2.005)])
    assert made.frames.tolist() == [225, 100, 101]
    assert np.abs(made.vectors[0] - made.vectors[1]).max() > 1e-4


def test_every_way_of_saving_it(folders, spoken) -> None:
    assert len(list(folders["headless"].glob("*.safetensors"))) > 1  # shards
    samples = [spoken("a", 0.4), spoken("b", 0.6, pitch=220)]
    vectors = [make_encoder(f"whisper:{folder}", fit=[]).encode(samples).vectors for folder in folders.values()]
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


def test_silence_has_no_vector(folders, spoken, silent) -> None:
    made = make_encoder(f"whisper:{folders['encoder']}", fit=[]).encode([silent, spoken("a", 0.2)])
    assert made.ids == ("a",)
    assert made.quarantined[0].reason == "the audio is constant (0 throughout)"


def test_named_by_its_folder_not_its_path(folders) -> None:
    assert make_encoder(f"whisper:{folders['encoder']}", fit=[]).name == "whisper:encoder"


@pytest.mark.parametrize(
    "harm", ["no config", "other type", "no weights", "missing weight", "no preprocessor", "other window"]
)
def test_a_folder_that_cannot_be_right(folders, tmp_path, harm: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders["encoder"], tmp_path / "copy")
    config, weights = folder / "config.json", folder / "model.safetensors"
    if harm == "no config":
        config.unlink()
    elif harm == "other type":
        config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "wav2vec2"}))
    elif harm == "no weights":
        weights.rename(folder / "pytorch_model.bin")
    elif harm == "missing weight":
        tensors = load_file(weights)
        tensors.pop("layers.1.fc1.weight")
        save_file(tensors, weights)
    elif harm == "no preprocessor":
        (folder / "preprocessor_config.json").unlink()
    else:
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        settings |= {"chunk_length": 30, "n_samples": 480_000, "nb_max_frames": 3000}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(UndersongError, match=str(folder)):
        make_encoder(f"whisper:{folder}", fit=[])
