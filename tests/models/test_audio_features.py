"""What the decoder hears of a clip: transformers' own vectors, whatever else is in the batch."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import soundfile
import tiny_af3
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_af3 import CLIPS, RATE, clip

from undersong.models.audio_features import AudioFeatures, clip_key
from undersong.models.audio_lm import AudioModel
from undersong.models.feature_cache import cache_audio_features, load_features, save_features
from undersong.types import PooledVector, Sample, UndersongError


def oracle(model: AudioModel, clips) -> np.ndarray:
    """All clips' vectors one after another, by `get_audio_features`."""
    extract = model.processor.extractor
    windows = [c.samples[i : i + 2 * RATE] for c in clips for i in range(0, len(c.samples), 2 * RATE)]
    made = extract(windows, sampling_rate=RATE, padding="max_length", return_attention_mask=True, return_tensors="pt")
    with torch.inference_mode():
        return model.model.get_audio_features(made["input_features"], made["attention_mask"]).pooler_output.numpy()


def test_heard_vectors_are_those_of_the_model_itself(shared_tiny: AudioModel) -> None:
    heard = shared_tiny.embed(CLIPS)
    assert [len(vectors) for vectors in heard] == [7, 14, 22, 35, 47]  # 25 a second, edges cut
    assert all(vectors.dtype == np.float32 and vectors.shape[1] == tiny_af3.DIM for vectors in heard)
    np.testing.assert_allclose(np.concatenate(heard), oracle(shared_tiny, CLIPS), atol=1e-5)
    assert shared_tiny.embed([]) == []


def test_heard_vectors_do_not_depend_on_the_batch(shared_tiny: AudioModel) -> None:
    together = shared_tiny.embed(CLIPS)
    backwards = shared_tiny.embed(CLIPS[::-1])[::-1]
    for clip_, one, other in zip(CLIPS, together, backwards):
        np.testing.assert_allclose(one, shared_tiny.embed([clip_])[0], atol=1e-5)
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_audio_longer_than_a_window_is_heard_whole(shared_tiny: AudioModel) -> None:
    clips = [clip("long", 3.3, 7), CLIPS[1]]
    long, short = shared_tiny.embed(clips)
    assert len(long) == 82
    np.testing.assert_allclose(np.concatenate([long, short]), oracle(shared_tiny, clips), atol=1e-5)


def test_hearing_is_the_same_in_training_mode(tiny: AudioModel) -> None:
    tiny.model = tiny_af3.network(dropout=0.5)
    calm = tiny.embed(CLIPS[:2])
    tiny.model.train()
    for before, now in zip(calm, tiny.embed(CLIPS[:2])):
        np.testing.assert_array_equal(before, now)


