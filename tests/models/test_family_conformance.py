"""Every family does what the rooms above count on: one suite, a tiny instance of each in its published layout.

The oracle is the family as transformers runs it on its own processor's inputs (`instances.native`).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import instances
import numpy as np
import pytest
import torch
import zoo
from instances import ALONE, KIMI, KINDS, decoder_input
from transformers import GenerationConfig

from undersong.models.audio_features import AudioEncodingError
from undersong.models.audio_lm import AudioModel
from undersong.models.chat import chat_messages
from undersong.models.families import BY_ROLE, FAMILIES, family_of
from undersong.models.feature_cache import load_features, save_features
from undersong.models.interventions import apply_interventions, replacement
from undersong.models.load import load_model
from undersong.models.load_options import LoadOptions
from undersong.models.lora import new_lora, save_adapter, use_adapter
from undersong.models.reply_starts import reply_start_log_probabilities
from undersong.models.weights import module_hashes
from undersong.predictors.refusal_score import refusal_scores
from undersong.predictors.sample_scores import decoder_states
from undersong.research.mechanism.direction_selection import ablate_direction, add_direction
from undersong.research.mechanism.directions import RefusalDirection, fit_direction
from undersong.research.mechanism.localization import disable_lora_modules, lora_parts, patched_refusal_scores
from undersong.tuning.config import LoraRecipe
from undersong.tuning.train import finetune_decoder
from undersong.types import Clip, Prompt, Sample, UndersongError

RATE = 16_000
SECONDS = (0.3, 0.6, 1.3, 1.9)
CLIPS = [Clip(f"clip{i}", zoo.wave(seconds, i + 1), RATE) for i, seconds in enumerate(SECONDS)]
PLAIN = "you are a helpful assistant"


@dataclass
class Case:
    """One family: its folder, behind the adapter, and natively."""

    kind: str
    folder: Path
    model: AudioModel
    native: Any

    @property
    def system(self) -> str | None:
        """A system text where the family has a role for it, so that native conversations are the same."""
        return PLAIN if self.model.family.system == BY_ROLE else None

    def spoken(self, number: int, instruction: str | None = None) -> Prompt:
        sample = Sample(f"clip{number}", audio="heard")
        return Prompt(sample, "harm", True, "audio", "plain", self.system, instruction)

    def typed(self, text: str) -> Prompt:
        return Prompt(Sample(f"text:{text}", text=text), "harm", True, "text", "plain", self.system)

    def conversation(self, prompt: Prompt) -> list[dict[str, Any]]:
        """The prompt as a native processor takes it."""
        said: list[Any] = []
        if prompt.modality == "audio":
            (clip,) = (clip for clip in CLIPS if clip.id == prompt.sample.id)
            said.append(clip.samples)
        said += [text for text in (prompt.sample.text, prompt.instruction) if text]
        return zoo.ask(*said, system=prompt.system_text)

    @property
    def asked(self) -> list[Prompt]:
        """Spoken, typed, and spoken with a text, of different lengths."""
        return [self.spoken(2), self.typed("paint the red boat"), self.spoken(0, "tell me"), self.typed("wash")]


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = instances.save(request.param, tmp_path_factory.mktemp("conformance") / request.param)
    model = load_model(str(folder))
    model.audio_features = dict(zip((clip.id for clip in CLIPS), model.encode_audio(CLIPS)))
    return Case(request.param, folder, model, instances.native(request.param, folder))


def at_placeholders(case: Case, clips: list[Clip], text: str = "tell me") -> list[torch.Tensor]:
    """What the native model's decoder gets of the clips, all in one batch."""
    inputs = case.native.inputs([zoo.ask(clip.samples, text, system=case.system) for clip in clips])
    states, there = decoder_input(case.native.model, inputs), inputs["input_ids"] == case.native.audio_token_id
    return [row[at] for row, at in zip(states, there)]


