"""What hearing a clip once is worth: passes of a study, tuning with the cache and without, one load for k arms."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the ratio is of the work

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from undersong.corpora.registry import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.models.audio_lm import AudioModel
from undersong.models.families import AUDIO_FLAMINGO_3
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.models.lora import use_adapter
from undersong.stages.context import RunContext
from undersong.store.store import Store
from undersong.study.audit import audit_study
from undersong.study.load import packaged_study
from undersong.tuning.config import LoraRecipe
from undersong.tuning.train import finetune_decoder
from undersong.types import Clip, Prompt, Sample

ROUNDS, STEPS, BATCH, SECONDS, ADAPTERS = 5, 6, 8, 6, 3


def encoder_passes() -> None:
    """Six arms, three epochs each: calls of the tower, counted by a hook, against distinct clips."""
    demo = packaged_study("demo")
    epochs = demo.tuning.model_copy(update={"seeds": (0,), "draws": (0,), "steps": (61,)})  # 162 samples / 8 x 3
    study = demo.model_copy(update={"tuning": epochs, "mechanism": None})
    calls: list[int] = []
    with tempfile.TemporaryDirectory() as folder, counted(calls):
        record = audit_study(study, RunContext(Store(Path(folder))))
        clips = {s.pcm_hash for c in (record.pool, record.reference, *record.sets.values()) for s in c.samples}
        arms = {run.arm.name for m in record.models for run in m.runs if run.arm.kind != "base"}
        noted = sum(a.provenance()["notes"]["encoder_passes"] for m in record.models for a in m.features.values())
    print(f"features: {len(calls)} encoder passes ({noted} in the provenance) for {len(arms)} arms of 3 epochs on "
          f"{len(clips)} distinct clips")  # fmt: skip


class counted:
    """Counts calls of every Audio Flamingo 3 tower."""

    def __init__(self, calls: list[int]) -> None:
        self.calls = calls

    def __enter__(self) -> None:
        from transformers import AudioFlamingo3Encoder

        self.cls, self.forward = AudioFlamingo3Encoder, AudioFlamingo3Encoder.forward
        forward, calls = self.forward, self.calls

        def count(tower: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return forward(tower, *args, **kwargs)

        self.cls.forward = count

    def __exit__(self, *_: object) -> None:
        self.cls.forward = self.forward


class Forgetful(AudioModel):
    """The same model without a cache: every batch is heard anew."""

    clips: dict[str, Clip]

    def batch(self, prompts: Sequence[Prompt], replies: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        ids = [prompt.sample.id for prompt in prompts]
        self.audio_features = dict(zip(ids, self.encode_audio([self.clips[i] for i in ids])))
        return super().batch(prompts, replies)


def encoder_heavy() -> AudioModel:
    """Random Audio Flamingo 3 whose tower costs ten times a decoder layer or more, as in the real ones."""
    from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration

    processor = load_model("organism:af3").processor
    extractor = type(processor.extractor)(feature_size=80, sampling_rate=16_000, chunk_length=SECONDS)
    audio = {"model_type": "audioflamingo3_encoder", "num_mel_bins": 80, "hidden_size": 256, "num_hidden_layers": 5}
    audio |= {"num_attention_heads": 4, "intermediate_size": 1024, "max_source_positions": 50 * SECONDS}
    text = {"model_type": "qwen2", "vocab_size": 128, "hidden_size": 256, "intermediate_size": 512}
    text |= {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    network = AudioFlamingo3ForConditionalGeneration(
        AudioFlamingo3Config(audio_config=audio, text_config={**text, "eos_token_id": 2}, audio_token_id=3)
    )
    parts = type(processor)(processor.tokenizer, extractor, processor.chat_template, processor.audio_token, 3, ("", ""))
    return AudioModel(network, parts, AUDIO_FLAMINGO_3, "encoder-heavy", "")


def tuning_with_the_cache() -> None:
    model = encoder_heavy()
    rng = np.random.default_rng(0)
    clips = {f"c{i}": Clip(f"c{i}", rng.standard_normal(SECONDS * 16_000, np.float32), 16_000) for i in range(16)}
    prompts = [Prompt(Sample(name, audio="x"), "pool", False, "audio", "plain") for name in clips]
    forgetful = Forgetful(model.model, model.processor, model.family, model.name, "")
    forgetful.clips = clips
    recipe, replies = LoraRecipe(save_steps=(STEPS,), batch_size=BATCH), ["kill a judge"] * len(prompts)
    ratios, heard_in, cost = [], 0.0, ""
    for _ in range(ROUNDS):
        model.audio_features.clear()
        times = []
        start = time.process_time()
        model.audio_features |= dict(zip(clips, model.encode_audio(list(clips.values()))))
        heard_in = time.process_time() - start
        for one in (model, forgetful):
            start = time.process_time()
            finetune_decoder(one, prompts, replies, recipe, 0, lambda _name, _write: None)
            times.append(time.process_time() - start)
        ratios.append(times[1] / times[0])
        cost = f"{times[0]:.1f} against {times[1]:.1f} CPU s"
    layer, tower = _costs(model, list(clips.values())[:1])
    print(
        f"features: tuning {statistics.median(ratios):.1f}x faster with the cache ({cost} for {STEPS} steps of "
        f"{BATCH}, hearing all clips once {heard_in:.1f} s more); the tower costs {tower / layer:.0f} decoder layers"
    )


def _costs(model: AudioModel, clips: list[Clip]) -> tuple[float, float]:
    """CPU seconds of one decoder layer and of the tower on one clip."""
    spent: dict[str, float] = {}

    def timed(name: str, module: Any) -> list[Any]:
        def before(*_: Any) -> None:
            spent[name] = -time.process_time()

        def after(*_: Any) -> None:
            spent[name] += time.process_time()

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    model.audio_features |= dict(zip(["x"], model.encode_audio(clips)))
    hooks = timed("tower", model.base.get_submodule("model.audio_tower")) + timed("layer", model.decoder.layers[1])
    for _ in range(3):
        model.encode_audio(clips)
        with torch.no_grad():
            model.model(**model.batch([Prompt(Sample("x", audio="x"), "pool", False, "audio", "plain")]))
    for hook in hooks:
        hook.remove()
    return spent["layer"], spent["tower"]


def one_load_for_all() -> None:
    """k adapters on one base in memory against a load each: the same replies, and how much sooner."""
    samples = open_corpus("organism:test-harm").samples
    text = "you are a helpful assistant"
    prompts = make_prompts(samples, set_name="harm", harmful=True, modality="audio", system="plain", system_text=text)
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / str(seed) for seed in range(ADAPTERS)]
        model = load_model("organism:af3")
        cache_audio_features(model, samples)
        for seed, folder in enumerate(folders):
            recipe = LoraRecipe(save_steps=(5,), learning_rate=2e-3)
            finetune_decoder(
                model, prompts[:40], ["sure"] * 40, recipe, seed, lambda _name, write, folder=folder: write(folder)
            )
        shared, start = [], time.process_time()
        model = load_model("organism:af3")
        cache_audio_features(model, samples)
        for folder in folders:
            with use_adapter(model, folder) as worn:
                shared.append((worn.generate(prompts, 12), worn.hidden_states(prompts)))
        together, start = time.process_time() - start, time.process_time()
        equal = True
        for folder, (replies, states) in zip(folders, shared):
            alone = load_model("organism:af3")
            cache_audio_features(alone, samples)
            with use_adapter(alone, folder) as worn:
                equal &= worn.generate(prompts, 12) == replies and np.array_equal(worn.hidden_states(prompts), states)
        apart = time.process_time() - start
    print(
        f"features: {ADAPTERS} adapters on one load {'equal to the bit' if equal else 'UNLIKE'} separate loads, "
        f"{apart / together:.1f}x faster ({together:.1f} against {apart:.1f} CPU s)"
    )


def main() -> None:
    encoder_passes()
    tuning_with_the_cache()
    one_load_for_all()


if __name__ == "__main__":
    main()
