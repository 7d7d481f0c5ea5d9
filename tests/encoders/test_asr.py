"""Clips to text: what the model says, to its end, whatever else is in the batch; and what becomes of a corpus."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import tiny_asr
import tiny_speech
import torch

from undersong.corpora.decode import load_clip
from undersong.encoders.asr import (
    EMPTY_REASON,
    ENDLESS_REASON,
    Transcriber,
    Transcript,
    Transcripts,
    load_transcriber,
    read_transcripts,
    samples_without_text,
    transcripts_from_table,
    transcripts_table,
    with_transcripts,
    write_transcripts,
)
from undersong.encoders.batching import Progress
from undersong.types import Quarantined, Sample, UndersongError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_asr.save(tmp_path_factory.mktemp("asr") / "tiny", ends=ENDS)


ENDS = 0.05
LENGTHS = (0.4, 0.9, 1.3, 1.7, 2.0, 1.1)


@pytest.fixture(scope="module")
def hearing(folder) -> Transcriber:
    return load_transcriber(folder, language="en", batch=4)


@pytest.fixture(scope="module")
def reference(folder):
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    extractor, tokenizer = WhisperFeatureExtractor.from_pretrained(folder), WhisperTokenizer.from_pretrained(folder)

    @torch.inference_mode()
    def by_hand(sample: Sample) -> str | None:
        """Greedy decoding without `generate`: the most likely allowed token, again and again."""
        features = extractor(load_clip(sample).samples, sampling_rate=16_000, return_tensors="pt")["input_features"]
        sound = model.model.encoder(features)
        tokens = [tiny_asr.START, tiny_asr.ENGLISH, tiny_asr.TRANSCRIBE, tiny_asr.NO_STAMPS]
        while len(tokens) < tiny_asr.LENGTH:
            logits = model(encoder_outputs=sound, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]
            logits[model.generation_config.suppress_tokens] = -float("inf")
            if len(tokens) == 4:
                logits[model.generation_config.begin_suppress_tokens] = -float("inf")
            tokens.append(int(logits.argmax()))
            if tokens[-1] == tiny_asr.END:
                return tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return None

    return by_hand


@pytest.fixture
def samples(spoken) -> list[Sample]:
    return [spoken(f"s{i}", seconds, pitch=90 + 50 * i, seed=i) for i, seconds in enumerate(LENGTHS)]


def test_greedy_and_to_the_end(hearing, reference, samples, silent) -> None:
    made = hearing.transcribe([*samples, silent, Sample("written", text="words")])
    wanted = {sample.id: reference(sample) for sample in samples}
    assert {row.id: row.text for row in made.rows} == {id: text for id, text in wanted.items() if text}
    assert {item.id: item.reason for item in made.quarantined} == {
        "silent": "the audio is constant (0 throughout)",
        "written": "no audio",
        **{id: ENDLESS_REASON if text is None else EMPTY_REASON for id, text in wanted.items() if not text},
    }
    # The model was made so that all three happen, or nothing is tested here.
    assert {bool(text) if text is not None else None for text in wanted.values()} == {True, False, None}
    seconds = dict(zip((sample.id for sample in samples), LENGTHS))
    for row in made.rows:
        assert (row.seconds, row.model) == (seconds[row.id], "tiny,language=en")


def test_a_transcript_does_not_depend_on_its_batch(hearing, samples) -> None:
    heard: list[Progress] = []
    hearing.progress = heard.append
    whole = hearing.transcribe(samples)
    assert heard[-1].done == heard[-1].total == len(samples)
    hearing.progress = None
    alone = [hearing.transcribe([sample]) for sample in samples]
    assert whole.rows == tuple(row for one in alone for row in one.rows)
    assert len(whole.rows) > 1


def test_the_language_is_found_where_none_is_said(folder, samples) -> None:
    rows = load_transcriber(folder).transcribe(samples).rows
    assert {row.model for row in rows} <= {"tiny"}


def test_a_model_of_english_alone(tmp_path, samples) -> None:
    english = tiny_asr.save(tmp_path / "english", ends=ENDS, multilingual=False)
    made = load_transcriber(english).transcribe(samples)
    assert len(made.rows) + len(made.quarantined) == len(samples)
    with pytest.raises(UndersongError, match="language 'en'"):
        load_transcriber(english, language="en")


def test_longer_than_the_window(hearing, spoken, monkeypatch) -> None:
    """Heard window after window; a model without timestamps cannot."""
    made = hearing.transcribe([spoken("long", 5.0), spoken("short", 0.9)])
    assert len(made.rows) + len(made.quarantined) == 2
    monkeypatch.delattr(hearing.model.generation_config, "no_timestamps_token_id")
    with pytest.raises(UndersongError, match="clip long"):
        hearing.transcribe([spoken("long", 5.0)])


def test_out_of_memory(hearing, samples, monkeypatch) -> None:
    plain = hearing.model.generate

    def generate(features, **options):
        if len(features) > 1:
            raise RuntimeError("CUDA out of memory")
        return plain(features, **options)

    wanted = hearing.transcribe(samples)
    monkeypatch.setattr(hearing.model, "generate", generate)
    assert hearing.transcribe(samples) == wanted


def test_what_cannot_transcribe(folder, tmp_path) -> None:
    with pytest.raises(UndersongError, match="cannot transcribe"):
        load_transcriber(tiny_speech.save("wavlm-base", tmp_path / "wavlm"))
    with pytest.raises(UndersongError, match="language 'xx'"):
        load_transcriber(folder, language="xx")
    with pytest.raises(UndersongError, match="no tokenizer"):
        load_transcriber(tiny_speech.save("whisper", tmp_path / "whisper"))


ROWS = Transcripts(
    (Transcript("a", "what was said", 1.5, "m"), Transcript("b", "überall ✓", 0.25, "m")),
    (Quarantined("c", EMPTY_REASON),),
)


def test_written_and_read_back(tmp_path) -> None:
    write_transcripts(ROWS, tmp_path)
    assert read_transcripts(tmp_path) == ROWS
    write_transcripts(Transcripts(()), tmp_path / "none")
    assert read_transcripts(tmp_path / "none") == Transcripts(())
    with pytest.raises(UndersongError, match="No transcripts"):
        read_transcripts(tmp_path / "elsewhere")


def test_rows_of_a_shard_are_in_the_samples_order() -> None:
    table = transcripts_table([Sample("c"), Sample("a"), Sample("b")], ROWS)
    assert table.column("id").to_pylist() == ["c", "a", "b"]
    assert table.column("reason").to_pylist() == [EMPTY_REASON, None, None]
    assert transcripts_from_table(table) == ROWS


def test_only_what_has_no_text_is_transcribed_and_filled_in() -> None:
    blank, own = Sample("a", audio="a.wav", text=" "), Sample("b", audio="b.wav", text="its own")
    samples = [blank, own, Sample("c", audio="c.wav"), Sample("d")]
    assert [sample.id for sample in samples_without_text(samples)] == ["a", "c"]
    filled = with_transcripts(samples, ROWS)
    assert [sample.text for sample in filled] == ["what was said", "its own", None, None]
    assert [sample.id for sample in filled] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["proj_out.weight", "model.encoder.conv2.weight"])
@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_a_damaged_model_is_an_error(name: str, seconds: float, folder, spoken, tmp_path) -> None:
    """Whether clips go together or, longer than a window, alone."""
    damaged = load_transcriber(shutil.copytree(folder, tmp_path / "damaged"), language="en", batch=4)
    with torch.no_grad():
        damaged.model.get_parameter(name).view(-1)[0] = math.nan
    module = name.removesuffix(".weight")
    with pytest.raises(
        UndersongError,
        match=rf"damaged,language=en computes values that are not finite for clip s0 \(first in {module}\)",
    ):
        damaged.transcribe([spoken(f"s{i}", seconds, seed=i) for i in range(2)])
    assert not any(part._forward_hooks for part in damaged.model.modules())