def test_every_family_is_here() -> None:
    assert {family_of(kind, "x").name for kind in KINDS} == {family.name for family in FAMILIES}


# --- hearing ---------------------------------------------------------------------------------------------------------
def test_what_is_heard_is_the_decoders_input(case: Case) -> None:
    for clip in CLIPS:
        (native,) = at_placeholders(case, [clip])
        assert torch.equal(case.model.audio_features[clip.id].vectors, native)


def test_what_is_heard_is_that_of_a_native_batch(case: Case) -> None:
    """1e-5; families whose vectors depend on the lengths in their batch are batched by equal length."""
    batches = [CLIPS] if case.kind not in ALONE else [[CLIPS[2], dataclasses.replace(CLIPS[2], id="again")]]
    for clips in batches:
        for clip, native in zip(clips, at_placeholders(case, clips)):
            heard = case.model.audio_features[clip.id if clip.id in case.model.audio_features else CLIPS[2].id].vectors
            torch.testing.assert_close(heard, native, atol=1e-5, rtol=0)


def test_a_native_batch_of_other_lengths_would_not_do_for_two_families(case: Case) -> None:
    """Why clips are heard one at a time: this fails when transformers mends it, and the reason may go."""
    if case.kind in ALONE:
        native = at_placeholders(case, CLIPS[1:3])[0]
        heard = case.model.audio_features["clip1"].vectors
        assert len(native) != len(heard) or (native - heard).abs().max() > 1e-3


def test_hearing_again_is_equal_to_the_bit(case: Case, tmp_path: Path) -> None:
    save_features(case.model.audio_features, tmp_path / "heard.safetensors")
    cached = load_features(tmp_path / "heard.safetensors")
    for clip, again in zip(CLIPS[::-1], case.model.encode_audio(CLIPS[::-1])):
        kept = cached[clip.id]
        assert torch.equal(kept.vectors, again.vectors)
        np.testing.assert_array_equal(kept.valid_vectors(), again.valid_vectors())
        assert kept.views.keys() == again.views.keys() >= {"tower", "projector"}
        for name, pooled in kept.views.items():
            np.testing.assert_array_equal(pooled.vector, again.views[name].vector)


def test_views_are_means_over_a_clips_own_rows(case: Case) -> None:
    """The projector's own output on the projector's view is the decoder's input: no padding has entered."""
    family, clip = case.model.family, CLIPS[2]
    seen: dict[str, torch.Tensor] = {}

    def look(name: str, argument: int | None):
        def hook(_module: Any, args: tuple, output: Any) -> None:
            state = getattr(output, "last_hidden_state", output) if argument is None else args[argument]
            seen[name] = state.reshape(-1, state.shape[-1])

        return hook

    # of 1.3 s: 25, 12.5 or 13 placeholders a second; Kimi's and Voxtral's towers give four vectors a placeholder
    tower = {KIMI: 68, "voxtral": 65, "phi4_multimodal": 16, "qwen3_omni_moe": 17}.get(case.kind, 32)
    rows = dict.fromkeys(family.views, {"voxtral": 17, KIMI: 17}.get(case.kind, tower)) | {"tower": tower}
    hooks = [
        case.native.model.get_submodule(view.path).register_forward_hook(look(name, view.argument))
        for name, view in family.views.items()
    ]
    at_placeholders(case, [clip])
    for hook in hooks:
        hook.remove()
    heard = case.model.audio_features[clip.id]
    for name, pooled in heard.views.items():
        # one window, so a clip's own rows are the first ones
        assert pooled.frames == rows[name]
        mean = seen[name][: rows[name]].double().mean(0).float()
        np.testing.assert_allclose(pooled.vector, mean, atol=1e-6)
    assert heard.views["projector"].frames == len(heard.valid_vectors())


