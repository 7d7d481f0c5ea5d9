"""Tiny random speech encoders saved as their releases are: config, safetensors, preprocessor_config.

One of each family and of each way a family is normalised, because what may share a pass hangs on that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

WINDOW = 2  # seconds that the tiny Whisper and CLAP take
LAYERS = 3
CONVS = {
    "conv_dim": (16, 16, 16), "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 8), "num_feat_extract_layers": 3,
}  # fmt: skip  # 320 samples a frame, as the real ones
WAVE = {
    "vocab_size": 8, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": 48,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "num_buckets": 32, "max_bucket_distance": 80,
    **CONVS,
}  # fmt: skip
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
SPEAKER = {
    "tdnn_dim": (24, 24, 24), "tdnn_kernel": (3, 3, 1), "tdnn_dilation": (1, 2, 1), "xvector_output_dim": 20,
}  # fmt: skip

WAVES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-base": ("Wav2Vec2", {}),
    "wav2vec2-large": ("Wav2Vec2", LARGE),
    "hubert-base": ("Hubert", {}),
    "hubert-large": ("Hubert", LARGE),
    "wavlm-base": ("WavLM", {}),
    "wavlm-large": ("WavLM", LARGE),
    "unispeech": ("UniSpeech", {}),
    "unispeech-sat": ("UniSpeechSat", LARGE),
    "data2vec": ("Data2VecAudio", {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2}),
    "conformer": ("Wav2Vec2Conformer", {"position_embeddings_type": "relative", "feat_extract_norm": "layer"}),
    "conformer-rotary": ("Wav2Vec2Conformer", {"position_embeddings_type": "rotary"}),
}
SPEAKERS: dict[str, tuple[str, dict[str, Any]]] = {
    "wavlm-sv": ("WavLM", {"use_weighted_layer_sum": True}),
    "wav2vec2-sv": ("Wav2Vec2", LARGE),
}
CLAPS = {"clap": False, "clap-fused": True}
FAMILIES = (*WAVES, *SPEAKERS, *CLAPS, "whisper")


def save(name: str, folder: Path, head: str = "Model") -> Path:
    """The family `name` in `folder`; `head`: the suffix of the transformers class, as `ForPreTraining`."""
    if name == "whisper":
        return _saved(_whisper, folder)
    if name in CLAPS:
        return _saved(lambda: _clap(CLAPS[name]), folder)
    family, further = (WAVES | SPEAKERS)[name]
    head = "ForXVector" if name in SPEAKERS else head
    return _saved(lambda: _wave(family, head, {**WAVE, **(SPEAKER if name in SPEAKERS else {}), **further}), folder)


def _saved(make: Callable[[], tuple[Any, Any]], folder: Path) -> Path:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, extractor = make()
        for name, value in model.named_parameters():
            if name.endswith("bias") or "layer_norm" in name:
                # Fresh biases are zero and norms one: faults of masking would not show.
                torch.nn.init.normal_(value, 1.0 if name.endswith("norm.weight") else 0.0, 0.2)
    model.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def _wave(family: str, head: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    import transformers

    config = getattr(transformers, f"{family}Config")(**settings)
    large = settings.get("feat_extract_norm") == "layer"
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=large, do_normalize=large)
    return getattr(transformers, f"{family}{head}")(config), extractor


def _whisper() -> tuple[Any, Any]:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=64, num_mel_bins=80, d_model=32, encoder_layers=LAYERS, encoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64,
        max_source_positions=WINDOW * 50, max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    return WhisperForConditionalGeneration(config), WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW)


def _clap(fused: bool) -> tuple[Any, Any]:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    sound = {
        "spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4,
        "patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2],
        "projection_dim": 24, "enable_fusion": fused, "num_classes": 4, "fusion_num_hidden_layers": 2,
    }  # fmt: skip
    words = {
        "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "projection_dim": 24, "max_position_embeddings": 16,
    }  # fmt: skip
    extractor = ClapFeatureExtractor(
        feature_size=16, sampling_rate=16_000, hop_length=160, max_length_s=WINDOW, fft_window_size=512,
        frequency_max=8_000, truncation="fusion" if fused else "rand_trunc",
    )  # fmt: skip
    config = ClapConfig(text_config=words, audio_config=sound, projection_dim=24)
    return ClapModel(config), extractor
