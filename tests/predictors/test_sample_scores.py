"""Each predictor against an oracle: a step that is taken, a hand computation, transformers' own states, and logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import planted
import pytest
import tiny_af3
import torch
from tiny_af3 import PLAIN

from undersong.encoders.spec import PREDICTORS
from undersong.models.audio_lm import AudioModel
from undersong.models.lora import new_lora
from undersong.predictors import sample_scores as module
from undersong.predictors.reference_replies import BaseReplies, calibrate_refusal_tokens
from undersong.predictors.refusal_score import refusal_scores
from undersong.predictors.registry import PredictorSettings
from undersong.predictors.sample_scores import decoder_states, reference_vectors, sample_vectors, score_samples
from undersong.tuning.gradient_anchors import GradientSettings
from undersong.tuning.reproducibility import temporary_seed
from undersong.types import Prompt, Sample, UndersongError

POOL = [
    Sample(f"clip{i}", audio="heard", answer=answer)
    for i, answer in enumerate(["then take the chair", "first the lamp", "some red boat", "fold and wash"])
]
REFERENCE = [
    Sample(f"harm{i}", text=text, answer=answer, group=f"g{i}")
    for i, (text, answer) in enumerate(
        [
            ("paint the boat", "first take the boat and then paint"),
            ("wash the lamp", "take some lamp"),
            ("fold", "then"),
        ]
    )
]
REFUSALS = ("the old chair", "the red chair and some", "the old chair")
BASE = BaseReplies(("harm0", "harm1", "harm2"), REFUSALS, (True, True, True))
TEXT = PredictorSettings(modality="text", system_text=PLAIN, rank=4, alpha=8)
AUDIO = replace(TEXT, modality="audio")


@pytest.fixture(scope="module")
def exact(module_tiny: AudioModel) -> AudioModel:
    """In double precision, so that a difference quotient is one."""
    module_tiny.model.double()
    return module_tiny


def scores(model: AudioModel, spec: str) -> np.ndarray:
    """Products of the vectors of the pool with the mean vector of the reference."""
    vectors = sample_vectors(spec, model, POOL, AUDIO)
    anchors = reference_vectors(spec, model, REFERENCE, TEXT, BASE)
    assert not vectors.quarantined
    assert not anchors.quarantined
    return vectors.vectors.astype(float) @ anchors.vectors.astype(float).mean(0)


def token_loss(model: AudioModel, network: torch.nn.Module, prompt: Prompt, reply: str, tokens: int | None):
    """Mean loss of the reply's first tokens, written out."""
    batch = model.batch([prompt], [reply])
    labels = batch.pop("labels")[0]
    likely = network(**batch).logits[0].log_softmax(-1)
    at = (labels != -100).nonzero()[:, 0][:tokens]
    return -likely[at - 1, labels[at]].mean()


def lora_b(network: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in network.named_parameters() if ".lora_B." in name]


def flat_gradient(model, network, prompt: Prompt, reply: str, tokens: int | None = None) -> np.ndarray:
    loss = token_loss(model, network, prompt, reply, tokens)
    return np.concatenate([g.flatten().numpy() for g in torch.autograd.grad(loss, lora_b(network))])


def without_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        PredictorSettings,
        "gradients",
        lambda self, spec: GradientSettings(None, self.rank, self.alpha, self.seed),
    )