def test_everything_that_hearing_goes_through_is_frozen(case: Case) -> None:
    """By gradients: what changes the decoder's inputs at the placeholders, and is no table of token embeddings."""
    model = load_model(str(case.folder)).base
    inputs = case.native.inputs([zoo.ask(CLIPS[2].samples, "tell me", system=case.system)])
    model.requires_grad_(True)
    caught: list[torch.Tensor] = []
    layer = model.get_decoder().layers[0]
    hook = layer.register_forward_pre_hook(
        lambda _m, args, kwargs: caught.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    model(**inputs)
    hook.remove()
    caught[0][inputs["input_ids"] == case.native.audio_token_id].square().sum().backward()
    felt = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    tables = {name for name, p in model.named_parameters() if p is model.get_input_embeddings().weight}
    learning = {path for path in felt - tables if not any(path.startswith(f) for f in case.model.family.frozen)}
    assert not learning
    assert {path for path in felt if "proj" in path or "adaptor" in path}  # the projector among them


def test_padding_does_not_enter_the_mean(case: Case) -> None:
    """Voxtral gives placeholders to padding too; they go into prompts, never into vectors."""
    heard = case.model.audio_features["clip0"]
    assert (heard.valid is not None) == (case.kind == "voxtral")
    if heard.valid is not None:
        assert len(heard.valid_vectors()) == 4  # 0.3 s at 12.5 a second, begun ones too
        assert len(heard) == 25


@pytest.mark.parametrize("count", [1, 200, 319, 321, 400, 961, 1441, 15999, 16001, 31999, 32001, 32321, 40000, 64321])
def test_the_formula_is_the_models(case: Case, count: int) -> None:
    """Clips at every edge: as many vectors as natively, and the same, or a refusal with the reason."""
    clip = Clip("edge", zoo.samples(count, 3), RATE)
    least = {"voxtral": 1, KIMI: 1, "phi4_multimodal": 400, "qwen3_omni_moe": 201}.get(case.kind, 321)
    if count < least or (case.kind in ("qwen2_audio", "undersong_mini") and count > 32_000):  # which hear one window
        with pytest.raises(AudioEncodingError, match="too short" if count < least else "takes no more than 2 s"):
            case.model.encode_audio([clip])
        return
    (heard,) = case.model.encode_audio([clip])
    if case.kind == "musicflamingo" and count == 32001:
        return  # transformers fails on 20 ms over a window; the adapter leaves them out, as Audio Flamingo 3 does
    (native,) = at_placeholders(case, [clip])
    torch.testing.assert_close(heard.vectors, native, atol=1e-5, rtol=0)


def test_audio_that_cannot_be_heard_whole_is_refused(case: Case) -> None:
    model, longest = case.model, getattr(case.model.processor.extractor, "n_samples", None)
    if longest is not None:
        family = dataclasses.replace(model.family, max_windows=1)
        model = AudioModel(model.model, model.processor, family, "it", "")
        with pytest.raises(AudioEncodingError, match="takes no more than"):
            model.encode_audio([Clip("long", np.ones(longest + 1, np.float32), RATE)])
    with pytest.raises(UndersongError, match=r"has 8000 Hz and .* takes 16000 Hz; resample"):
        model.encode_audio([Clip("slow", CLIPS[0].samples, 8000)])
    with pytest.raises(AudioEncodingError, match="too short"):
        model.encode_audio([Clip("empty", np.zeros(0, np.float32), RATE)])


# --- prompts ---------------------------------------------------------------------------------------------------------
def test_prompts_are_the_native_ones(case: Case) -> None:
    for prompt in case.asked:
        native = case.native.inputs([case.conversation(prompt)])
        assert case.model.prompt_ids(prompt) == native["input_ids"][0].tolist()


def test_a_system_text_is_said_where_the_family_takes_it(case: Case) -> None:
    asked = dataclasses.replace(case.typed("wash"), system_text="take some")
    words = case.model.tokenizer.decode(case.model.prompt_ids(asked))
    assert "take some" in words
    assert words.index("take some") < words.index("wash")
    roles = [turn["role"] for turn in chat_messages(asked, case.model.family)]
    assert roles == (["system", "user"] if case.model.family.system == BY_ROLE else ["user"])
    assert (case.model.family.system == BY_ROLE) == (case.kind not in (KIMI, "voxtral"))
    assert case.model.facts["system_text"] == case.model.family.system


def test_a_mixed_left_padded_batch_is_each_prompt_alone(case: Case) -> None:
    """The native forward on ids and features of one prompt, against one batch of vectors, spoken and typed."""
    with torch.no_grad():
        together = case.model.model(**case.model.batch(case.asked)).logits[:, -1]
        alone = [
            case.native.model(**case.native.inputs([case.conversation(prompt)])).logits[0, -1] for prompt in case.asked
        ]
    torch.testing.assert_close(together, torch.stack(alone), atol=2e-5, rtol=0)


def test_labels_cover_the_reply_and_its_end(case: Case) -> None:
    batch = case.model.batch(case.asked, ["the chair", "a lamp", "boat", "fold"])
    for row, reply in zip(batch["labels"].tolist(), ["the chair", "a lamp", "boat", "fold"]):
        labelled = [token for token in row if token != -100]
        assert row[len(row) - len(labelled) :] == labelled
        assert labelled == [*case.model.tokenizer(reply, add_special_tokens=False)["input_ids"], case.model.end_ids[0]]


# --- speaking and thinking -------------------------------------------------------------------------------------------
def test_replies_are_the_native_ones_whatever_the_batch(case: Case) -> None:
    together = case.model.generate(case.asked, 6)
    # A checkpoint's own settings must not change how it is decoded.
    kept = case.model.base.generation_config
    wild = {"min_new_tokens": 6, "no_repeat_ngram_size": 1, "suppress_tokens": [5, 6, 7], "temperature": 0.5}
    case.model.base.generation_config = GenerationConfig(do_sample=True, num_beams=2, repetition_penalty=3.0, **wild)
    assert case.model.generate(case.asked, 6) == together
    assert case.model.base.generation_config.num_beams == 2
    case.model.base.generation_config = kept
    for prompt, reply in zip(case.asked, together):
        inputs = case.native.inputs([case.conversation(prompt)])
        with torch.no_grad():
            new = case.native.model.generate(
                **inputs, max_new_tokens=6, do_sample=False, eos_token_id=case.model.end_ids, pad_token_id=0
            )[0, inputs["input_ids"].shape[1] :].tolist()
        new = new[: next((i for i, token in enumerate(new) if token in case.model.end_ids), None)]
        assert reply.reply == case.model.tokenizer.decode(new, skip_special_tokens=False)
        assert reply.tokens == len(new)
        assert case.model.generate([prompt], 6)[0].reply == reply.reply
    assert len({reply.reply for reply in together}) > 1


def test_the_probability_of_a_reply_start_is_that_of_a_whole_pass(case: Case) -> None:
    """By keys and values of the prompt, in a left-padded batch of other lengths; sequences differ in length too."""
    starts: list[list[list[int]]] = [
        [[5, 6, 7], [8]],
        [[9, 5]],
        [[6], [7, 8], [5, 5, 5, 5], [5, 5, 6], [5, 6]],
        [[8, 9], [8, 5, 6], [8, 9, 7, 6], [8, 9, 7, 5]],
    ]
    values = reply_start_log_probabilities(case.model, case.asked, starts)
    for prompt, sequences, own in zip(case.asked, starts, values):
        for sequence, value in zip(sequences, own):
            inputs = case.model.batch([prompt])
            tokens = torch.tensor([sequence])
            with torch.inference_mode():
                logits = case.model.model(
                    inputs_embeds=torch.cat(
                        [inputs["inputs_embeds"], case.model.family.embed(case.model.base, tokens)], 1
                    ),
                    attention_mask=torch.ones(1, inputs["attention_mask"].shape[1] + len(sequence), dtype=torch.long),
                    position_ids=torch.arange(inputs["attention_mask"].shape[1] + len(sequence))[None],
                    use_cache=False,
                ).logits
            log_probabilities = logits[0, -len(sequence) - 1 : -1].log_softmax(-1)
            expected = sum(float(row[token]) for row, token in zip(log_probabilities, sequence))
            assert value == pytest.approx(expected, abs=1e-4)


def test_hidden_states_are_the_native_ones_whatever_the_batch(case: Case) -> None:
    """After generation too: Qwen-Omni remembers positions of its last prompts."""
    states = case.model.hidden_states(case.asked)
    assert states.shape == (case.model.layers + 1, len(case.asked), case.model.decoder.config.hidden_size)
    for i, prompt in enumerate(case.asked):
        np.testing.assert_allclose(case.model.hidden_states([prompt])[:, 0], states[:, i], atol=2e-5)
        with torch.no_grad():
            out = case.native.model(**case.native.inputs([case.conversation(prompt)]), output_hidden_states=True)
        native = torch.stack([state[0, -1] for state in out.hidden_states])
        np.testing.assert_allclose(states[:-1, i], native[:-1], atol=2e-5)
        np.testing.assert_allclose(decoder_states(case.model, [prompt])[0], native[-1], atol=5e-5)  # after the norm


# --- tuning ----------------------------------------------------------------------------------------------------------
def outputs(model: AudioModel, asked: list[Prompt]) -> torch.Tensor:
    with torch.no_grad():
        return model.model(**model.batch(asked)).logits.clone()


def test_only_the_decoder_learns_and_the_base_comes_back(case: Case, tmp_path: Path) -> None:
    """20 steps under dropout: encoder hashes equal, adapter off = base to the bit, saved and loaded the same."""
    folder = instances.save(case.kind, tmp_path / "dropout", dropout=0.2)
    model = load_model(str(folder))
    model.audio_features = dict(zip((clip.id for clip in CLIPS), model.encode_audio(CLIPS)))
    frozen, before = module_hashes(model.frozen_modules), outputs(model, case.asked)
    heard = {key: one.vectors.clone() for key, one in model.audio_features.items()}
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, write) -> None:
        write(tmp_path / name)
        kept[name] = outputs(model, case.asked)
        with model.model.disable_adapter():
            assert torch.equal(outputs(model, case.asked), before)

    recipe = LoraRecipe(save_steps=(20,), batch_size=4, learning_rate=1e-2, lora_rank=4)
    tuned = finetune_decoder(model, case.asked, ["the chair", "a lamp", "boat", "fold"], recipe, 0, keep)
    assert tuned.frozen_before == tuned.frozen_after == frozen == module_hashes(model.frozen_modules)
    assert tuned.log[-1]["loss"] < tuned.log[0]["loss"] - 0.5
    assert torch.equal(outputs(model, case.asked), before)
    with use_adapter(model, tmp_path / "step-000020") as worn:
        model.set_frozen_eval()
        after = outputs(worn, case.asked)
        assert (after - before).abs().max() > 0.1
        for clip, again in zip(CLIPS, worn.encode_audio(CLIPS)):
            assert torch.equal(heard[clip.id], again.vectors)
    again = load_model(str(folder))
    again.audio_features = model.audio_features
    with use_adapter(again, tmp_path / "step-000020") as worn:
        assert torch.equal(after, outputs(worn, case.asked))


