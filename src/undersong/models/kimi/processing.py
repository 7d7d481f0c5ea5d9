"""Inputs of Kimi-Audio: its text tokenizer and chat template, and the log-mel features of a clip for both audio
encoders.
"""

from __future__ import annotations

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor
from transformers.convert_slow_tokenizer import TikTokenConverter

from undersong.models.hub_files import find_file
from undersong.models.kimi.audio_tokenizer import FRAMES_PER_STATE, STATES_PER_TOKEN, valid_token_mask
from undersong.models.pretrained import load_pretrained
from undersong.types import UndersongError

RANK_FILE, TOKENIZER_FILE = "tiktoken.model", "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
AUDIO_TOKEN, EOS_TOKEN = "<|audio|>", "<|im_kimia_text_eos|>"
SPECIAL_TOKEN_COUNT = 421  # of the release; they follow the ranks, and the first audio code follows them
# Index and name of the special tokens that have a meaning; the others are called reserved_token_N in order.
SPECIAL_TOKEN_NAMES = {
    0: "[BOS]",
    1: "[EOS]",
    2: "<|im_msg_end|>",
    3: "<|im_user_msg_start|>",
    4: "<|im_assistant_msg_start|>",
    9: "[EOT]",
    18: "<|im_media_begin|>",
    20: "<|im_media_end|>",
    23: "<|im_kimia_text_blank|>",
    24: EOS_TOKEN,
    27: "<|im_kimia_user_msg_start|>",
    28: "<|im_kimia_assistant_msg_start|>",
    32: "<|im_kimia_speech_ct_id|>",
    33: "<|im_kimia_speech_ctd_id|>",
}
# Qwen's pattern: contractions, words with a sign before them, single digits, signs, line ends, blanks.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# One id per position, of the stream that is not blank there. A turn is a run of messages of one role. A turn that ends
# with audio requests text (speech_ct). There is no system role. A message's texts come before its audio, in whatever
# order it has them: the release's code says that the two cannot swap, and was trained so.
PIECES = "(whole if message.content is string else message.content)"  # in the message's own order
TEXT_BEFORE_AUDIO = (
    f"({PIECES} | rejectattr('type', 'equalto', 'audio') | list) + "
    f"({PIECES} | selectattr('type', 'equalto', 'audio') | list)"
)
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role not in ['user', 'assistant'] -%}
{{- raise_exception('Kimi-Audio has no ' + message.role + ' role; put its text into the first user text.') -}}
{%- endif -%}
{%- set begins = loop.first or loop.previtem.role != message.role -%}
{%- set ends = loop.last or loop.nextitem.role != message.role -%}
{%- if begins -%}{{- '<|im_kimia_' + message.role + '_msg_start|>' -}}{%- endif -%}
{%- set whole = [{'type': 'text', 'text': message.content}] -%}
{%- for piece in PIECES -%}
{%- if piece.type == 'audio' -%}
{{- '<|im_media_begin|><|audio|><|im_media_end|>' -}}
{%- if loop.last and ends -%}{{- '<|im_kimia_speech_ct_id|>' -}}{%- endif -%}
{%- elif piece.type == 'text' -%}
{{- piece.text -}}{%- if message.role == 'assistant' -%}{{- '<|im_kimia_text_eos|>' -}}{%- endif -%}
{%- else -%}
{{- raise_exception('Kimi-Audio takes text and audio, not ' + piece.type + '.') -}}
{%- endif -%}
{%- endfor -%}
{%- if ends -%}{{- '<|im_msg_end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_kimia_assistant_msg_start|>' -}}{%- endif -%}
""".replace("PIECES", TEXT_BEFORE_AUDIO)


def special_tokens() -> list[str]:
    """The release's special tokens in the order of their ids."""
    reserved = (f"<|reserved_token_{i}|>" for i in range(SPECIAL_TOKEN_COUNT))
    return [
        SPECIAL_TOKEN_NAMES[token_id] if token_id in SPECIAL_TOKEN_NAMES else next(reserved)
        for token_id in range(SPECIAL_TOKEN_COUNT)
    ]


