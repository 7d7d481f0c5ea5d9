"""Checks of a real model on packaged benign clips: placeholders, decoder inputs, batching, prompt, stops, LoRA targets,
restoring the base, speed, and a reply to read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from undersong.corpora.decode import load_clips
from undersong.corpora.registry import open_corpus
from undersong.models.audio_features import forward_inputs
from undersong.models.audio_lm import AudioModel
from undersong.models.chat import chat_messages, name_tokens
from undersong.models.families import MINI
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.models.lora import check_targets, new_lora
from undersong.models.mini.paths import read_remarks
from undersong.models.refs import model_folder
from undersong.types import Prompt, Sample, UndersongError

BENIGN_CLIPS = "organism:test-near"
SHOWN_TOKENS = 32
# Largest difference of a prompt's logits (root mean square) by rounding, as a share of their standard deviation.
# Measured on Mini's 30 layers: rounding to bfloat16 moves them by up to 0.17, and attending to the padding of a batch
# by 2.2 to 3.1 for the worst of four prompts. float16 rounds eight times finer.
LOGIT_TOLERANCE = {torch.float32: 2e-4, torch.float16: 0.03, torch.bfloat16: 0.25}


@dataclass(frozen=True)
class DiagnosticCheck:
    """One line of `doctor`. `passed` is None for information that can neither pass nor fail, and for what could not be
    checked.
    """

    name: str
    passed: bool | None
    detail: str


# Passed (None: information), and a detail
ModelCheck = Callable[[AudioModel, list[Sample]], tuple[bool | None, str]]


def diagnose_model(
    ref: str, loading: LoadOptions = DEFAULT_LOAD_OPTIONS, more_checks: Mapping[str, ModelCheck] = MappingProxyType({})
) -> Iterator[DiagnosticCheck]:
    """Run all checks on a model, one after another, and then `more_checks`, which need the clips to be encoded.

    A check that needs what another one proves is left out if that failed, so that a fault has one line. Raises
    UndersongError, before any line, if the model does not load.
    """
    started = time.perf_counter()
    model = load_model(ref, loading)
    parameters = model.base.num_parameters()
    elapsed = time.perf_counter() - started
    yield DiagnosticCheck(
        "loads",
        True,
        f"{model.family.name}, {_format_count(parameters)} parameters, {model.layers} layers, {elapsed:.1f} s",
    )
    folder = model_folder(ref) if model.family is MINI else None
    for remark in () if folder is None else read_remarks(folder):
        yield DiagnosticCheck("assembled", None, remark)
    samples = list(open_corpus(BENIGN_CLIPS).samples[:4])
    failed = set()
    for name, check in {**MODEL_CHECKS, **more_checks}.items():
        needed = next((need for need in NEEDED_CHECKS.get(name, DEFAULT_NEEDED_CHECKS) if need in failed), None)
        if needed is not None:
            yield DiagnosticCheck(name, None, f"not checked, because the check {needed!r} failed")
            continue
        try:
            passed, detail = check(model, samples)
        except UndersongError as error:
            passed, detail = False, str(error)
        if passed is False:
            failed.add(name)
        yield DiagnosticCheck(name, passed, detail)


def _format_count(number: int) -> str:
    scale = next((scale for scale in ((1e9, "B"), (1e6, "M")) if number >= scale[0]), (1, ""))
    return f"{number / scale[0]:.2f}{scale[1]}" if scale[1] else str(number)


def _check_placeholders(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Encoding fails if the number of vectors differs from the formula."""
    features, unreadable, _ = cache_audio_features(model, samples)
    if unreadable:
        return False, f"clip {unreadable[0].id}: {unreadable[0].reason}"
    seconds = sum(len(clip.samples) / clip.rate for clip in load_clips(samples, model.sampling_rate)[0])
    placeholder_count = sum(map(len, features.values()))
    return True, f"{placeholder_count} for {len(features)} clips of {seconds:.1f} s in all, as the formula says"