def test_lora_reaches_linear_layers_of_the_decoders_blocks_alone(case: Case) -> None:
    paths = case.model.linear_paths()
    decoder = next(name for name, module in case.model.base.named_modules() if module is case.model.decoder)
    assert all(path.startswith(f"{decoder}.layers.") for path in paths)
    assert len(paths) == case.model.layers * (4 if case.kind in ALONE else 7)
    with new_lora(case.model, 2, 4, 0.0, None) as worn:
        learning = [name for name, parameter in worn.named_parameters() if parameter.requires_grad]
        assert len(learning) == 2 * len(paths)
        assert all(f"{decoder}.layers." in name and "lora_" in name for name in learning)
        assert not any(path in name for name in learning for path in case.model.family.frozen)
    assert not hasattr(case.model.base, "peft_config")


# --- looking in, and hands on it --------------------------------------------------------------------------------------
def hooks(model: AudioModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.decoder.modules())


def test_a_running_decoder_can_be_changed_and_comes_back(case: Case) -> None:
    """States put in where they were change nothing; a direction out or in does; hooks come off, after an error too."""
    model, asked, tokens = case.model, case.asked, [3, 7]
    plain, states = refusal_scores(model, asked, tokens), model.hidden_states(asked)
    np.testing.assert_allclose(
        patched_refusal_scores(model, states, asked, tokens), [plain] * (model.layers + 1), atol=2e-4
    )
    other = patched_refusal_scores(model, states[:, ::-1], asked, tokens)
    np.testing.assert_allclose(other[-1], plain[::-1], atol=2e-4)  # the last state says all
    direction = fit_direction(states[:, :2], states[:, 2:])
    for change in (
        ablate_direction(direction, model.layers, model.layers),
        add_direction(direction, model.layers, 2.0),
    ):
        assert np.abs(refusal_scores(model, asked, tokens, change) - plain).max() > 1e-4
    with pytest.raises(UndersongError, match="states for a batch"):
        refusal_scores(model, asked, tokens, lambda _rows: {1: replacement(states[1, :1])})
    assert hooks(model) == 0
    np.testing.assert_array_equal(refusal_scores(model, asked, tokens), plain)


