"""What a checkpoint must be: complete, safetensors, of a known class, with its own preprocessor; and its options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_speech

from undersong.corpora.decode import load_clip
from undersong.encoders.speech import speech_encoder
from undersong.types import UndersongError


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("loading")
    return {name: tiny_speech.save(name, root / name) for name in ("hubert-large", "wavlm-sv", "clap", "whisper")}


def test_heads_of_pretraining_are_left_out(folders, spoken, tmp_path) -> None:
    """Releases are saved with their head, the network's tensors under a prefix."""
    folder = tiny_speech.save("wav2vec2-base", tmp_path / "pretrained", head="ForPreTraining")
    assert speech_encoder(folder).encode([spoken("a", 0.5)]).vectors.shape == (1, 32)


def test_names_and_gaps_of_older_releases(folders, spoken, tmp_path) -> None:
    """Weight norm under its old names, and without what only training reads."""
    from safetensors.torch import load_file, save_file

    for name, gap in (("hubert-large", "masked_spec_embed"), ("wavlm-sv", "objective.weight")):
        folder = shutil.copytree(folders[name], tmp_path / name)
        tensors = load_file(folder / "model.safetensors")
        del tensors[gap]
        old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        renamed = {}
        for key, value in tensors.items():
            for new, was in old.items():
                key = key.replace(new, was)
            renamed[key] = value
        assert sum(key.endswith(("weight_g", "weight_v")) for key in renamed) == 2
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        sample = spoken("a", 0.6)
        made = [speech_encoder(path).encode([sample]).vectors for path in (folder, folders[name])]
        assert np.abs(made[0] - made[1]).max() < 1e-6


def test_named_by_folder_and_options(folders) -> None:
    encoder = speech_encoder(folders["hubert-large"], layer=2, pool="mean+std")
    assert encoder.name == "speech:hubert-large,layer=2,pool=mean+std"
    assert speech_encoder(folders["hubert-large"], layer="last").name == "speech:hubert-large"


def test_half_precision_hears_nearly_the_same(folders, spoken) -> None:
    samples = [spoken("a", 0.7), spoken("b", 1.1, pitch=200)]
    for name in ("hubert-large", "whisper"):
        full, half = (speech_encoder(folders[name], dtype=dtype).encode(samples).vectors for dtype in DTYPES)
        assert half.dtype == np.float32
        # By angle, which is what proximity sees: single entries of a random network differ by processor.
        cosines = (full * half).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
        assert np.abs(full - half).max() > 0
        assert cosines.min() > 0.95, cosines


DTYPES = ("float32", "bfloat16")


@pytest.mark.parametrize(
    "harm",
    [
        "no config",
        "no type",
        "unknown type",
        "no weights",
        "missing weight",
        "other shape",
        "damaged",
        "no preprocessor",
    ],
)
def test_a_folder_that_cannot_be_right(folders, tmp_path, harm: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders["hubert-large"], tmp_path / "copy")
    config, weights = folder / "config.json", folder / "model.safetensors"
    if harm == "no config":
        config.unlink()
    elif harm in ("no type", "unknown type"):
        settings = json.loads(config.read_text())
        settings["model_type"] = "llama" if harm == "unknown type" else None
        config.write_text(json.dumps(settings))
    elif harm == "no weights":
        weights.rename(folder / "pytorch_model.bin")
    elif harm in ("missing weight", "other shape"):
        tensors = load_file(weights)
        taken = tensors.pop("encoder.layers.1.feed_forward.output_dense.weight")
        if harm == "other shape":
            tensors["encoder.layers.1.feed_forward.output_dense.weight"] = taken[:-1].contiguous()
        save_file(tensors, weights, metadata={"format": "pt"})
    elif harm == "damaged":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UndersongError, match="copy"):
        speech_encoder(folder)


def test_an_id_that_cannot_be_had() -> None:
    with pytest.raises(UndersongError, match="no model at 'nobody/nothing'"):
        speech_encoder("nobody/nothing")


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("hubert-large", {"layer": 4}, "layers 0 to 3"),
        ("whisper", {"layer": "mix:2-9"}, "layers 0 to 3"),
        ("hubert-large", {"pad": "bucket"}, "leave it out"),
        ("clap", {"layer": 1}, "one vector"),
        ("wavlm-sv", {"pool": "last"}, "one vector"),
        ("hubert-large", {"pool": "max"}, "mean\\+std"),
        ("hubert-large", {"device": "abacus"}, "abacus"),
        ("hubert-large", {"dtype": "int4"}, "float32"),
    ],
)
def test_options_that_say_nothing_to_this_model(folders, name: str, options: dict, named: str) -> None:
    with pytest.raises(UndersongError, match=named):
        speech_encoder(folders[name], **options)


def test_whisper_layers_are_those_of_transformers(folders, spoken) -> None:
    import torch
    from transformers import WhisperFeatureExtractor, WhisperModel

    model = WhisperModel.from_pretrained(folders["whisper"]).eval().encoder
    sample = spoken("a", 1.21)
    wave = load_clip(sample).samples
    features = WhisperFeatureExtractor.from_pretrained(folders["whisper"])(
        wave, sampling_rate=16_000, return_tensors="pt"
    )["input_features"]
    states: list[np.ndarray] = []
    model.layers[0].register_forward_pre_hook(lambda _, args: states.append(args[0][0].numpy()))
    for layer in model.layers:
        layer.register_forward_hook(lambda _, __, out: states.append(out[0].numpy()))
    with torch.inference_mode():
        output = model(features).last_hidden_state[0].numpy()
    valid = 61  # ceil(ceil(19360 / 160) / 2)
    wanted = {
        0: states[0], 2: states[2], 3: output, "last": output, "mix:0+1": (states[0] + states[1]) / 2,
        "mix:all": (states[0] + states[1] + states[2] + output) / 4,
    }  # fmt: skip
    for layer, frames in wanted.items():
        made = speech_encoder(folders["whisper"], layer=layer).encode([sample])
        assert made.frames.tolist() == [valid]
        assert np.abs(made.vectors[0] - frames[:valid].mean(axis=0)).max() < 1e-5, layer


def test_buckets_are_the_same_features_without_the_silence_behind(folders, spoken) -> None:
    exact = speech_encoder(folders["whisper"]).embed.network  # type: ignore[attr-defined]
    bucket = speech_encoder(folders["whisper"], pad="bucket").embed.network  # type: ignore[attr-defined]
    for seconds in (0.03, 0.4, 0.7, 1.2, 1.999, 2.0, 3.31):  # some of which fill their bucket
        wave = load_clip(spoken("a", seconds)).samples
        for filled, short in zip(exact.cut_windows(wave), bucket.cut_windows(wave), strict=True):
            assert short.frames == filled.frames
            width = short.values.shape[1]
            assert 2 * short.frames <= width <= 2 * short.frames + 18
            assert np.array_equal(short.values.numpy(), filled.values[:, :width].numpy())


def test_without_padding_to_skip_buckets_change_nothing(folders, spoken) -> None:
    """A window that is full is heard the same way in both modes; a short one is not."""
    samples = [spoken("full", 2.0), spoken("short", 0.4)]
    exact, bucket = (speech_encoder(folders["whisper"], pad=pad).encode(samples) for pad in ("exact", "bucket"))
    assert np.abs(exact.vectors[0] - bucket.vectors[0]).max() < 1e-5
    assert np.abs(exact.vectors[1] - bucket.vectors[1]).max() > 1e-3
    assert exact.frames.tolist() == bucket.frames.tolist()
