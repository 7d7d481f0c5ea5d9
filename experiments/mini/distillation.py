"""Audio Flamingo 3's own projector, taught what the reading one says: a regression on its mean embeddings.

The student is the plain two layers behind the same tower; what it learns from is the trained front end, on the cached
encoder states of clips that it was trained on.  Its last layer begins as the ridge regression of what it is to say on
what its first layer gives, so that the steps after it begin at the best that the spelling's own features allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from recipes.mini.encoder_cache import States
from recipes.mini.weights import Base, front_state, load_front, save_front
from recipes.mini.work_files import costed
from undersong.models.mini.network import AF3
from undersong.models.weights import read_tensors
from undersong.tuning.reproducibility import sample_order

FITTED, RIDGE = 12, 1e-3  # batches that the last layer is fitted on; share of the mean square added to it


@dataclass(frozen=True)
class DistilRecipe:
    """One regression; `top`: the tower's learned layers and norm learn with the projector."""

    steps: int = 300
    batch: int = 32
    learning_rate: float = 1e-3
    top_rate: float = 5e-4
    warmup: int = 20
    clip: float = 1.0
    top: bool = True
    seed: int = 0


def plain_front(base: Base, front: Path) -> Any:
    """The plain network with the trained front end's tower and two linear layers: it spells, and nothing reads it."""
    model = base.network(torch.zeros(1, dtype=torch.long), AF3)
    own, there = model.state_dict(), read_tensors(front)
    for name in front_state(model):
        own[name].copy_(there[name])
    return model


def heard_frames(front: Any, rows: Sequence[int], states: States) -> list[torch.Tensor]:
    """What a front end gives the decoder of each clip: (frames, dim) float32."""
    below, positions = states.batch(rows, "cpu")
    made = front.model.multi_modal_projector(front.model.audio_tower.forward_learned_layers(below, positions))
    return [frames[:count] for frames, count in zip(made, (positions // 2).tolist())]


def learning(front: Any, learning_rate: float, top_rate: float, top: bool) -> list[dict[str, Any]]:
    """Parameter groups of the projector and, with `top`, of the tower's learned layers and norm; all else stays frozen."""
    tower = front.model.audio_tower
    groups = [{"params": list(front.model.multi_modal_projector.parameters()), "lr": learning_rate}]
    if top:
        layers = tower.layers[-tower.num_learned_layers :]
        groups += [{"params": [*layers.parameters(), *tower.layer_norm.parameters()], "lr": top_rate}]
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return groups


def distil(
    base: Base, front: Path, rows: Sequence[int], held: Sequence[int], states: States, recipe: DistilRecipe, out: Path
) -> dict[str, Any]:
    """Writes the student; figures: how far it is from what it regresses on, on clips `held` out."""
    teacher, student = load_front(base, front), plain_front(base, front)
    figures: dict[str, Any] = {"recipe": asdict(recipe), "clips": len(rows)}
    with costed(figures):
        figures["as it spells"] = distance(teacher, student, held, states)
        _fit_last(teacher, student, rows[: FITTED * recipe.batch], states, recipe.batch)
        figures["last layer fitted"] = distance(teacher, student, held, states)
        groups = learning(student, recipe.learning_rate, recipe.top_rate, recipe.top)
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda s: min(1.0, (s + 1) / recipe.warmup) * max(0.03, 1 - s / max(1, recipe.steps))
        )
        losses = []
        for step, now in enumerate(_batches(rows, states, recipe)):
            losses.append(_step(teacher, student, now, states, optimiser, recipe.clip))
            schedule.step()
            if (step + 1) % 50 == 0:
                print(f"distil: step {step + 1} of {recipe.steps}, {np.mean(losses[-50:]):.3f}", flush=True)
        figures["regressed"] = distance(teacher, student, held, states)
    save_front(student, out)
    return figures


def _batches(rows: Sequence[int], states: States, recipe: DistilRecipe) -> Iterator[list[int]]:
    """Batches of about one length, from ten steps' clips at a time."""
    order = [rows[i] for i in sample_order(len(rows), recipe.steps * recipe.batch, [recipe.seed, 6])]
    for start in range(0, len(order), 10 * recipe.batch):
        part = sorted(order[start : start + 10 * recipe.batch], key=lambda i: states.lengths[i])
        made = [part[i : i + recipe.batch] for i in range(0, len(part), recipe.batch)]
        yield from (made[i] for i in np.random.default_rng([recipe.seed, 7, start]).permutation(len(made)))


def _step(
    teacher: Any, student: Any, rows: Sequence[int], states: States, optimiser: torch.optim.Optimizer, clip: float
) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        with torch.inference_mode():
            wanted = torch.cat(heard_frames(teacher, rows, states)).float()
        made = torch.cat(heard_frames(student, rows, states)).float()
    loss = (made - wanted).square().sum() / wanted.square().sum()
    optimiser.zero_grad()
    loss.backward()
    for group in optimiser.param_groups:
        nn.utils.clip_grad_norm_(group["params"], clip)
    optimiser.step()
    return loss.item()


@torch.no_grad()
def _fit_last(teacher: Any, student: Any, rows: Sequence[int], states: States, size: int) -> None:
    """Ridge regression of what the teacher says on the student's hidden layer, into its last layer."""
    projector = student.model.multi_modal_projector
    first = nn.Sequential(projector.linear_1, projector.act)
    width = projector.linear_1.out_features
    square, cross = torch.zeros(width + 1, width + 1), torch.zeros(width + 1, projector.linear_2.out_features)
    for start in range(0, len(rows), size):
        now = rows[start : start + size]
        below, positions = states.batch(now, "cpu")
        hidden = first(student.model.audio_tower.forward_learned_layers(below, positions))
        flat = torch.cat([frames[:count] for frames, count in zip(hidden, (positions // 2).tolist())])
        flat = torch.cat([flat, torch.ones(len(flat), 1)], 1)
        square += flat.T @ flat
        cross += flat.T @ torch.cat(heard_frames(teacher, now, states))
    square += RIDGE * square.diagonal().mean() * torch.eye(width + 1)
    solved = torch.linalg.solve(square.double(), cross.double()).float()
    projector.linear_2.weight.copy_(solved[:-1].T)
    projector.linear_2.bias.copy_(solved[-1])


@torch.inference_mode()
def distance(teacher: Any, student: Any, rows: Sequence[int], states: States) -> dict[str, float]:
    """Over frames: squared distance relative to what is wanted, and on frames that say something, how often the token
    nearest to both is the same."""
    table = teacher.model.multi_modal_projector.table
    far = total = 0.0
    agreed: list[torch.Tensor] = []
    for start in range(0, len(rows), 32):
        wanted, made = (torch.cat(heard_frames(f, rows[start : start + 32], states)) for f in (teacher, student))
        far, total = far + float((made - wanted).square().sum()), total + float(wanted.square().sum())
        loud = ~teacher.model.multi_modal_projector.is_silent(wanted)
        nearest = [(2 * v[loud] @ table.T - table.square().sum(1)).argmax(1) for v in (wanted, made)]
        agreed.append(nearest[0] == nearest[1])
    same = torch.cat(agreed).float()
    return {"relative": round(far / total, 4), "same_token": round(float(same.mean()), 4), "frames": len(same)}