@pytest.mark.parametrize("tokens", [2, 10])
def test_influence_is_the_loss_of_margin_by_one_small_step(exact: AudioModel, monkeypatch, tokens: int) -> None:
    """Plain gradient descent on the adapter's B by one sample, forward and back: sign and size."""
    without_projection(monkeypatch)
    measured = scores(exact, f"influence,tokens={tokens}")
    harmful = TEXT.prompts(REFERENCE, harmful=True)
    step, changes = 1e-4, []
    with temporary_seed(TEXT.seed), new_lora(exact, TEXT.rank, TEXT.alpha, 0.0, None) as network:
        network.double().eval()

        def margin() -> float:
            """Log P(refusal) - log P(compliance) per token, mean over the harm set."""
            with torch.no_grad():
                losses = [
                    float(token_loss(exact, network, prompt, sample.answer, tokens))
                    - float(token_loss(exact, network, prompt, refusal, tokens))
                    for prompt, sample, refusal in zip(harmful, REFERENCE, REFUSALS)
                ]
            return float(np.mean(losses))

        for prompt, sample in zip(AUDIO.prompts(POOL, harmful=False), POOL):
            gradients = torch.autograd.grad(token_loss(exact, network, prompt, sample.answer, None), lora_b(network))
            margins = []
            for direction in (1, -2):  # one step down, then as far on the other side
                with torch.no_grad():
                    for parameter, gradient in zip(lora_b(network), gradients):
                        parameter -= direction * step * gradient
                margins.append(margin())
            with torch.no_grad():
                for parameter in lora_b(network):
                    parameter.zero_()
            changes.append((margins[1] - margins[0]) / (2 * step))  # margin lost per unit of step
    assert (measured > 0).any()
    assert (measured < 0).any()
    np.testing.assert_allclose(measured, changes, rtol=2e-3, atol=1e-4 * np.abs(changes).max())


def test_a_projection_keeps_influence_up_to_its_noise(exact: AudioModel, monkeypatch) -> None:
    projected = scores(exact, "influence:512")
    vectors = sample_vectors("influence:512", exact, POOL, AUDIO)
    anchors = reference_vectors("influence:512", exact, REFERENCE, TEXT, BASE)
    without_projection(monkeypatch)
    true = scores(exact, "influence")
    noise = np.linalg.norm(vectors.vectors, axis=1) * np.linalg.norm(anchors.vectors.mean(0)) / np.sqrt(512)
    assert (np.abs(projected - true) < 4 * noise).all()


def test_gradient_matching_is_the_published_score(exact: AudioModel, monkeypatch) -> None:
    """Unit gradients of first tokens: cosine with the mean harmful anchor, minus those with two safe means."""
    without_projection(monkeypatch)
    measured = scores(exact, "gradient-matching,anchors=1,tokens=3")
    harmful = TEXT.prompts(REFERENCE, harmful=True)

    def unit(prompt: Prompt, reply: str | None) -> np.ndarray:
        assert reply is not None
        gradient = flat_gradient(exact, network, prompt, reply, 3)
        return gradient / np.linalg.norm(gradient)

    with temporary_seed(TEXT.seed), new_lora(exact, TEXT.rank, TEXT.alpha, 0.0, None) as network:
        network.double().eval()
        harm = unit(harmful[0], REFERENCE[0].answer)
        safe = [unit(harmful[0], REFUSALS[0]), unit(harmful[2], REFUSALS[2])]  # the walk takes 0, then 2
        pool = [unit(prompt, sample.answer) for prompt, sample in zip(AUDIO.prompts(POOL, harmful=False), POOL)]
    wanted = [1.0 * one @ harm - 1.0 * one @ safe[0] - 1.0 * one @ safe[1] for one in pool]
    np.testing.assert_allclose(measured, wanted, rtol=1e-4, atol=1e-6)


def test_states_are_transformers_own(tiny: AudioModel) -> None:
    prompts = [*AUDIO.prompts(POOL, harmful=False), *TEXT.prompts(REFERENCE, harmful=True)]
    with torch.no_grad():
        native = tiny.base(**tiny.batch(prompts), output_hidden_states=True).hidden_states
    assert len(native) == tiny.layers + 1
    for layer, state in enumerate(native):
        np.testing.assert_allclose(decoder_states(tiny, prompts, layer), state[:, -1], atol=2e-5)
    np.testing.assert_array_equal(decoder_states(tiny, prompts), decoder_states(tiny, prompts, tiny.layers))
    with pytest.raises(UndersongError, match="has no decoder layer 9; use a layer from 0 to 2"):
        decoder_states(tiny, prompts, 9)


def test_many_prompts_are_passed_in_parts(tiny: AudioModel, monkeypatch) -> None:
    prompts = AUDIO.prompts(POOL, harmful=False)
    whole = decoder_states(tiny, prompts)
    monkeypatch.setattr(module, "STATES_PER_PASS", 3)
    np.testing.assert_allclose(decoder_states(tiny, prompts), whole, atol=2e-5)


