"""The variants of the architecture study: ordinary folders, in which what is off is off; and the probe for voice."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.sound_pathway.variants import CODES, CONTINUOUS, VARIANTS
from experiments.sound_pathway.voice import VoiceObjective, clip_means, decoder_hears, probe_voice
from recipes.organisms.world import SHIPPED
from undersong.models.load import load_model
from undersong.types import Clip

RATE = 16_000
NAMES = tuple(VARIANTS)


def tiny_corpus(variant, vocabulary: list[str]):
    """Two clips of noise, as the recipe's batches give them to the network."""
    rng = np.random.default_rng(0)
    frames = np.array([120, 96])
    mel = torch.from_numpy(rng.normal(size=(2, 80, 200)).astype(np.float32))
    return SimpleNamespace(
        architecture=variant,
        vocabulary=vocabulary,
        frames=frames,
        mel=mel,
        codes=[torch.arange(15), torch.arange(100, 112)],
        requests=[SimpleNamespace(voice="A"), SimpleNamespace(voice="B")],
        valid=lambda rows: (torch.arange(200)[None] < torch.from_numpy(frames[rows])[:, None]).long(),
    )


@pytest.fixture(scope="module", params=NAMES)
def made(request, tmp_path_factory):
    """A variant, its untrained network, and its folder."""
    variant = VARIANTS[request.param]
    vocabulary = variant.vocabulary(SHIPPED.vocabulary())
    network = variant.build(vocabulary, 0).eval()
    folder = tmp_path_factory.mktemp(request.param) / "model"
    corpus = tiny_corpus(variant, vocabulary)
    variant.write(network, corpus, folder)
    return variant, network, folder, corpus


def test_a_folder_is_loaded_and_heard_as_any_kimi_audio(made):
    _, network, folder, _ = made
    loaded = load_model(str(folder))
    clip = Clip("one", np.random.default_rng(1).normal(scale=0.1, size=RATE).astype(np.float32), RATE)
    (heard,) = loaded.encode_audio([clip])
    assert heard.vectors.shape == (13, 96)
    assert torch.isfinite(heard.vectors).all()
    assert heard.vectors.std() > 0.01
    assert all(torch.equal(value, loaded.base.state_dict()[name]) for name, value in network.state_dict().items())


def test_the_decoder_hears_only_the_streams_that_are_on(made):
    variant, _, folder, _ = made
    loaded = load_model(str(folder))
    clip = Clip("one", np.random.default_rng(1).normal(scale=0.1, size=RATE).astype(np.float32), RATE)
    before = loaded.encode_audio([clip])[0].vectors.clone()
    with torch.no_grad():
        for parameter in loaded.base.audio_tower.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    other_tower = loaded.encode_audio([clip])[0].vectors.clone()
    with torch.no_grad():
        loaded.base.audio_tokenizer.codebook.weight.copy_(
            loaded.base.audio_tokenizer.codebook.weight.roll(1, 0)
        )  # each code gets the number of the one after it
    other_codes = loaded.encode_audio([clip])[0].vectors
    assert torch.equal(before, other_tower) == (CONTINUOUS not in variant.streams)
    assert torch.equal(other_tower, other_codes) == (CODES not in variant.streams)


def test_what_is_off_and_both_ears_get_no_gradient_and_what_is_on_does(made):
    variant, network, _, corpus = made
    corpus.ear, corpus.tower = network.audio_tokenizer, network.audio_tower.state_dict()
    variant.begin(network, corpus)
    network.zero_grad()
    heard = network.fuse(*network.encode_audio(**variant.sound(corpus, [0, 1])))
    (heard * torch.randn_like(heard)).sum().backward()

    def moved(parameters) -> bool:
        return any(p.grad is not None and bool((p.grad != 0).any()) for p in parameters)

    offset = network.config.kimia_token_offset
    rows = network.model.embed_tokens.weight.grad
    assert moved(network.model.vq_adaptor.parameters()) == (CONTINUOUS in variant.streams)
    assert (rows is not None and bool((rows[offset:] != 0).any())) == (CODES in variant.streams)
    assert not moved(network.audio_tower.parameters())
    assert not moved(network.audio_tokenizer.parameters())
    network.zero_grad()


def test_states_computed_once_are_heard_as_the_clip_itself(made):
    variant, network, _, corpus = made
    cached = replace(variant, cached=True)
    with torch.inference_mode():
        corpus.states = network.audio_tower(corpus.mel).last_hidden_state
        itself = network.fuse(*network.encode_audio(**variant.sound(corpus, [0, 1])))
        again = cached.build(corpus.vocabulary, 0).eval()
        again.load_state_dict(network.state_dict())
        corpus.architecture = cached
        torch.testing.assert_close(again.fuse(*again.encode_audio(**cached.sound(corpus, [0, 1]))), itself)


def test_all_variants_of_a_seed_start_alike(made):
    variant, network, _, corpus = made
    other = VARIANTS["both"].build(corpus.vocabulary, 0).state_dict()
    differing = {name for name, value in network.state_dict().items() if not torch.equal(value, other[name])}
    off = {CODES: {"model.embed_tokens.weight"}, CONTINUOUS: {"model.vq_adaptor.layers.4.weight"}}  # its bias is 0
    assert differing == set().union(*(off[stream] for stream in off if stream not in variant.streams))


