"""A tiny random Whisper that writes letters, with its own tokenizer, saved as a release is."""

from __future__ import annotations

import string
from pathlib import Path

WINDOW = 2  # seconds
END, START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, NO_STAMPS, STAMPS = 256, 257, 258, 259, 260, 261, 262, 263
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>")
LENGTH = 24  # tokens


def save(folder: Path, *, ends: float = 0.0, multilingual: bool = True) -> Path:
    """`ends`: how much the end of a transcript is favoured at every token."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    stamps = [f"<|{0.02 * step:.2f}|>" for step in range(WINDOW * 50 + 1)]
    tokenizer = _tokenizer(stamps)
    config = WhisperConfig(
        vocab_size=STAMPS + len(stamps), num_mel_bins=80, d_model=32, encoder_layers=2, encoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64,
        max_source_positions=WINDOW * 50, max_target_positions=LENGTH, pad_token_id=END, bos_token_id=END,
        eos_token_id=END, decoder_start_token_id=START,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = WhisperForConditionalGeneration(config).eval()
        # Wide enough that sound and place decide about a token; fresh weights write one letter for ever.
        for name, value in model.named_parameters():
            if value.ndim > 1:
                torch.nn.init.normal_(value, std=1.0 if "embed_positions" in name else 0.3)
        with torch.no_grad():
            model.model.decoder.layer_norm.bias += ends * model.proj_out.weight[END]
    _set_generation(model.generation_config, tokenizer, multilingual=multilingual)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW).save_pretrained(folder)
    return folder


def _tokenizer(stamps: list[str]):
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import WhisperTokenizer

    letters = sorted(ByteLevel.alphabet())
    tokenizer = WhisperTokenizer(
        vocab={letter: row for row, letter in enumerate(letters)} | {SPECIAL[0]: END}, merges=[]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL[1:], "<|notimestamps|>"]})
    tokenizer.add_tokens([AddedToken(stamp, special=False, normalized=False) for stamp in stamps])
    assert tokenizer.convert_tokens_to_ids([*SPECIAL, "<|notimestamps|>", stamps[0]]) == list(range(END, STAMPS + 1))
    return tokenizer


def _set_generation(config, tokenizer, *, multilingual: bool) -> None:
    written = set(tokenizer.convert_tokens_to_ids([*string.ascii_lowercase, "Ġ"]))
    config.suppress_tokens = sorted({*range(END), START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, NO_STAMPS} - written)
    config._from_model_config = False  # else what a model's config does not hold is dropped on loading
    config.no_timestamps_token_id = NO_STAMPS
    config.begin_suppress_tokens = tokenizer.convert_tokens_to_ids(["Ġ"])
    config.max_length = LENGTH
    config.max_initial_timestamp_index = 50
    config.is_multilingual = multilingual
    if multilingual:
        config.lang_to_id = {"<|en|>": ENGLISH, "<|de|>": GERMAN}
        config.task_to_id = {"translate": TRANSLATE, "transcribe": TRANSCRIBE}
