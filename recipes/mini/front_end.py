"""The front end: the tower's top layers, its norm and the projector learn to spell, by CTC over token embeddings.

No language model is in the loop: a frame's point is held beside the embeddings of the tokens that the sentences have,
and of some drawn at random.  Every step's batch and draws follow from the seed and the step's number, so that a killed
training goes on from its last state with the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import ctc_loss

from recipes.mini.encoder_cache import States
from recipes.mini.speech import load_clips
from recipes.mini.spelling import word_error_rates
from recipes.mini.texts import WRITTEN
from recipes.mini.weights import Base, front_state, load_front, save_front
from recipes.mini.work_files import costed, read_figures, same_as_begun, write_figures
from undersong.models.load_options import LoadOptions
from undersong.models.mini.network import MiniForConditionalGeneration
from undersong.store.hashing import hash_file
from undersong.tuning.reproducibility import temporary_seed
from undersong.types import UndersongError

STATE_EVERY = 50  # steps; what a kill may cost


@dataclass(frozen=True)
class FrontRecipe:
    """One training of the front end.  `share` of the sentences that are learned from, drawn by the sentence."""

    steps: int = 3600
    batch: int = 32
    learning_rate: float = 1e-3  # of the projector
    top_rate: float = 5e-4  # of the top layers and the norm
    warmup: int = 100
    clip: float = 5.0
    drawn: int = 1200  # tokens beside those of the batch that a frame is told from
    hidden: int = 10  # longest stretch of positions that is blotted out, twice a clip
    share: float = 1.0
    seed: int = 0
    written: bool = True  # learn from the language model's sentences, too

    @property
    def name(self) -> str:
        """Of its folder and of its figures."""
        return f"front-{self.share:g}-{self.steps}-{self.seed}{'' if self.written else '-public'}"


@dataclass(frozen=True)
class Training:
    """What every step takes; `spelled`: clip -> its sentence, as rows of the projector's table."""

    model: MiniForConditionalGeneration
    optimiser: torch.optim.Optimizer
    recipe: FrontRecipe
    states: States
    spelled: dict[int, list[int]]
    loading: LoadOptions


def run(work: Path, base: Base, recipe: FrontRecipe, loading: LoadOptions) -> Path:
    """`RECIPE/front.safetensors` in half precision, and its word error rates on the development sentences.

    UndersongError: it was begun on other clips or base weights, or it diverged."""
    out = work / recipe.name / "front.safetensors"
    made_of = {"clips": hash_file(work / "clips.jsonl"), "base": base.hashes, "recipe": asdict(recipe)}
    same_as_begun(out.parent, made_of, out.is_file() or (out.parent / "state.pt").is_file())
    clips = load_clips(work)
    states = States(work, len(clips))
    if not out.is_file():
        _train(work, base, recipe, clips, states, loading)
    figures = read_figures(work)[recipe.name]
    if "dev" not in figures:
        with costed(figures):
            model = load_front(base, out, loading.device)
            figures["dev"] = word_error_rates(model, base, clips, states, "dev", loading.device)
        write_figures(work, recipe.name, figures)
        print(
            f"{recipe.name}: " + ", ".join(f"{name} {row['wer']:.3f}" for name, row in figures["dev"].items()),
            flush=True,
        )
    return out


def learned_rows(clips: Sequence[dict[str, Any]], recipe: FrontRecipe) -> list[int]:
    """Clips that are trained on: those of a share of the sentences, the smaller shares inside the larger."""
    clips = [clip if recipe.written or clip["kind"] != WRITTEN else {**clip, "split": ""} for clip in clips]
    names = sorted({clip["text_id"] for clip in clips if clip["split"] == "train"})
    order = np.random.default_rng([recipe.seed, 1]).permutation(len(names))
    kept = {names[i] for i in order[: max(1, round(recipe.share * len(names)))]}
    return [i for i, clip in enumerate(clips) if clip["split"] == "train" and clip["text_id"] in kept]


def _train(
    work: Path,
    base: Base,
    recipe: FrontRecipe,
    clips: Sequence[dict[str, Any]],
    states: States,
    loading: LoadOptions,
) -> None:
    rows = learned_rows(clips, recipe)
    targets = {i: base.target(clips[i]["text"]) for i in rows}
    heard = torch.tensor(sorted({token for ids in targets.values() for token in ids}))
    place = {token: row for row, token in enumerate(heard.tolist())}
    spelled = {i: [place[token] for token in ids] for i, ids in targets.items()}
    with temporary_seed(recipe.seed):
        model = base.network(heard).to(loading.device)
    optimiser = torch.optim.AdamW(_learning(model, recipe), weight_decay=0.01)
    training = Training(model, optimiser, recipe, states, spelled, loading)
    folder = work / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {}
    begin, losses = _resumed(folder, training, figures)
    batches = _batches(rows, states.lengths, recipe)
    for step in range(recipe.steps):
        now = next(batches)
        if step < begin:
            continue
        with costed(figures):
            losses.append(_step(training, step, now))
        if (step + 1) % STATE_EVERY == 0 or step + 1 == recipe.steps:
            _keep(folder, training, step + 1, losses, figures)
            print(
                f"{recipe.name}: step {step + 1} of {recipe.steps}, loss {np.mean(losses[-STATE_EVERY:]):.3f}",
                flush=True,
            )
    sentences = len({clips[i]["text_id"] for i in rows})
    covered = [t in place for c in clips if c["split"] == "dev" for t in base.target(c["text"])]
    write_figures(
        work,
        recipe.name,
        {
            **figures,
            "recipe": asdict(recipe),
            "dtype": loading.dtype,
            "clips": len(rows),
            "sentences": sentences,
            "epochs": round(recipe.steps * recipe.batch / len(rows), 2),
            "tokens": len(heard),
            "dev_tokens_heard": round(float(np.mean(covered)), 4) if covered else None,
            "loss_first": round(float(np.mean(losses[:20])), 3),
            "loss_last": round(float(np.mean(losses[-50:])), 3),
        },
    )
    save_front(model, folder / "front.safetensors")
    (folder / "state.pt").unlink(missing_ok=True)


