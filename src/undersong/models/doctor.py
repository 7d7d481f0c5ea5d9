"""Is this model heard, asked and tuned rightly?  What the conformance suite proves on tiny ones, on a real one.

Asks benign clips that ship with the package.  Knows the adapter; keeps nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from undersong.corpora import load_clips, open_corpus
from undersong.models.adapter import AudioModel
from undersong.models.adapters import check_targets, fresh_lora
from undersong.models.families import MINI
from undersong.models.features import listen
from undersong.models.folders import model_folder
from undersong.models.hearing import forward_inputs
from undersong.models.load import load_model
from undersong.models.loading import PLAIN, Loading
from undersong.models.mini.place import remarks_of
from undersong.types import Prompt, Sample, UndersongError

CLIPS = "organism:test-near"
# Largest difference of a prompt's logits (root mean square) that rounding may make, as a share of their spread.  The
# largest of 49,000 single logits says less: in bfloat16, 30 layers deep, right ones are off by a fifth of the spread.
TOLERANCE = {torch.float32: 2e-4, torch.float16: 0.01, torch.bfloat16: 0.06}


@dataclass(frozen=True)
class Check:
    """One line of the doctor's.  `good`: yes, no, or None (it is to be known, and nothing is wrong)."""

    name: str
    good: bool | None
    said: str


def examine_model(ref: str, loading: Loading = PLAIN) -> Iterator[Check]:
    """The checks one after the other; after a model that does not load there are no more."""
    started = time.perf_counter()
    try:
        model = load_model(ref, loading)
    except UndersongError as error:
        yield Check("loads", False, str(error))
        return
    parameters = model.base.num_parameters()
    took = time.perf_counter() - started
    yield Check(
        "loads",
        True,
        f"{model.family.name}, {_count(parameters)} parameters, {model.layers} layers, {took:.1f} s",
    )
    folder = model_folder(ref) if model.family is MINI else None
    for remark in () if folder is None else remarks_of(folder):
        yield Check("assembled", None, remark)
    samples = list(open_corpus(CLIPS).samples[:4])
    for name, check in CHECKS.items():
        try:
            yield Check(name, *check(model, samples))
        except UndersongError as error:
            yield Check(name, False, str(error))


def _count(number: int) -> str:
    size = next((size for size in ((1e9, "B"), (1e6, "M")) if number >= size[0]), (1, ""))
    return f"{number / size[0]:.2f}{size[1]}" if size[1] else str(number)


def _placeholders(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Hearing itself refuses a number of vectors other than the formula's."""
    heard, failed, _ = listen(model, samples)
    if failed:
        return False, f"clip {failed[0].id}: {failed[0].reason}"
    seconds = sum(len(clip.samples) / clip.rate for clip in load_clips(samples, model.sampling_rate)[0])
    count = sum(map(len, heard.values()))
    return True, f"{count} for {len(heard)} clips of {seconds:.1f} s in all, as the formula says"


def _decoder_input(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """The model's own forward on ids and sound, against ours on vectors."""
    clips, _ = load_clips(samples[:1], model.sampling_rate)
    prompt = _spoken(samples[0])
    with torch.no_grad():
        own = model.model(**forward_inputs(model, clips[0], model.prompt_ids(prompt)), use_cache=False).logits[0, -1]
        ours = model.model(**model.batch([prompt]), use_cache=False).logits[0, -1]
    return _close(model, own, ours, "logits of a spoken prompt")


def _batches(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Spoken and typed prompts of different lengths in one left-padded batch, against each alone."""
    asked = [_spoken(samples[0]), _typed(samples[1]), _spoken(samples[2]), _typed(samples[3])]
    with torch.no_grad():
        together = model.model(**model.batch(asked), use_cache=False).logits[:, -1]
        alone = [model.model(**model.batch([prompt]), use_cache=False).logits[0, -1] for prompt in asked]
    return _close(model, together, torch.stack(alone), "logits of a mixed batch")


def _close(model: AudioModel, one: torch.Tensor, other: torch.Tensor, what: str) -> tuple[bool, str]:
    apart = (one.float() - other.float()).square().mean(-1).sqrt().max()  # of the worst prompt
    difference = float(apart / other.float().std())
    most = TOLERANCE[model.base.dtype]
    return difference <= most, f"{what} differ by {difference:.1e} of their spread (at most {most:g})"


def _system(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """Written by the template (a prompt that leaves it out is an error), and where; which token ends a turn."""
    prompt = Prompt(samples[0], "doctor", False, "audio", "plain", "Answer in one word.")
    said = model.prompt_ids(prompt) != model.prompt_ids(_spoken(samples[0]))
    end = model.tokenizer.convert_ids_to_tokens(model.end_ids[0])
    merged = f"; merged into the weights: {', '.join(model.merged)}" if model.merged else ""
    return said, f"written as {model.family.system}; a turn ends with {end}{merged}"


def _targets(model: AudioModel, _samples: list[Sample]) -> tuple[bool, str]:
    """None outside the decoder's blocks."""
    paths = model.linear_paths()
    check_targets(model, paths, paths)
    inside = [path for path in paths if any(path.startswith(f"{frozen}.") for frozen in model.frozen)]
    return not inside, f"{len(paths)} linear layers of the decoder's blocks, {len(inside)} in encoder or projector"


def _base(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """A LoRA that does something, switched off and taken off."""
    prompt = _spoken(samples[0])

    def logits() -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = model.model(**model.batch([prompt]), use_cache=False).logits
        return out.clone()

    before = logits()
    with fresh_lora(model, 4, 8, 0.0, None) as worn:
        for name, parameter in worn.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        on = logits()
        with worn.disable_adapter():
            off = logits()
    good = torch.equal(before, off) and torch.equal(before, logits())
    changed = bool((on - before).abs().max() > 0)
    return (
        good and changed,
        "equal to the bit with the adapter off and taken off, other with it on" if good else "moved",
    )


def _speed(model: AudioModel, samples: list[Sample]) -> tuple[bool, str]:
    """One batch of four prompts, 16 new tokens."""
    device = model.base.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    replies = model.generate([_spoken(sample) for sample in samples], 16)
    took = time.perf_counter() - started
    tokens = sum(reply.tokens for reply in replies)
    peak = (
        f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB at most" if device.type == "cuda" else "on the CPU"
    )
    return True, f"{tokens} tokens for {len(replies)} spoken prompts in {took:.1f} s, {peak}"


CHECKS: dict[str, Callable[[AudioModel, list[Sample]], tuple[bool, str]]] = {
    "placeholders": _placeholders,
    "embedding = decoder input": _decoder_input,
    "batch = single": _batches,
    "system text": _system,
    "LoRA in the decoder only": _targets,
    "adapter off = base": _base,
    "generates": _speed,
}


def _spoken(sample: Sample) -> Prompt:
    return Prompt(sample, "doctor", False, "audio", "plain")


def _typed(sample: Sample) -> Prompt:
    return Prompt(sample, "doctor", False, "text", "plain")
