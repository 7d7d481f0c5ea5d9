"""What happens when memory runs out: batches are halved with equal results, and dropped models give theirs back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny_af3 import spoken, typed

from undersong.models import memory
from undersong.models.audio_lm import AudioModel
from undersong.models.interventions import replacement
from undersong.models.load import load_model
from undersong.models.load_options import LoadOptions
from undersong.models.out_of_memory import release_memory
from undersong.predictors.refusal_score import first_token_kl, first_tokens, refusal_scores
from undersong.stages.context import RunContext
from undersong.types import UndersongError

PROMPTS = [spoken(3), typed("paint the boat"), spoken(0), typed("wash"), spoken(4, None), typed("fold the red chair")]


@pytest.fixture
def sizes(shared_tiny: AudioModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Make batches of more than `most` prompts run out of memory -> the sizes that are tried."""
    make_batch = shared_tiny.batch

    def limit(most: int) -> list[int]:
        tried: list[int] = []

        def batch(prompts: Sequence[Any], replies: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
            tried.append(len(prompts))
            if len(prompts) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")
            return make_batch(prompts, replies)

        monkeypatch.setattr(shared_tiny, "batch", batch)
        return tried

    return limit


def test_replies_are_the_same_in_halved_batches(shared_tiny: AudioModel, sizes) -> None:
    expected = shared_tiny.generate(PROMPTS, 8)
    tried = sizes(3)
    assert shared_tiny.generate(PROMPTS, 8) == expected
    assert tried == [6, 3, 3]


def test_hidden_states_are_the_same_in_halved_batches(shared_tiny: AudioModel, sizes) -> None:
    expected = shared_tiny.hidden_states(PROMPTS)
    tried = sizes(3)
    np.testing.assert_allclose(shared_tiny.hidden_states(PROMPTS), expected, atol=1e-5)
    assert tried == [6, 3, 3]


def test_refusal_scores_are_the_same_in_halved_batches(shared_tiny: AudioModel, sizes) -> None:
    """Interventions follow their prompts into the halves."""
    states = shared_tiny.hidden_states(PROMPTS)[1]

    def patch(rows: Sequence[int]) -> dict:
        return {1: replacement(states[[5 - i for i in rows]])}

    def measure() -> list[np.ndarray]:
        return [
            refusal_scores(shared_tiny, PROMPTS, [5, 6]),
            refusal_scores(shared_tiny, PROMPTS, [5, 6], patch),
            np.array(first_tokens(shared_tiny, PROMPTS, patch)),
            first_token_kl(shared_tiny, PROMPTS, patch),
        ]

    expected = measure()
    tried = sizes(3)
    for values, whole in zip(measure(), expected, strict=True):
        np.testing.assert_allclose(values, whole, atol=1e-4)
    assert tried == 3 * [6, 3, 3] + [6, 3, 3, 3, 3]
    assert expected[3].min() > 1e-3


def test_refusal_scores_name_a_prompt_that_does_not_fit_alone(shared_tiny: AudioModel, sizes) -> None:
    sizes(0)
    with pytest.raises(UndersongError, match=r"Sample \S+ is too long for .* in this memory; take a larger device"):
        refusal_scores(shared_tiny, PROMPTS, [5])


@pytest.mark.parametrize("method", ["generate", "hidden_states"])
def test_a_prompt_that_does_not_fit_alone_is_named(shared_tiny: AudioModel, sizes, method: str) -> None:
    sizes(0)
    with pytest.raises(UndersongError, match=r"Sample \S+ is too long for .* in this memory; take a larger device"):
        getattr(shared_tiny, method)(PROMPTS, *([8] if method == "generate" else []))


def test_another_error_is_not_taken_for_memory(shared_tiny: AudioModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(shared_tiny, "batch", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        shared_tiny.generate(PROMPTS, 8)


def test_the_batch_size_of_the_loading_options_is_used(tiny_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(str(tiny_folder), LoadOptions(batch_size=2))
    tried: list[int] = []
    monkeypatch.setattr(model, "batch", lambda rows, make=model.batch, **_: (tried.append(len(rows)), make(rows))[1])
    typed_prompts = [prompt for prompt in PROMPTS if prompt.modality == "text"]
    model.generate(typed_prompts, 2)
    model.hidden_states(typed_prompts)
    assert tried == [2, 1, 2, 1]


def test_the_batch_size_is_no_part_of_a_key_and_at_least_one() -> None:
    assert LoadOptions(batch_size=2).cache_key == LoadOptions().cache_key
    with pytest.raises(UndersongError, match="A batch cannot have 0 prompts; take 1 or more"):
        LoadOptions(batch_size=0)


def test_hidden_states_compute_no_logits(shared_tiny: AudioModel) -> None:
    shared_tiny.base.get_output_embeddings().register_forward_pre_hook(lambda *_: pytest.fail("logits"))
    try:
        assert shared_tiny.hidden_states(PROMPTS[:2]).shape[1] == 2
    finally:
        shared_tiny.base.get_output_embeddings()._forward_pre_hooks.clear()


def test_last_logits_are_the_models_own(shared_tiny: AudioModel) -> None:
    with torch.inference_mode():
        expected = shared_tiny.model(**shared_tiny.batch(PROMPTS)).logits[:, -1]
    torch.testing.assert_close(shared_tiny.last_logits(PROMPTS), expected, atol=1e-5, rtol=0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A GPU of 80 bytes, as PyTorch reports it: `reserved`, of which `allocated` are in use."""
    state = {"total": 80, "reserved": 60, "allocated": 10, "emptied": 0}

    def empty_cache() -> None:
        state["reserved"] = state["allocated"]
        state["emptied"] += 1

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (state["total"] - state["reserved"], state["total"]))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: state["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state["allocated"])
    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    return state


def test_what_pytorch_keeps_cached_is_free(gpu: dict[str, int]) -> None:
    assert memory.available_memory("cuda:0") == 70
    release_memory()
    assert gpu["emptied"] == 1
    assert memory.available_memory("cuda:0") == 70


def test_a_second_load_empties_the_cache_before_it_measures(gpu, tiny_folder, monkeypatch) -> None:
    def measure(*_: Any) -> None:
        assert gpu["emptied"] == 1
        raise UndersongError("measured")

    monkeypatch.setattr("undersong.models.load.check_memory", measure)
    with pytest.raises(UndersongError, match="measured"):
        load_model(str(tiny_folder))


def test_a_judge_that_is_a_model_gets_the_audited_models_memory(gpu, tiny_folder, monkeypatch) -> None:
    context = RunContext(store=None)  # type: ignore[arg-type]
    context.model(str(tiny_folder))
    emptied = gpu["emptied"]
    monkeypatch.setattr("undersong.evaluation.judges.registry.make_judge", lambda *_: object())
    context.judge("harmbench", ())
    assert gpu["emptied"] == emptied + 1
    assert context._model is None


def test_nothing_is_imported_to_release_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # type: ignore[arg-type]
    release_memory()