def _learning(model: MiniForConditionalGeneration, recipe: FrontRecipe) -> list[dict[str, Any]]:
    tower, projector = model.model.audio_tower, model.model.multi_modal_projector
    projector.blank.data.copy_(model.get_input_embeddings().weight.mean(0))
    top = [*tower.layers[-tower.num_learned_layers :].parameters(), *tower.layer_norm.parameters()]
    groups = [(list(projector.parameters()), recipe.learning_rate), (top, recipe.top_rate)]
    for parameters, _ in groups:
        for parameter in parameters:
            parameter.requires_grad_(True)
    return [{"params": parameters, "lr": rate, "base": rate} for parameters, rate in groups]


def _batches(rows: Sequence[int], lengths: Sequence[int], recipe: FrontRecipe) -> Iterator[list[int]]:
    """Whole shuffles one after another, in batches of about one length."""
    size, wide = recipe.batch, 20 * recipe.batch
    epoch = 0
    while True:
        rng = np.random.default_rng([recipe.seed, 2, epoch])
        order = [rows[i] for i in rng.permutation(len(rows))]
        sorted_ones = [sorted(order[i : i + wide], key=lambda j: lengths[j]) for i in range(0, len(order), wide)]
        made = [part[i : i + size] for part in sorted_ones for i in range(0, len(part), size)]
        yield from (made[i] for i in rng.permutation(len(made)))
        epoch += 1


def _step(training: Training, step: int, rows: Sequence[int]) -> float:
    model, optimiser, recipe = training.model, training.optimiser, training.recipe
    spelled, device, dtype = training.spelled, training.loading.device, training.loading.dtype
    rng = np.random.default_rng([recipe.seed, 3, step])
    factor = min(1.0, (step + 1) / recipe.warmup) * max(0.03, 1 - step / recipe.steps)
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * factor
    below, positions = training.states.batch(rows, device)
    for row, length in zip(below, positions.tolist()):
        for _ in range(2):
            wide = int(rng.integers(0, recipe.hidden + 1))
            begin = int(rng.integers(0, max(1, length - wide)))
            row[begin : begin + wide] = 0
    tower, projector = model.model.audio_tower, model.model.multi_modal_projector
    kind = torch.device(device).type
    with torch.autocast(kind, getattr(torch, dtype), enabled=dtype != "float32"):  # the top layers are most of a step
        frames = tower.forward_learned_layers(below, positions)
    frames = frames.float()
    total = len(projector.table)
    own = {token for i in rows for token in spelled[i]}
    drawn = rng.choice(total, min(recipe.drawn, total), replace=False).tolist()
    columns = sorted(own | set(drawn))
    place = {token: column + 1 for column, token in enumerate(columns)}
    odds = projector.token_logits(frames, torch.tensor(columns, device=device))
    loss = ctc_loss(
        odds.log_softmax(-1).transpose(0, 1),
        torch.tensor([place[token] for i in rows for token in spelled[i]]),
        positions.cpu() // 2,
        torch.tensor([len(spelled[i]) for i in rows]),
        zero_infinity=True,
    )
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], recipe.clip)
    optimiser.step()
    if not math.isfinite(loss.item()):
        raise UndersongError(f"The front end diverged at step {step}; lower the learning rates.")
    return loss.item()


# --- going on after a kill ----------------------------------------------------------------------------------------------
def _keep(folder: Path, training: Training, step: int, losses: list[float], figures: dict[str, Any]) -> None:
    state = {
        "step": step, "losses": losses, "figures": figures,
        "front": front_state(training.model), "optimiser": training.optimiser.state_dict(),
    }  # fmt: skip
    part = folder / "state.part"
    torch.save(state, part)
    part.rename(folder / "state.pt")


def _resumed(folder: Path, training: Training, figures: dict[str, Any]) -> tuple[int, list[float]]:
    """The step to go on at and the losses so far; model and optimiser as they were then."""
    if not (folder / "state.pt").is_file():
        return 0, []
    state = torch.load(folder / "state.pt", weights_only=True)
    own = training.model.state_dict()
    for name, value in state["front"].items():
        own[name].copy_(value)
    training.optimiser.load_state_dict(state["optimiser"])
    figures |= state["figures"]
    return state["step"], state["losses"]