def planted_direction(model: AudioModel, asked: list[Prompt]) -> tuple[RefusalDirection, torch.Tensor]:
    """A random direction of every layer, and the unit vector of layer 1."""
    shape = model.hidden_states(asked[:1]).shape
    unit = np.random.default_rng(0).normal(size=(shape[0], shape[2]))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return RefusalDirection(unit, np.zeros(shape[0]), np.ones(shape[0])), torch.from_numpy(unit[1]).float()


@contextmanager
def orthogonalized(case: Case, unit: torch.Tensor) -> Iterator[None]:
    """Weights that write to the residual stream, made orthogonal to `unit` (Arditi et al. 2024, eq. 5), for a while.

    They are the embedding, the encoder's cached output, and the last projection of every attention and every MLP.
    """
    model, heard = case.model, case.model.audio_features
    embedding = model.base.get_input_embeddings().weight
    head = model.base.get_output_embeddings()
    written = {
        name: parameter
        for name, parameter in model.decoder.layers.named_parameters()
        if any(last in name for last in ("o_proj", "down_proj", "fc2"))
    }
    assert len(written) >= 2 * model.layers
    kept = [(parameter, parameter.detach().clone()) for parameter in (embedding, *written.values())]
    tied = head is not None and head.weight is embedding
    with torch.no_grad():
        if tied:
            head.weight = torch.nn.Parameter(embedding.detach().clone())
        embedding -= (embedding @ unit)[:, None] * unit
        for parameter in written.values():  # (dim, inner), or (experts, dim, inner), or a bias (dim,)
            at = -1 if parameter.dim() == 1 else -2
            rows = parameter.movedim(at, -1)
            parameter.copy_((rows - (rows @ unit)[..., None] * unit).movedim(-1, at))
    model.audio_features = {
        name: dataclasses.replace(one, vectors=one.vectors - (one.vectors @ unit)[:, None] * unit)
        for name, one in heard.items()
    }
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)
        if tied:
            head.weight = embedding
        model.audio_features = heard