def heard_with_objective(wanted: str):
    """A variant's network that has just heard both clips, and the objective's loss on them."""
    variant = VARIANTS["continuous-keep"]
    corpus = tiny_corpus(variant, variant.vocabulary(SHIPPED.vocabulary()))
    network = variant.build(corpus.vocabulary, 0)
    state = torch.get_rng_state()
    objective = VoiceObjective(corpus, network, wanted, seed=0)
    network.fuse(*network.encode_audio(**variant.sound(corpus, [0, 1])))
    loss = objective([0, 1])
    assert torch.equal(state, torch.get_rng_state())  # or the variants' noise would differ
    return network, objective, loss


@pytest.mark.parametrize("wanted", ["keep", "discard"])
def test_the_voice_objective_teaches_the_projector_alone(wanted):
    network, objective, loss = heard_with_objective(wanted)
    network.zero_grad()
    loss.backward()
    taught = {name for name, p in network.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
    assert taught
    assert all(name.startswith("model.vq_adaptor.") for name in taught)
    assert bool(objective.parameters) == (wanted == "keep")


@pytest.mark.parametrize(("wanted", "low", "high"), [("keep", 0.9, 1.0), ("discard", 0.0, 0.45)])
def test_a_projector_learns_to_keep_or_to_discard_voice(wanted, low, high):
    """On planted states: voice and content in directions of their own, content named by the projector's output."""
    torch.manual_seed(0)
    clips, tokens, dim = 1200, 4, 24
    voices, content = torch.arange(clips) % 6, torch.randint(6, (clips,))
    states = 0.5 * torch.randn(clips, tokens, dim)
    states[torch.arange(clips), :, voices] += 2.0
    states[torch.arange(clips), :, 6 + content] += 2.0
    projector = torch.nn.Module()
    projector.layers = torch.nn.Sequential(torch.nn.Linear(dim, 32), torch.nn.SiLU(), torch.nn.Linear(32, 16))
    projector.forward = projector.layers.forward
    network = SimpleNamespace(config=SimpleNamespace(hidden_size=16), model=SimpleNamespace(vq_adaptor=projector))
    corpus = SimpleNamespace(
        architecture=SimpleNamespace(audio_tokens=lambda _frames: tokens),
        frames=np.zeros(clips),
        requests=[SimpleNamespace(voice="ABCDEF"[v]) for v in voices.tolist()],
    )
    objective, says = VoiceObjective(corpus, network, wanted, seed=0), torch.nn.Linear(16, 6)
    learn = [*projector.parameters(), *says.parameters(), *objective.parameters]
    optimiser = torch.optim.AdamW(learn, lr=5e-3)
    for _ in range(300):
        rows = torch.randint(clips // 2, (32,)).tolist()
        projected = projector(states[rows].flatten(0, 1)).unflatten(0, (32, tokens)).mean(1)
        loss = torch.nn.functional.cross_entropy(says(projected), content[rows]) + objective(rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        projected = projector(states.flatten(0, 1)).unflatten(0, (clips, tokens)).mean(1)
        right = (says(projected).argmax(1) == content)[clips // 2 :].float().mean()
    named, half = [corpus.requests[i].voice for i in range(clips)], clips // 2
    found = probe_voice(projected[:half].numpy(), named[:half], projected[half:].numpy(), named[half:])
    assert low <= found["linear"] <= high
    assert right > 0.9


def test_clip_means_and_what_the_decoder_gets_agree():
    variant = VARIANTS["both"]
    corpus = tiny_corpus(variant, variant.vocabulary(SHIPPED.vocabulary()))
    network = variant.build(corpus.vocabulary, 0).eval()
    together = decoder_hears(corpus, network, [0, 1], size=2)
    alone = decoder_hears(corpus, network, [0, 1], size=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    packed = torch.arange(10.0).reshape(5, 2)
    torch.testing.assert_close(clip_means(packed, [2, 3]), torch.tensor([[1.0, 2.0], [6.0, 7.0]]))


def planted(rng, count: int, strength: float) -> tuple[np.ndarray, list[str]]:
    """Vectors in which six voices are told by a direction each, or not at all."""
    voices = np.arange(count) % 6
    vectors = rng.normal(size=(count, 96)).astype(np.float32)
    vectors[np.arange(count), voices] += strength
    return vectors, ["ABCDEF"[v] for v in voices]


@pytest.mark.parametrize(("strength", "low", "high"), [(6.0, 0.97, 1.0), (0.0, 0.08, 0.25)])
def test_the_probe_finds_voice_where_it_was_planted_and_only_there(strength, low, high):
    rng = np.random.default_rng(3)
    found = probe_voice(*planted(rng, 900, strength), *planted(rng, 600, strength))
    assert low <= found["linear"] <= high
    assert low <= found["curved"] <= high


def test_the_curved_probe_finds_voice_that_no_line_tells():
    rng = np.random.default_rng(4)

    def rings(count: int):
        far = np.arange(count) % 2
        vectors = rng.normal(size=(count, 8))
        vectors *= (1 + 3 * far)[:, None]  # equal means: no linear probe can tell them
        return vectors, ["AB"[one] for one in far]

    found = probe_voice(*rings(600), *rings(400))
    assert found["curved"] > 0.9
    assert found["linear"] < 0.65
