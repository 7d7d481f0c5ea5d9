"""A model's replies to prompt sets and the judges' verdicts on them, as artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from undersong.settings.defaults import LOCAL_ENGINE, VLLM
from undersong.stages.black_box_models import (
    BlackBoxModel,
    display_reference,
    is_black_box,
    load_black_box_model,
    model_identity_hash,
)
from undersong.stages.context import IMPORTED_ADAPTER, RunContext, adapter_step_folder, is_imported
from undersong.stages.features import MODEL_PACKAGES
from undersong.stages.prompt_sets import PromptSetRequest, group_by_token_limit, in_reply_order, request_prompts
from undersong.stages.training import StudyArm
from undersong.store.draft import Draft
from undersong.store.store import Artifact
from undersong.types import ExchangeKey, Prompt, Reply, Verdict

if TYPE_CHECKING:
    from undersong.evaluation.refusal_margin import MarginSettings
    from undersong.models.audio_lm import AudioModel

REPLIES_SUFFIX = ".batches"  # of a local model's replies next to the draft, while it generates
ANSWERS_SUFFIX = ".answers"  # of a journal next to the draft: what a server answered before the run stopped


def generate_replies(
    ctx: RunContext,
    arm: StudyArm,
    adapter: Artifact | None,
    step: int,
    requests: Sequence[PromptSetRequest],
    steering: Artifact | None = None,
) -> Artifact:
    """Generate the greedy replies of a model to all requests; they stay on the user's machine.

    Args:
        ctx: Store, model and audio features.
        arm: The run whose model replies.
        adapter: The adapter artifact that is on; None: the base.
        step: The step of the adapter.
        requests: The prompt sets.
        steering: An artifact of `choose_steering`, whose vector is added.
    """

    # Probabilities of tokens are needed, which neither a server nor vLLM's replies give.
    measures_margin = ctx.engine == LOCAL_ENGINE and not is_black_box(arm.model)

    def make(draft: Draft) -> None:
        from undersong.encoders.batching import watch_worker
        from undersong.evaluation.partial_replies import keep_replies
        from undersong.evaluation.replies import write_replies
        from undersong.evaluation.serving.journal import keep_answers

        count = sum(len(request_prompts([request])) for request in requests)
        watcher = ctx.watcher(f"{display_reference(arm.model)}{'' if adapter is None else f' {arm.name}'} replies")
        with (
            _reply_model(ctx, arm.model, requests, adapter, step, steering) as (model, model_facts),
            keep_answers(model, _answers_path(draft.path)),
            keep_replies(model, _batches_path(draft.path), count, watcher),
            watch_worker(model, watcher),
        ):
            generated = [
                reply
                for limit, group in group_by_token_limit(requests)
                for reply in _generate_group(model, group, limit, measures_margin)
            ]
        with draft.file("replies.parquet", mode=0o600) as path:
            write_replies(generated, path)
        draft.note(**model_facts)

    inputs: dict[str, Artifact | str] = {"model": model_identity_hash(arm.model)}
    inputs |= {f"corpus:{request.set_name}": request.corpus.artifact for request in requests}
    if adapter is not None:
        inputs["adapter"] = adapter
    if steering is not None:
        inputs["steering"] = steering
    sets = [request.key for request in in_reply_order(requests)]
    config = {"sets": sets, "step": step, "loading": {} if is_black_box(arm.model) else ctx.loading.cache_key}
    if ctx.engine != LOCAL_ENGINE:
        config["engine"] = ctx.engine
    if measures_margin and any(request.margin for request in requests):
        config["margins"] = [request.margin and request.margin.key for request in in_reply_order(requests)]
    packages = () if is_black_box(arm.model) else MODEL_PACKAGES
    artifact = ctx.store.get_or_make("replies", 4, config, inputs, make, packages=packages)
    _remove_answers(artifact)
    return artifact


def _generate_group(
    model: BlackBoxModel, requests: Sequence[PromptSetRequest], limit: int, measures_margin: bool
) -> list[Reply]:
    """Replies to requests of one token limit, with the refusal margins that they request."""
    from undersong.evaluation.refusal_margin import refusal_margins

    replies = model.generate(request_prompts(requests), limit)
    measured = [request for request in requests if request.margin is not None] if measures_margin else []
    if not measured:
        return replies
    prompts: list[Prompt] = []
    settings: list[MarginSettings] = []
    for request in measured:
        request_settings = request.margin
        assert request_settings is not None
        own = request_prompts([request])
        prompts += own
        settings += [request_settings] * len(own)
    margins = dict(
        zip((prompt.key for prompt in prompts), refusal_margins(cast("AudioModel", model), prompts, settings))
    )
    return [replace(reply, refusal_margin=margins.get(reply.key)) for reply in replies]


def _answers_path(path: Path) -> Path:
    """The answers of a server for an artifact at `path` (or for its draft), until it is whole."""
    return path.with_suffix(ANSWERS_SUFFIX)


def _batches_path(path: Path) -> Path:
    """The replies of a local model for an artifact at `path` (or for its draft), until it is whole."""
    return path.with_suffix(REPLIES_SUFFIX)


def _remove_answers(artifact: Artifact) -> None:
    if artifact.location.exists():  # to a plan it may not
        _answers_path(artifact.location).unlink(missing_ok=True)
        _batches_path(artifact.location).unlink(missing_ok=True)


@contextmanager
def _reply_model(
    ctx: RunContext,
    ref: str,
    requests: Sequence[PromptSetRequest],
    adapter: Artifact | None,
    step: int,
    steering: Artifact | None,
) -> Iterator[tuple[BlackBoxModel, dict[str, Any]]]:
    """Model that replies, and facts about it: a local model with or without an adapter, or a black-box model."""
    if is_black_box(ref):
        yield load_black_box_model(ref), {"model": display_reference(ref)}
        return
    if ctx.engine == VLLM:
        from undersong.models.vllm_engine import VllmModel

        vllm_model = VllmModel(ref, ctx.loading, adapter_step_folder(adapter, step))
        yield vllm_model, vllm_model.facts
        return
    from undersong.models.lora import modules_changed_outside_decoder

    corpora = [request.corpus for request in requests]
    with ctx.model_with_audio(ref, corpora, adapter, step) as model, apply_steering(model, steering):
        changed = {"adapted_outside": modules_changed_outside_decoder(model)} if is_imported(adapter) else {}
        yield model, model.facts | changed


@contextmanager
def apply_steering(model: AudioModel, steering: Artifact | None) -> Iterator[None]:
    """Add the chosen steering vector at its layer inside the context; no effect if none was chosen."""
    from safetensors.numpy import load_file

    from undersong.models.interventions import Intervention, Site, addition, apply_interventions

    vectors = {} if steering is None else load_file(steering.path / "steering.safetensors")
    layer_interventions: dict[Site, Intervention] = {int(layer): addition(vector) for layer, vector in vectors.items()}
    with apply_interventions(model.decoder.layers, layer_interventions):
        yield


def import_adapter(ctx: RunContext, folder: Path) -> Artifact:
    """File a PEFT folder, or a decoder tuned whole, as step 0 of an adapter; the artifact is a link to the folder."""
    from undersong.store.hashing import hash_folder

    def make(draft: Draft) -> None:
        (draft.path / "step-000000").symlink_to(folder.resolve())

    config, inputs = {"folder": str(folder.resolve())}, {"files": hash_folder(folder)}
    return ctx.store.get_or_make(IMPORTED_ADAPTER, 1, config, inputs, make)


def read_exchanges(replies: Artifact, requests: Sequence[PromptSetRequest]) -> list[tuple[Prompt, Reply]]:
    """The replies of an artifact, each with its prompt, in the order of the replies."""
    from undersong.evaluation.replies import join_prompts, read_replies

    return join_prompts(request_prompts(requests), read_replies(replies.path / "replies.parquet"))


def judge_replies(
    ctx: RunContext, replies: Artifact, requests: Sequence[PromptSetRequest], judge: str, refusals: Sequence[str]
) -> Artifact:
    """Artifact with a verdict on every reply.

    Args:
        ctx: The run context.
        replies: The replies.
        requests: Their prompt sets; a set with its own judge is judged by that one.
        judge: Name of the study's judge.
        refusals: Refusal texts of the exact judge.
    """
    from undersong.evaluation.judges.registry import judge_hash

    judges = dict.fromkeys(request.judge or judge for request in requests)

    def make(draft: Draft) -> None:
        from undersong.encoders.batching import watch_worker
        from undersong.evaluation.refusal_margin import with_margins
        from undersong.evaluation.serving.journal import keep_answers
        from undersong.evaluation.verdicts import write_verdicts

        exchanges = read_exchanges(replies, requests)
        judge_by_set = {request.set_name: request.judge or judge for request in requests}
        verdict_by_key: dict[ExchangeKey, Verdict] = {}
        for name in judges:
            judged = [(prompt, reply) for prompt, reply in exchanges if judge_by_set[prompt.set] == name]
            judge_instance = ctx.judge(name, refusals)
            watcher = ctx.watcher(f"{judge_instance.name} judges")
            with keep_answers(judge_instance, _answers_path(draft.path)), watch_worker(judge_instance, watcher):
                verdicts = judge_instance.judge([prompt for prompt, _ in judged], [reply for _, reply in judged])
            verdict_by_key |= {verdict.key: verdict for verdict in verdicts}
        with draft.file("verdicts.parquet") as path:
            replies_in_order = [reply for _, reply in exchanges]
            verdicts = [verdict_by_key[reply.key] for reply in replies_in_order]
            write_verdicts(with_margins(verdicts, replies_in_order), path)

    config = {
        "judge": judge,
        "refusals": list(refusals),
        "sets": [
            [request.set_name, request.modality, request.system, request.judge] for request in in_reply_order(requests)
        ],
    }
    inputs: dict[str, Artifact | str] = {"replies": replies}
    for name in judges:
        if source := judge_hash(name):
            inputs["weights" if name == judge else f"weights:{name}"] = source
    artifact = ctx.store.get_or_make("verdicts", 4, config, inputs, make)
    _remove_answers(artifact)
    return artifact