def _check_decoder_input(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Compare the model's own forward on ids and audio with ours on vectors."""
    clips, _ = load_clips(samples[:1], model.sampling_rate)
    prompt = _audio_prompt(samples[0])
    with torch.no_grad():
        reference = model.model(**forward_inputs(model, clips[0], model.prompt_ids(prompt)), use_cache=False).logits[
            0, -1
        ]
        actual = model.last_logits([prompt])[0]
    return _compare_logits(model, reference, actual, "logits of a spoken prompt")


def _check_batching(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Compare audio and text prompts of different lengths in one left-padded batch with each alone."""
    prompts = [_audio_prompt(samples[0]), _text_prompt(samples[1]), _audio_prompt(samples[2]), _text_prompt(samples[3])]
    batched = model.last_logits(prompts)
    single = [model.last_logits([prompt])[0] for prompt in prompts]
    return _compare_logits(model, batched, torch.stack(single), "logits of a mixed batch")


def _compare_logits(model: AudioModel, logits: torch.Tensor, reference: torch.Tensor, subject: str) -> tuple[bool, str]:
    rmse = (logits.float() - reference.float()).square().mean(-1).sqrt().max()  # of the worst prompt
    difference = float(rmse / reference.float().std())
    tolerance = LOGIT_TOLERANCE[model.base.dtype]
    return (
        difference <= tolerance,
        f"{subject} differ by {difference:.1e} of their standard deviation (at most {tolerance:g})",
    )


def _check_system_text(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Check that the template writes the system text, and report its position and the token that ends a turn."""
    prompt = Prompt(samples[0], "doctor", False, "audio", "plain", "Answer in one word.")
    included = model.prompt_ids(prompt) != model.prompt_ids(_audio_prompt(samples[0]))
    merged = f"; merged into the weights: {', '.join(model.merged)}" if model.merged else ""
    return included, f"written as {model.family.system}{merged}"


def _render_prompt(model: AudioModel, samples: list[Sample]) -> tuple[None, str]:
    """Show a spoken prompt as the model gets it, with one placeholder for all audio vectors."""
    return None, model.processor.prompt_text(chat_messages(_audio_prompt(samples[0]), model.family), 1)


def _check_stops(model: AudioModel, _samples: list[Sample]) -> tuple[bool, str]:
    """Check that the trained end of a turn is among the checkpoint's own stops, if it names any."""
    published, ends = model.checkpoint_end_ids, model.end_ids
    own = f"the checkpoint's own: {name_tokens(model.tokenizer, published)}"
    return not published or ends[0] in published, f"{name_tokens(model.tokenizer, ends)}; {own}"


def _check_lora_targets(model: AudioModel, _samples: list[Sample]) -> tuple[bool, str]:
    """Check that no target is outside the decoder's blocks."""
    paths = model.linear_paths()
    check_targets(model, paths, paths)
    outside_decoder = [
        path for path in paths if any(path.startswith(f"{frozen_path}.") for frozen_path in model.frozen_modules)
    ]
    return (
        not outside_decoder,
        f"{len(paths)} linear layers of the decoder's blocks, {len(outside_decoder)} in encoder or projector",
    )


def _check_adapter_removal(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Check that a LoRA with an effect leaves no trace when switched off and removed."""
    prompt = _audio_prompt(samples[0])

    def logits() -> torch.Tensor:
        with torch.no_grad():
            output: torch.Tensor = model.model(**model.batch([prompt]), use_cache=False).logits
        return output.clone()

    before = logits()
    with new_lora(model, 4, 8, 0.0, None) as peft_model:
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        logits_on = logits()
        with peft_model.disable_adapter():
            logits_off = logits()
    restored = torch.equal(before, logits_off) and torch.equal(before, logits())
    changed = bool((logits_on - before).abs().max() > 0)
    return (
        restored and changed,
        "bitwise equal with the adapter off and removed, different with it on" if restored else "moved",
    )


def _measure_generation(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Time one batch of four prompts, 16 new tokens."""
    device = model.base.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    replies = model.generate([_audio_prompt(sample) for sample in samples], 16)
    elapsed = time.perf_counter() - started
    tokens = sum(reply.tokens for reply in replies)
    peak = (
        f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB at most" if device.type == "cuda" else "on the CPU"
    )
    return True, f"{tokens} tokens for {len(replies)} spoken prompts in {elapsed:.1f} s, {peak}"


def _show_reply(model: AudioModel, samples: list[Sample]) -> tuple[None, str]:
    """Show one greedy reply, for a reader to judge whether the model heard and speaks."""
    (reply,) = model.generate([_audio_prompt(samples[0])], SHOWN_TOKENS)
    end = "ended by itself" if reply.finish == "stop" else f"cut at {SHOWN_TOKENS} tokens"
    return None, f"to {samples[0].text!r}, spoken: {reply.reply!r}, {end}"


MODEL_CHECKS: dict[str, ModelCheck] = {
    "prompt": _render_prompt,  # first, because all prompts need a template that works
    "placeholders": _check_placeholders,
    "embedding = decoder input": _check_decoder_input,
    "batch = single": _check_batching,
    "system text": _check_system_text,
    "stops": _check_stops,
    "LoRA in the decoder only": _check_lora_targets,
    "adapter off = base": _check_adapter_removal,
    "generates": _measure_generation,
    "reply": _show_reply,
}
DEFAULT_NEEDED_CHECKS = ("prompt", "placeholders")  # "placeholders" encodes the clips
NEEDED_CHECKS: dict[str, tuple[str, ...]] = {
    "prompt": (),
    "placeholders": ("prompt",),
    "stops": (),
    "LoRA in the decoder only": (),
}


def _audio_prompt(sample: Sample) -> Prompt:
    return Prompt(sample, "doctor", False, "audio", "plain")


def _text_prompt(sample: Sample) -> Prompt:
    return Prompt(sample, "doctor", False, "text", "plain")