def test_a_processor_that_does_not_fit_its_family_is_refused(tiny: AudioModel) -> None:
    tiny.family = dataclasses.replace(tiny.family, audio_tokens=lambda frames: frames // 8)
    with pytest.raises(UndersongError, match=r"cannot take clip clip0 as its feature extractor makes it"):
        tiny.embed(CLIPS)


def test_no_hook_stays_behind(tiny: AudioModel, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = list(tiny.decoder.layers)

    def hooks() -> int:
        return sum(len(layer._forward_pre_hooks) + len(layer._forward_hooks) for layer in layers)

    def fail(message: str):
        def forward(*_args, **_kwargs):
            raise RuntimeError(message)

        return forward

    before = hooks()  # transformers leaves some of its own on a network that was asked for hidden states
    tiny.embed(CLIPS[:1])
    tiny.hidden_states([tiny_af3.spoken(0)])
    assert hooks() == before
    monkeypatch.setattr(layers[1], "forward", fail("out of order"))
    with pytest.raises(RuntimeError, match="out of order"):
        tiny.hidden_states([tiny_af3.spoken(0)])
    monkeypatch.setattr(tiny.base.model.audio_tower, "forward", fail("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        tiny.embed(CLIPS[:1])
    assert hooks() == before


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def test_listening_names_vectors_by_content_and_quarantines_what_cannot_be_heard(tiny: AudioModel) -> None:
    tiny.family = dataclasses.replace(tiny.family, max_windows=2)
    samples = [
        Sample("a", audio=wav(CLIPS[0].samples), pcm_hash="f00d"),
        Sample("written", text="no audio"),
        Sample("b", audio=wav(CLIPS[1].samples)),
        Sample("broken", audio=b"RIFF and nothing else"),
        Sample("click", audio=wav(CLIPS[0].samples[:200])),
        Sample("speech", audio=wav(np.tile(CLIPS[0].samples, 14))),
        Sample("just", audio=wav(np.tile(CLIPS[0].samples, 10))),
    ]
    heard, quarantined, passes = cache_audio_features(tiny, samples)
    assert list(heard) == ["f00d", "b", "just"]
    assert passes == 3
    np.testing.assert_array_equal(heard["f00d"].valid_vectors(), tiny.audio_features["clip0"].valid_vectors())
    np.testing.assert_array_equal(heard["b"].valid_vectors(), tiny.audio_features["clip1"].valid_vectors())
    reasons = {item.id: item.reason for item in quarantined}
    assert list(reasons) == ["broken", "click", "speech"]
    assert "too short" in reasons["click"]
    assert "no more than 4 s" in reasons["speech"]
    assert clip_key(samples[0]) == "f00d"
    assert clip_key(samples[2]) == "b"


clips_heard = st.dictionaries(st.text(), st.integers(0, 5), max_size=6)


@given(clips_heard, st.integers(1, 4), st.sampled_from([torch.float32, torch.bfloat16]), st.booleans(), st.booleans())
def test_what_was_heard_is_kept(
    tmp_path_factory: pytest.TempPathFactory, lengths, dim: int, dtype: torch.dtype, padded: bool, viewed: bool
) -> None:
    def one(n: int) -> AudioFeatures:
        valid = torch.rand(n) < 0.5 if padded else None
        views = {name: PooledVector(np.random.rand(d).astype(np.float32), n) for name, d in (("a", 2), ("b:c", dim))}
        return AudioFeatures(torch.randn(n, dim).to(dtype), valid, views if viewed else {})

    heard = {name: one(n) for name, n in lengths.items()}
    path = tmp_path_factory.mktemp("heard") / "heard.safetensors"
    save_features(heard, path)
    again = load_features(path)
    assert again.keys() == heard.keys()
    for name, kept in heard.items():
        found = again[name]
        assert torch.equal(found.vectors, kept.vectors)
        assert found.vectors.dtype == dtype
        np.testing.assert_array_equal(found.valid_vectors(), kept.valid_vectors())
        assert found.views.keys() == kept.views.keys()
        for view, pooled in kept.views.items():
            assert found.views[view].frames == pooled.frames
            np.testing.assert_array_equal(found.views[view].vector, pooled.vector)


def test_a_clip_is_heard_once_whatever_it_is_called(tiny: AudioModel) -> None:
    sound = wav(CLIPS[0].samples)
    one = [Sample("a", audio=sound, pcm_hash="f00d"), Sample("b", audio=sound, pcm_hash="f00d")]
    heard, _, passes = cache_audio_features(tiny, one)
    assert (len(heard), passes) == (1, 1)
    heard, _, passes = cache_audio_features(tiny, [Sample("c", audio=sound, pcm_hash="f00d")])
    assert (list(heard), passes) == (["f00d"], 0)


def test_cached_features_fill_the_ears_once(tiny: AudioModel) -> None:
    loads = []

    def load():
        loads.append(1)
        return {"new": AudioFeatures(torch.ones(3, tiny_af3.DIM))}

    for _ in range(2):
        tiny.load_cached_features("corpus", load)
    assert len(loads) == 1
    assert len(tiny.audio_features["new"]) == 3
    tiny.load_cached_features("another corpus", load)
    assert len(loads) == 2


def test_ears_answer_for_the_samples_they_were_asked_for(tiny: AudioModel) -> None:
    samples = [Sample("clip1", audio="x"), Sample("other", audio="x", pcm_hash="clip0"), Sample("t", text="x")]
    ears = tiny.cached_audio(samples)
    first, second = ears.embed([clip("other", 0.1), clip("clip1", 0.1)])
    np.testing.assert_array_equal(first, tiny.audio_features["clip0"].valid_vectors())
    np.testing.assert_array_equal(second, tiny.audio_features["clip1"].valid_vectors())
    assert set(ears.features) == {"clip1", "other"}
    with pytest.raises(UndersongError, match="no audio features of sample new"):
        tiny.cached_audio([Sample("new", audio="x")])


def test_the_hearing_difference_is_nought_unless_the_encoder_moved(tiny: AudioModel) -> None:
    from peft import LoraConfig, get_peft_model

    samples = [Sample(c.id, audio=wav(c.samples)) for c in CLIPS[:3]]
    assert tiny.max_encoding_difference(samples).tolist() == [0.0]

    def worn(regex: str) -> float:
        config = LoraConfig(target_modules=regex, init_lora_weights=False)  # an adapter that does something
        tiny.model = get_peft_model(tiny_af3.network(), config).eval()
        (difference,) = tiny.max_encoding_difference(samples)
        return float(difference)

    assert worn(r".*language_model.*\.q_proj") == 0.0
    assert worn(r".*audio_tower.*\.q_proj") > 1e-3
    with pytest.raises(UndersongError, match="Clip gone cannot be read any more"):
        tiny.max_encoding_difference([Sample("gone", audio="/no/such/file.wav")])
