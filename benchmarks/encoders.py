"""Whisper-class encoders on clips of 3 to 6 s: the bucket mode against the published way (padded to 30 s, one clip at a
time), and the same padding batched against one by one, in one process.  Random weights: the work is the same."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the ratio is of the work

import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from undersong.corpora.decode import load_clip
from undersong.encoders.speech import speech_encoder
from undersong.types import Sample

RATE, CLIPS, BY_HAND, ROUNDS = 16_000, 64, 6, 3
SHAPES = {"tiny": (384, 4, 6), "base": (512, 6, 8)}  # width, layers, heads


def main() -> None:
    import torch

    torch.set_num_threads(1)
    samples = clips()
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), *shape)
            measure(name, Path(folder), samples)


def measure(name: str, folder: Path, samples: list[Sample]) -> None:
    from transformers import WhisperFeatureExtractor, WhisperModel

    model = WhisperModel.from_pretrained(folder).eval().encoder
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    bucket = speech_encoder(folder, pad="bucket")
    bucket.encode(samples[:4])  # the first pass pays for what is loaded late
    published(model, extractor, samples[0])
    ratios, rates = [], []
    for _ in range(ROUNDS):
        start = time.process_time()
        for sample in samples[:BY_HAND]:
            published(model, extractor, sample)
        middle = time.process_time()
        bucket.encode(samples)
        rates.append((BY_HAND / (middle - start), len(samples) / (time.process_time() - middle)))
        ratios.append(rates[-1][1] / rates[-1][0])
    slow, fast = (statistics.median(column) for column in zip(*rates))
    print(
        f"encoders: whisper {name}, 3-6 s: {fast:.1f} clips/s in buckets, {slow:.2f} padded to 30 s one by one: "
        f"{statistics.median(ratios):.1f}x (of {ROUNDS}: {min(ratios):.1f}-{max(ratios):.1f})"
    )
    for pad in ("bucket", "exact"):
        some = samples[: 4 if pad == "exact" else 24]
        encoder = speech_encoder(folder, pad=pad)
        together = encoder.encode(some).vectors
        alone = np.concatenate([encoder.encode([sample]).vectors for sample in some])
        print(f"encoders: whisper {name}, pad={pad}, batched against one by one: {np.abs(together - alone).max():.1e}")


def published(model, extractor, sample: Sample) -> np.ndarray:
    """A clip's vector the published way: the whole window, one at a time, the mean over all of it."""
    import torch

    features = extractor(load_clip(sample).samples, sampling_rate=RATE, return_tensors="pt")["input_features"]
    with torch.inference_mode():
        return model(features).last_hidden_state[0].mean(dim=0).numpy()


def clips() -> list[Sample]:
    draw = np.random.default_rng(0)
    made = []
    for number in range(CLIPS):
        file = io.BytesIO()
        signal = 0.1 * draw.standard_normal(int(draw.uniform(3, 6) * RATE))
        soundfile.write(file, signal.astype(np.float32), RATE, format="WAV", subtype="PCM_16")
        made.append(Sample(f"clip-{number}", audio=file.getvalue()))
    return made


def save(folder: Path, width: int, layers: int, heads: int) -> None:
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=width, encoder_layers=layers, encoder_attention_heads=heads, encoder_ffn_dim=4 * width,
        decoder_layers=1, decoder_attention_heads=heads, decoder_ffn_dim=width, vocab_size=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)


if __name__ == "__main__":
    main()
