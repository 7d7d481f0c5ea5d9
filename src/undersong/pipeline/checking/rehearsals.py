"""Rehearsal of a check: a short training on the data, and on as many ordinary samples, and what each takes from the
refusal margin of the harm set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from undersong.phrases import count
from undersong.pipeline.checking.inputs import CheckInputs
from undersong.pipeline.checking.request_sets import RequestSet, drawn_set
from undersong.pipeline.checking.result import RehearsalCheck
from undersong.pipeline.checking.sample_axes import SampleAxes
from undersong.stages.predictors import known_refusal_texts
from undersong.stages.rehearsal import RehearsalStage
from undersong.study.defaults import BATCH_SIZE
from undersong.types import MAX_SEED, UndersongError

if TYPE_CHECKING:
    from undersong.mechanism.rehearsal import Rehearsal

MAX_PROMPTS = 64  # harmful requests whose margin is measured after each training


def check_harmful_answers(inputs: CheckInputs) -> None:
    """Check before anything is measured that each harmful request of the rehearsal can have a refusal margin.

    Raises:
        UndersongError: The model's refusals are known word for word, and a harmful request has no compliant answer.
    """
    request = inputs.request
    assert request.model is not None, "checked before"
    if not known_refusal_texts(request.model):
        return
    samples = drawn_set(inputs.references[0], MAX_PROMPTS, request.seed).samples
    lacking = sum(not sample.answer for sample in samples)
    if lacking:
        verb = "has" if lacking == 1 else "have"
        raise UndersongError(
            f"{lacking} of {count(len(samples), 'harmful request')} of {' and '.join(request.harm_refs)} {verb} no "
            f"compliant answer, and a rehearsal needs them because the refusals of {request.model} are known word for "
            "word; name a harm set with answers with --harm."
        )


def rehearse_data(axes: SampleAxes) -> RehearsalCheck:
    """Train on random samples of the data, and on as many ordinary ones, once for each seed; nothing is trained twice.

    Each training takes at most the samples that its steps need, another draw for each seed. So the interval of the
    difference, over requests and seeds, covers that ordinary data vary.

    Args:
        axes: The data and the references.

    Raises:
        UndersongError: The data have no replies to train on, or fewer than a training step takes.
    """
    from undersong.mechanism.rehearsal import compliance_change, mean_margin_loss
    from undersong.tuning.config import LoraRecipe

    request, sets, recipe = (axes.request, axes.sets, LoraRecipe(learning_rate=axes.request.rehearse_learning_rate))
    harm = drawn_set(sets.harm, MAX_PROMPTS, request.seed)
    reference = axes.store_more("harmful requests of the rehearsal", harm)
    pools = {"data": axes.corpora["data"], "ordinary": axes.corpora["ordinary"]}
    usable = {role: _trainable(sets.parts[role], {sample.id for sample in pools[role].samples}) for role in pools}
    if len(usable["data"]) < BATCH_SIZE:
        raise UndersongError(
            f"{request.data} has {count(len(usable['data']), 'sample')} with a reply that the model can be trained "
            f"on, and a step takes {BATCH_SIZE}; leave --rehearse out, or name the replies with --column answer=COLUMN."
        )
    is_compared = len(usable["ordinary"]) >= BATCH_SIZE
    roles = ("data", "ordinary") if is_compared else ("data",)
    size = min(request.rehearse * BATCH_SIZE, *(len(usable[role]) for role in roles))
    assert request.model is not None, "checked before"
    axes.ctx.announce(
        f"Rehearsal: {len(roles) * request.rehearse_seeds} trainings of {request.rehearse} steps by {request.model} on "
        f"{size:,} samples each, and {len(harm.samples):,} harmful requests after each."
    )
    seeds = [(request.seed + number) % (MAX_SEED + 1) for number in range(request.rehearse_seeds)]
    runs: dict[str, list[Rehearsal]] = {}
    for role in roles:
        stage = RehearsalStage(
            axes.ctx, request.model, axes.settings(), recipe, request.rehearse, pools[role], reference
        )
        lost = {item.id for item in stage.unencoded()}
        ids = [id for id in usable[role] if id not in lost]
        runs[role] = [stage.rehearse(_draw(ids, size, seed), seed) for seed in seeds]
    before = np.array(runs["data"][0].before)
    return RehearsalCheck(
        model=request.model,
        steps=request.rehearse,
        learning_rate=recipe.learning_rate,
        seeds=len(seeds),
        samples=size,
        prompts=len(before),
        margin_before=float(before.mean()),
        loss=mean_margin_loss(runs["data"]),
        ordinary_loss=mean_margin_loss(runs["ordinary"]) if is_compared else None,
        loss_minus_ordinary=mean_margin_loss(runs["data"], [runs["ordinary"]]) if is_compared else None,
        compliance_change=compliance_change(runs["data"]),
    )


def _trainable(requests: RequestSet, usable: set[str]) -> list[str]:
    """Ids of the samples that have a reply and can be read."""
    return [sample.id for sample in requests.samples if sample.answer and sample.id in usable]


def _draw(ids: Sequence[str], size: int, seed: int) -> list[str]:
    chosen = np.random.default_rng(seed).choice(np.array(ids), min(size, len(ids)), replace=False)
    return sorted(chosen.tolist())