def kimi_tokenizer(source: str | Path, **options: Any) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a folder or id: its `tokenizer.json`, or else one built from its `tiktoken.model`.

    `options` are those of `from_pretrained`, such as revision. The placeholder `<|audio|>` has the id of the first
    audio code; padding is on the left; a reply ends with `<|im_kimia_text_eos|>`. Special tokens are recognized
    anywhere in a text. Source: the release's tokenizer class. Raises UndersongError if both files are missing or the
    rank file is damaged.
    """
    hub_options = {key: value for key, value in options.items() if key != "trust_remote_code"}
    if find_file(source, TOKENIZER_FILE, hub_options) is not None:
        tokenizer: PreTrainedTokenizerFast = load_pretrained(
            PreTrainedTokenizerFast.from_pretrained, source, str(source), files=TOKENIZER_FILES, **hub_options
        )
    else:
        rank_path = find_file(source, RANK_FILE, hub_options)
        if rank_path is None:
            raise UndersongError(
                f"{source} has neither {TOKENIZER_FILE} nor {RANK_FILE}, so it has no tokenizer; give the whole "
                "Kimi-Audio folder."
            )
        specials = special_tokens()
        converter = _RankFileConverter(
            vocab_file=rank_path, pattern=SPLIT_PATTERN, extra_special_tokens=[*specials, AUDIO_TOKEN]
        )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=converter.converted(),
            eos_token=EOS_TOKEN,
            pad_token=specials[-1],
            padding_side="left",
            clean_up_tokenization_spaces=False,
            model_input_names=["input_ids", "attention_mask"],
        )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


class _RankFileConverter(TikTokenConverter):
    """transformers' converter, which reads the file only with the package tiktoken."""

    @staticmethod
    def load_tiktoken_bpe(path: str) -> dict[bytes, int]:
        """Parse lines of a base-64 token and its rank; ranks are ids, so they must be 0, 1, 2, …"""
        ranks: dict[bytes, int] = {}
        for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
            if not line:
                continue
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error) as error:
                raise UndersongError(
                    f"Line {number} of {path} is no token and rank ({error}); fetch the file again."
                ) from error
        if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([i]) not in ranks for i in range(256)):
            raise UndersongError(
                f"{path} does not rank {len(ranks)} tokens from 0 on, every byte among them; fetch the file again."
            )
        return ranks


FRAMES_PER_TOKEN = FRAMES_PER_STATE * STATES_PER_TOKEN  # mel frames
SAMPLES_PER_TOKEN = 160 * FRAMES_PER_TOKEN  # at 16 kHz with Whisper's hop: 12.5 tokens a second


def kimi_audio_inputs(
    waveform: np.ndarray, extractor: WhisperFeatureExtractor
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Audio tensors of one clip for the model, and the number of tokens of each window.

    `waveform` (samples,) is float32 mono at the extractor's rate; an empty one gives no tensors. It is cut into windows
    of `extractor.chunk_length` seconds: `input_features` (windows, mels, frames of a whole window), `code_features`
    (windows, mels, frames) padded to the longest in whole tokens, and `code_attention_mask` (windows, frames). Each
    window has ceil(samples / 1280) tokens. Source: the release's two feature pipelines, which cut and pad in the same
    ways.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 1:
        raise UndersongError(f"A clip of shape {waveform.shape} is no mono sound; give samples in one dimension.")
    if not len(waveform):
        return {}, []
    samples_per_token = extractor.hop_length * FRAMES_PER_TOKEN  # in samples
    window_samples = extractor.chunk_length * extractor.sampling_rate
    windows = [waveform[start : start + window_samples] for start in range(0, len(waveform), window_samples)]
    extractor_options: dict[str, Any] = {"sampling_rate": extractor.sampling_rate, "return_tensors": "pt"}
    whisper_features = extractor(windows, padding="max_length", **extractor_options)
    code_features = extractor(
        windows,
        padding="longest",
        pad_to_multiple_of=samples_per_token,
        return_attention_mask=True,
        **extractor_options,
    )
    token_counts = [math.ceil(len(window) / samples_per_token) for window in windows]
    mask_counts = valid_token_mask(code_features.attention_mask).sum(-1).tolist()
    if mask_counts != token_counts:
        raise UndersongError(
            f"The feature extractor counts {mask_counts} tokens where the samples make {token_counts}; "
            "give the whisper-large-v3 preprocessor of the release (hop 160, 16 kHz)."
        )
    tensors = {
        "input_features": whisper_features.input_features,
        "code_features": code_features.input_features,
        "code_attention_mask": code_features.attention_mask,
    }
    return tensors, token_counts
