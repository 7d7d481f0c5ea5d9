"""Sentence encoders: text in, the model's own vector out, long texts to their end.  Needs the extra `encoders`."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from undersong.encoders import text as sentences
from undersong.encoders.text import sentence_encoder
from undersong.types import Sample, UndersongError

WORDS = ["how", "do", "i", "bake", "bread", "sell", "stocks", "make", "a", "cake", "the", "of", "in", "red", "warm"]
LONGEST = 12  # tokens, [CLS] and [SEP] among them
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
with_library = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="the extra `encoders` is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny random BERT in the layout of the library's releases."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("sentences")
    rows = {word: row for row, word in enumerate((*MARKS, *WORDS))}
    tokens = Tokenizer(models.WordPiece(rows, unk_token="[UNK]"))
    tokens.normalizer, tokens.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", rows["[CLS]"]), ("[SEP]", rows["[SEP]"])]
    tokens.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {f"{mark[1:-1].lower()}_token": mark for mark in MARKS}
    PreTrainedTokenizerFast(tokenizer_object=tokens, model_max_length=LONGEST, **names).save_pretrained(root / "bert")
    config = BertConfig(
        vocab_size=len(rows), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=2 * LONGEST, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(root / "bert")
    SentenceTransformer(
        modules=[Transformer(str(root / "bert"), max_seq_length=LONGEST), Pooling(32)], device="cpu"
    ).save_pretrained(str(root / "tiny"))
    return root / "tiny"


@pytest.fixture(scope="module")
def encoder(folder) -> sentences.SentenceEncoder:
    return sentence_encoder(folder, batch=4)


TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=25).map(" ".join), min_size=2, max_size=6)


@with_library
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TEXTS)
def test_the_librarys_vector_whatever_the_batch(encoder, texts: list[str]) -> None:
    samples = [Sample(str(row), text=text) for row, text in enumerate(texts)]
    made = encoder.encode([*samples, Sample("blank", text="  ")])
    assert made.ids == tuple(sample.id for sample in samples)
    assert [(item.id, item.reason) for item in made.quarantined] == [("blank", "no text")]
    for text, vector in zip(texts, made.vectors):
        words = text.split()
        room = LONGEST - 2
        pieces = [words[start : start + room] for start in range(0, len(words), room)]  # a word is a token here
        wanted = sum(len(piece) * encoder.model.encode(" ".join(piece)).astype(float) for piece in pieces) / len(words)
        assert np.abs(vector - wanted).max() < 1e-5


@with_library
def test_the_end_of_a_long_text_is_read(encoder) -> None:
    start = " ".join(WORDS[:10])
    made = encoder.encode([Sample("a", text=f"{start} red"), Sample("b", text=f"{start} warm")])
    assert np.abs(made.vectors[0] - made.vectors[1]).max() > 1e-3
    assert np.allclose(encoder.model.encode(f"{start} red"), encoder.model.encode(f"{start} warm"))  # alone it is lost


@with_library
def test_one_text_in_several_voices_is_no_fault(encoder) -> None:
    made = encoder.encode([Sample("a", text="bake bread"), Sample("b", text="bake bread")])
    assert np.array_equal(made.vectors[0], made.vectors[1])
    assert encoder.name == "text:tiny"


@with_library
@pytest.mark.parametrize("harm", ["code of its own", "no modules", "no weights"])
def test_a_folder_that_cannot_be_right(folder, tmp_path, harm: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    if harm == "no modules":
        (copy / "modules.json").unlink()
    elif harm == "no weights":
        (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    else:
        modules = json.loads((copy / "modules.json").read_text())
        modules[0]["type"] = "evil.Transformer"
        (copy / "modules.json").write_text(json.dumps(modules))
        (copy / "evil.py").write_text("raise SystemExit('run')")
    with pytest.raises(UndersongError, match="copy"):
        sentence_encoder(copy)


def test_without_the_library_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setattr(sentences, "find_spec", lambda name: None)
    with pytest.raises(UndersongError, match=r"\.\[encoders\]"):
        sentence_encoder()
