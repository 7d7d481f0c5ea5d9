"""Rehearsal of a check: a short training on the data, and on as many ordinary samples, and what each takes from the
refusal margin of the harm set."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.phrases import count
from undersong.screening.check.inputs import CheckInputs
from undersong.screening.check.request_sets import RequestSet, drawn_set
from undersong.screening.check.result import RehearsalCheck
from undersong.screening.check.sample_axes import SampleAxes
from undersong.settings.defaults import BATCH_SIZE
from undersong.stages.predictors import known_refusal_texts
from undersong.stages.rehearsal import RehearsalStage, check_compliant_answers
from undersong.stages.rehearsal_cost import RehearsalCost, progress_line, rehearsal_cost
from undersong.types import MAX_SEED, UndersongError

if TYPE_CHECKING:
    from undersong.predictors.rehearsal import Rehearsal

MAX_PROMPTS = 64  # harmful requests whose margin is measured after each training


def check_harmful_answers(inputs: CheckInputs) -> None:
    """Check before anything is measured that each harmful request of the rehearsal can have a refusal margin.

    Raises:
        UndersongError: The model's refusals are known word for word, and a harmful request has no compliant answer.
    """
    request = inputs.request
    assert request.model is not None, "checked before"
    if not known_refusal_texts(request.model):  # and nothing has to be read
        return
    harm = drawn_set(inputs.references[0], MAX_PROMPTS, request.seed)
    prompts = [(item.id, sample) for item, sample in zip(harm.requests, harm.samples, strict=True)]
    check_compliant_answers(prompts, " and ".join(request.harm_refs), request.model)


@dataclass(frozen=True)
class PlannedRehearsals:
    """Rehearsals of a check that are still to be done or looked up.

    Attributes:
        stages: Rehearsals on the data, and on ordinary samples if these have replies, by role.
        draws: Ids of each training by role and seed.
        size: Samples of each training.
        seeds: Training seeds.
    """

    stages: Mapping[str, RehearsalStage]
    draws: Mapping[tuple[str, int], list[str]]
    size: int
    seeds: Sequence[int]

    def cost(self, store: str | None) -> RehearsalCost:
        """Cost of the trainings that the store does not have.

        Args:
            store: Folder of the store that is kept, for messages; None if nothing is kept.
        """
        missing = sum(not self.stages[role].is_stored(ids, seed) for (role, seed), ids in self.draws.items())
        return rehearsal_cost(self.stages["data"], len(self.draws), missing, store)


def planned_rehearsals(axes: SampleAxes) -> PlannedRehearsals:
    """Rehearsals with the samples of each training: random ones of the data, and as many ordinary ones.

    There is one for each seed. Each training takes at most the samples that its steps need, another draw for each seed.

    Args:
        axes: The data and the references.

    Raises:
        UndersongError: The data have no replies to train on, or fewer than a training step takes.
    """
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
    seeds = [(request.seed + number) % (MAX_SEED + 1) for number in range(request.rehearse_seeds)]
    stages, draws = dict[str, RehearsalStage](), dict[tuple[str, int], list[str]]()
    for role in roles:
        stages[role] = RehearsalStage(
            axes.ctx, request.model, axes.settings(), recipe, request.rehearse, pools[role], reference
        )
        lost = {item.id for item in stages[role].unencoded()}
        ids = [id for id in usable[role] if id not in lost]
        draws |= {(role, seed): _draw(ids, size, seed) for seed in seeds}
    return PlannedRehearsals(stages, draws, size, seeds)


def rehearse_data(axes: SampleAxes) -> RehearsalCheck:
    """Train on random samples of the data, and on as many ordinary ones, once for each seed; nothing is trained twice.

    The interval of the difference, over requests and seeds, covers that ordinary data vary, because each seed has its
    own draw.

    Args:
        axes: The data and the references.

    Raises:
        UndersongError: As `planned_rehearsals`.
    """
    from undersong.predictors.rehearsal import compliance_change, mean_margin_loss

    planned = planned_rehearsals(axes)
    stage = planned.stages["data"]
    estimate = planned.cost(None).estimate
    axes.ctx.announce(
        f"Rehearsal: {len(planned.draws)} trainings of {stage.steps} steps by {stage.model} on "
        f"{planned.size:,} samples each, and {len(stage.reference.samples):,} harmful requests after each"
        f"{f'; {estimate}' if estimate else ''}."
    )
    runs: dict[str, list[Rehearsal]] = {}
    start = time.monotonic()
    for done, ((role, seed), ids) in enumerate(planned.draws.items(), start=1):
        runs.setdefault(role, []).append(planned.stages[role].rehearse(ids, seed))
        seconds = time.monotonic() - start
        axes.ctx.announce(progress_line(f"{role}, seed {seed}", done, len(planned.draws), seconds))
    before, is_compared = np.array(runs["data"][0].before), "ordinary" in runs
    return RehearsalCheck(
        model=stage.model,
        steps=stage.steps,
        learning_rate=stage.recipe.learning_rate,
        seeds=len(planned.seeds),
        samples=planned.size,
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