def test_ablation_equals_weights_that_cannot_write_the_direction(case: Case) -> None:
    """The published operation and the published equivalence: logits, and what every module of a block reads."""
    model, asked = case.model, case.asked
    direction, unit = planted_direction(model, asked)
    plain = model.last_logits(asked)
    with orthogonalized(case, unit):
        expected = model.last_logits(asked)
    assert torch.equal(model.last_logits(asked), plain)
    with apply_interventions(model.decoder.layers, ablate_direction(direction, 1, model.layers)([])):
        ablated = model.last_logits(asked)
    scale = float(plain.abs().max())
    assert (ablated - expected).abs().max() < 1e-4 * scale
    assert (plain - expected).abs().max() > 1e-2 * scale


def test_no_norm_of_an_ablated_decoder_reads_the_direction(case: Case) -> None:
    """What a norm reads is the residual stream: before the attention, before the MLP, and before the head."""
    model, asked = case.model, case.asked
    direction, unit = planted_direction(model, asked)
    read: list[float] = []

    def look(_module: Any, args: tuple) -> None:
        read.append(float((args[0] @ unit).abs().max() / args[0].norm(dim=-1).max()))

    norms = [
        module
        for parent in (*model.decoder.layers, model.decoder)
        for module in parent.children()
        if "norm" in type(module).__name__.lower()
    ]
    assert len(norms) == 2 * model.layers + 1
    hooked = [module.register_forward_pre_hook(look) for module in norms]
    try:
        model.last_logits(asked)
        assert max(read) > 0.05
        read.clear()
        with apply_interventions(model.decoder.layers, ablate_direction(direction, 1, model.layers)([])):
            model.last_logits(asked)
        assert len(read) == len(norms)
        assert max(read) < 1e-5
    finally:
        for hook in hooked:
            hook.remove()