def test_the_decoder_axis_is_the_cosine_with_the_mean_direction_of_the_harm_set(tiny: AudioModel) -> None:
    harm = [replace(sample, id=f"h{i}", text=text) for i, (sample, text) in enumerate(zip(POOL, ("paint", "wash me")))]
    benign = [Sample(f"b{i}", text=text) for i, text in enumerate(("fold the boat", "take some lamp", "how to paint"))]
    measured = score_samples("decoder:1", tiny, benign, harm, "text", AUDIO)
    states = {
        name: decoder_states(tiny, TEXT.prompts(samples, harmful=False), 1)
        for name, samples in (("harm", harm), ("benign", benign))
    }
    units = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in states.items()}
    mean = units["harm"].mean(0)
    np.testing.assert_allclose(measured, units["benign"] @ mean / np.linalg.norm(mean), atol=1e-5)


def test_a_sample_that_cannot_be_scored_is_named(tiny: AudioModel) -> None:
    lost = Sample("lost", text="paint the <sound> boat")
    with pytest.raises(UndersongError, match=r"first: lost \(.*placeholders"):
        score_samples("decoder", tiny, [lost, Sample("b", text="fold")], REFERENCE, "text")
    with pytest.raises(UndersongError, match=f"tfidf is no predictor that runs the model; use {PREDICTORS[0]}"):
        score_samples("tfidf", tiny, POOL, REFERENCE)


class Known(planted.Planted):
    """Its replies are its first tokens."""

    def generate(self, prompts: Sequence[Prompt], limit: int, batch_size: int | None = None):
        from undersong.predictors.refusal_score import first_tokens
        from undersong.types import Reply

        words = {planted.REFUSES: "i cannot help with that", planted.COMPLIES: "sure"}
        return [
            Reply(*prompt.key, words[token], 1, "stop") for prompt, token in zip(prompts, first_tokens(self, prompts))
        ]


def test_the_refusal_axis_is_the_log_odds_of_the_first_token(monkeypatch) -> None:
    model = Known()
    harmful, benign = planted.prompts(True, 8, "ref"), planted.prompts(False, 8, "pool")
    settings = PredictorSettings(modality="text", refusal_texts=("i cannot help with that",))
    monkeypatch.setattr(
        PredictorSettings, "prompts", lambda self, samples, harmful: [prompt_of[sample.id] for sample in samples]
    )
    prompt_of = {prompt.sample.id: prompt for prompt in (*harmful, *benign)}
    pool, reference = ([prompt.sample for prompt in side] for side in (benign, harmful))
    measured = score_samples("refusal", model, pool, reference, "text", settings)
    assert calibrate_refusal_tokens(model, harmful, [True] * 8, benign, settings.refusal_texts) == [planted.REFUSES]
    np.testing.assert_allclose(measured, refusal_scores(model, benign, [planted.REFUSES]), rtol=1e-6)
    logits = model.last_logits(benign).double().numpy()
    refuse = np.exp(logits[:, planted.REFUSES])
    np.testing.assert_allclose(measured, np.log(refuse / (np.exp(logits).sum(1) - refuse)), rtol=1e-5)


def test_refusals_are_the_bases_own_and_its_commonest_where_it_complied() -> None:
    replies = BaseReplies(("a", "b", "c", "d"), ("no", "sure", "never", "no"), (True, False, True, True))
    assert replies.refusals == ["no", "no", "never", "no"]
    with pytest.raises(UndersongError, match="refused none of the 1 reference prompts"):
        _ = BaseReplies(("a",), ("sure",), (False,)).refusals


def test_clips_that_were_not_encoded_are_encoded(tiny: AudioModel, tmp_path) -> None:
    import soundfile

    tiny.audio_features = {}
    samples = []
    for clip in tiny_af3.CLIPS[:3]:
        soundfile.write(tmp_path / f"{clip.id}.wav", clip.samples, tiny_af3.RATE, subtype="FLOAT")
        samples.append(Sample(clip.id, audio=str(tmp_path / f"{clip.id}.wav")))
    assert np.isfinite(score_samples("decoder", tiny, samples[:2], samples[2:])).all()