def test_hands_work_on_a_model_that_a_device_map_spread(case: Case) -> None:
    """As `device_map` leaves it: accelerate's hooks on every module, moving what comes in to the module's device."""
    from accelerate.hooks import AlignDevicesHook as Align
    from accelerate.hooks import add_hook_to_module, remove_hook_from_submodules

    model, asked = case.model, case.asked
    states = model.hidden_states(asked)
    direction = fit_direction(states[:, :2], states[:, 2:])
    plain = refusal_scores(model, asked, [3], add_direction(direction, 1, 1.0))
    patched = patched_refusal_scores(model, states[:, ::-1], asked, [3])
    for layer in model.decoder.layers:
        add_hook_to_module(layer, Align(execution_device="cpu", io_same_device=True))
    try:
        np.testing.assert_array_equal(model.hidden_states(asked), states)
        np.testing.assert_array_equal(refusal_scores(model, asked, [3], add_direction(direction, 1, 1.0)), plain)
        np.testing.assert_array_equal(patched_refusal_scores(model, states[:, ::-1], asked, [3]), patched)
    finally:
        remove_hook_from_submodules(model.decoder)


def test_an_adapter_is_taken_apart_by_layer_kind_and_half(case: Case) -> None:
    model, asked, tokens = case.model, case.asked, [3, 7]
    base = refusal_scores(model, asked, tokens)
    with new_lora(model, 2, 4, 0.0, None) as worn:
        with torch.no_grad():
            for name, parameter in worn.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.02)
        tuned, parts = refusal_scores(model, asked, tokens), lora_parts(model)
        assert np.abs(tuned - base).max() > 1e-4
        assert [name for name in parts if name.startswith("layer ")] == [f"layer {i + 1}" for i in range(model.layers)]
        with disable_lora_modules([*parts["first half"], *parts["second half"]]):
            np.testing.assert_allclose(refusal_scores(model, asked, tokens), base, atol=1e-5)
        np.testing.assert_array_equal(refusal_scores(model, asked, tokens), tuned)


# --- loading ---------------------------------------------------------------------------------------------------------
def test_half_precision_hears_and_speaks(case: Case) -> None:
    model = load_model(str(case.folder), LoadOptions(dtype="bfloat16"))
    model.audio_features = dict(zip((clip.id for clip in CLIPS), model.encode_audio(CLIPS)))
    assert model.audio_features["clip0"].vectors.dtype == torch.bfloat16
    full, half = case.model.audio_features["clip2"].valid_vectors(), model.audio_features["clip2"].valid_vectors()
    assert np.corrcoef(full.ravel(), half.ravel())[0, 1] > 0.9
    assert len(model.generate(case.asked, 2)) == 4
    assert np.isfinite(model.hidden_states(case.asked)).all()
    states = model.hidden_states(case.asked)
    direction = fit_direction(states[:, :2], states[:, 2:])
    plain = refusal_scores(model, case.asked, [3])
    assert np.isfinite(patched_refusal_scores(model, states, case.asked, [3])).all()
    assert (refusal_scores(model, case.asked, [3], add_direction(direction, model.layers, 4.0)) != plain).any()


def test_a_lost_tensor_is_named(case: Case, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = instances.save(case.kind, tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(weights) if "layers.0" in name and "q" in name and "talker" not in name)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UndersongError, match=r"lacks .*layers\.0\..*\(1 such tensors\)"):
        load_model(str(folder))


def test_a_truncated_weight_file_is_refused(case: Case, tmp_path: Path) -> None:
    folder = instances.save(case.kind, tmp_path / "torn")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UndersongError, match=r"torn.* (could not be loaded|cannot be read)"):
        load_model(str(folder))


def test_another_models_tokenizer_is_refused(case: Case, tmp_path: Path) -> None:
    folder = instances.save(case.kind, tmp_path / "mixed")
    other = instances.save("audioflamingo3" if case.kind == "voxtral" else "voxtral", tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(UndersongError, match=r"tokenizer of .*mixed has no placeholder"):
        load_model(str(folder))


@pytest.fixture(scope="module")
def other_adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of a model of every family, with other weights than the case's."""
    folder = tmp_path_factory.mktemp("other")
    for kind in KINDS:
        other = load_model(str(instances.save(kind, folder / kind, dropout=0.1)))
        with new_lora(other, 2, 4, 0.0, None):
            save_adapter(other, folder / f"{kind}-adapter")
    return {kind: folder / f"{kind}-adapter" for kind in KINDS}


def test_an_adapter_of_another_model_is_refused(case: Case, other_adapters: dict[str, Path], tmp_path: Path) -> None:
    """Of every other family, and of this one with other weights; with PEFT's own file alone too."""
    for kind, adapter in other_adapters.items():
        folder = Path(shutil.copytree(adapter, tmp_path / kind))
        if kind != case.kind:
            (folder / "made_for.json").unlink()
        with pytest.raises(UndersongError, match="does not fit"), use_adapter(case.model, folder):
            pass
        assert not hasattr(case.model.base, "peft_config")
    assert torch.equal(outputs(case.model, case.asked), outputs(load_again(case), case.asked))


def load_again(case: Case) -> AudioModel:
    model = load_model(str(case.folder))
    model.audio_features = case.model.audio_features
    return model


def test_a_bare_adapter_whose_names_are_not_there_is_refused(case: Case, tmp_path: Path) -> None:
    """Without PEFT's note of the class: it would look for the names among experts, and not come off again."""
    kind = "audioflamingo3" if case.kind in ("qwen3_omni_moe", "phi4_multimodal", KIMI) else "phi4_multimodal"
    other = load_model(str(instances.save(kind, tmp_path / "other")))
    with new_lora(other, 2, 4, 0.0, None) as worn:
        worn.save_pretrained(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({**config, "auto_mapping": None}))
    with pytest.raises(UndersongError, match="does not fit"), use_adapter(case.model, tmp_path / "adapter"):
        pass
    assert case.model.model is case.model.base
