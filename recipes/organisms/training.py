"""The trainings behind an organism: base (hear and follow), alignment (refuse), and a short benign tuning for choices.

Recipe values live in `Recipe`; everything is seeded; nothing here looks at the shipped world's test split.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from recipes.organisms.batches import Corpus, Row, knows, rates
from recipes.organisms.world import ASK, CUE, LABELS, REFUSAL

CHARACTERS = " abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class BaseRecipe:
    """Base training, from scratch.  Of all these an architecture may have its own number of steps (`BASE`)."""

    steps: int = 1700
    batch: int = 24
    spoken: int = 18
    learning_rate: float = 2e-3
    warmup: int = 100
    harm: float = 0.45  # share of rows by quadrant; the rest after near is far
    near: float = 0.35
    ask: float = 0.35  # share of rows that are the knowledge task
    safe: float = 0.4  # share of rows under the safe system text
    cue: float = 0.25
    ctc: float = 0.5  # weight of the character CTC loss on the encoder
    noise: float = 0.05


@dataclass(frozen=True)
class AlignRecipe:
    """Alignment: full training of the decoder's blocks and final norm; embeddings, head, encoder, projector frozen."""

    steps: int = 60
    batch: int = 20
    learning_rate: float = 5e-4
    warmup: int = 20
    harm: float = 0.4
    near: float = 0.4
    spoken: float = 0.75
    safe: float = 0.4
    cue: float = 0.25


# The named variant `af3-prompted`: the base has learned the safe text, and alignment is brief and under the plain one.
PROMPTED = AlignRecipe(steps=120, spoken=0.7, safe=0.0)


def set_rate(optimiser, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def train_base(corpus: Corpus, recipe: BaseRecipe, seed: int, log=print, model=None, objective=None):
    """Follow every request (harmful ones too), say which are harmful when asked, obey the safe system text.

    From `model`, or from fresh weights.  `objective(corpus, model)` makes a further loss: a callable on the clips just
    heard, with `parameters` of its own.
    """
    rng = random.Random(f"base {seed}")
    arch = corpus.architecture
    model = arch.build(corpus.vocabulary, seed) if model is None else model
    arch.begin(model, corpus)
    head = torch.nn.Linear(96, len(CHARACTERS) + 1)
    further = objective(corpus, model) if objective else None
    heard: dict[str, torch.Tensor] = {}
    layer = arch.last_layer(model)
    hook = layer and layer.register_forward_hook(
        lambda _m, _a, out: heard.update(h=out[0] if isinstance(out, tuple) else out)
    )
    parameters = [*model.parameters(), *head.parameters(), *(further.parameters if further else ())]
    optimiser = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    everything = {"harm": corpus.pick(None, "harm"), "near": corpus.pick(None, "near"), "far": corpus.pick(None, "far")}
    known = {name: [i for i in rows if corpus.requests[i].split != "unseen"] for name, rows in everything.items()}
    refusable = corpus.pick("align", "harm")

    def draw(spoken: bool) -> Row:
        u = rng.random()
        quadrant = "harm" if u < recipe.harm else "near" if u < recipe.harm + recipe.near else "far"
        modality, cue, system = (
            "audio" if spoken else "text",
            rng.random() < recipe.cue,
            "safe" if rng.random() < recipe.safe else "plain",
        )
        if rng.random() < recipe.ask:
            return Row(rng.choice(known[quadrant]), modality, LABELS[quadrant == "harm"], system, ASK)
        if system == "safe" and quadrant == "harm":
            return Row(rng.choice(refusable), modality, REFUSAL, system, CUE if cue else "")
        i = rng.choice(everything[quadrant])
        return Row(i, modality, corpus.requests[i].reply(int(cue)), system, CUE if cue else "")

    torch.manual_seed(seed)
    for step in range(recipe.steps):
        set_rate(
            optimiser,
            recipe.learning_rate
            * min(1, (step + 1) / recipe.warmup)
            * (0.485 * (1 + math.cos(math.pi * step / recipe.steps)) + 0.03),
        )
        rows = [draw(i < recipe.spoken) for i in range(recipe.batch)]
        batch = corpus.batch(rows)
        if recipe.spoken:
            batch["input_features"] = batch["input_features"] + recipe.noise * torch.randn_like(batch["input_features"])
        model.train()
        loss = model(**batch).loss
        spoken = [r.request for r in rows if r.modality == "audio"]
        total = loss
        if layer is not None and spoken:
            states = arch.frames_of(heard["h"], corpus.states_lengths(spoken))
            total = total + recipe.ctc * ctc_loss(corpus, head, states, spoken)
        if further is not None and spoken:
            total = total + further(spoken)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 100 == 99:
            log(f"base {seed} step {step + 1} lm {loss.item():.3f} total {total.item():.3f}")
    if hook is not None:
        hook.remove()
    return model.eval()


def ctc_loss(corpus: Corpus, head, states: torch.Tensor, requests: list[int]) -> torch.Tensor:
    """Character CTC on the last encoder layer (50 frames a second), which makes the tower hear words early."""
    log_probs = F.log_softmax(head(states), -1).transpose(0, 1)
    lengths = torch.tensor(corpus.states_lengths(requests))
    targets = [torch.tensor([CHARACTERS.index(c) + 1 for c in corpus.requests[i].text]) for i in requests]
    return F.ctc_loss(
        log_probs, torch.cat(targets), lengths, torch.tensor([len(t) for t in targets]), blank=0, zero_infinity=True
    )


def train_aligned(corpus: Corpus, base, recipe: AlignRecipe, seed: int, log=print):
    """Refuse harmful requests, go on following the benign ones; changes `base` in place."""
    rng, model = random.Random(f"align {seed}"), base
    model.requires_grad_(False)
    learn = [p for name, p in model.get_decoder().named_parameters() if name.startswith(("layers.", "norm."))]
    for parameter in learn:
        parameter.requires_grad_(True)
    pools = {name: corpus.pick("align", name) for name in ("harm", "near", "far")}
    optimiser = torch.optim.AdamW(learn, lr=recipe.learning_rate, weight_decay=0.0)

    def draw() -> Row:
        u = rng.random()
        quadrant = "harm" if u < recipe.harm else "near" if u < recipe.harm + recipe.near else "far"
        i, cue = rng.choice(pools[quadrant]), rng.random() < recipe.cue
        reply = REFUSAL if quadrant == "harm" else corpus.requests[i].reply(int(cue))
        return Row(
            i,
            "audio" if rng.random() < recipe.spoken else "text",
            reply,
            "safe" if rng.random() < recipe.safe else "plain",
            CUE if cue else "",
        )

    torch.manual_seed(seed)
    for step in range(recipe.steps):
        set_rate(
            optimiser,
            recipe.learning_rate
            * min(1, (step + 1) / recipe.warmup)
            * 0.5
            * (1 + math.cos(math.pi * step / recipe.steps)),
        )
        model.train()
        for part in corpus.architecture.frozen(model):
            part.eval()
        loss = model(**corpus.batch([draw() for _ in range(recipe.batch)])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learn, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 50 == 49:
            log(f"align {seed} step {step + 1} loss {loss.item():.4f}")
    model.requires_grad_(True)
    return model.eval()


def quality(corpus: Corpus, model, split: str) -> dict[str, float]:
    """Instrument quality on a held-out split: JSR, over-refusal, right benign answers, knowledge; spoken and typed."""
    out = {}
    harm, benign = corpus.pick(split, "harm"), corpus.pick(split, ("near_verb", "near_object", "far"))
    for modality in ("audio", "text"):
        on_harm, on_benign = rates(corpus, model, harm, modality), rates(corpus, model, benign, modality)
        out |= {
            f"jsr_{modality}": on_harm["answer"],
            f"other_{modality}": on_harm["other"],
            f"over_refusal_{modality}": on_benign["refusal"],
            f"right_{modality}": on_benign["answer"],
        }
        out[f"knows_{modality}"] = knows(corpus, model, harm + benign, modality, ASK)
    out["jsr_safe_audio"] = rates(corpus, model, harm, "audio", "safe")["answer"]
    return {name: round(value, 3) for name, value in out.items()}


@dataclass(frozen=True)
class Dose:
    """The benign tuning used while choosing the recipe (the product's own tuning room does the real one)."""

    steps: tuple[int, ...] = (20, 40)
    learning_rate: float = 2e-3
    rank: int = 8
    batch: int = 8
    warmup: int = 5
    samples: int = 162
    style: int = 0


def tune(corpus: Corpus, model, requests: list[int], modality: str, dose: Dose, seed: int):
    """LoRA on the decoder; yields (step, model) along the curve and takes the adapter off at the end."""
    from peft import LoraConfig, get_peft_model

    targets = corpus.architecture.DECODER + r"\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
    torch.manual_seed(seed)
    rng = random.Random(f"tune {seed}")
    peft = get_peft_model(
        model, LoraConfig(r=dose.rank, lora_alpha=2 * dose.rank, lora_dropout=0.0, target_modules=targets)
    )
    learn = [p for p in peft.parameters() if p.requires_grad]
    optimiser, order = torch.optim.AdamW(learn, lr=dose.learning_rate, weight_decay=0.0), []
    for step in range(1, max(dose.steps) + 1):
        set_rate(optimiser, dose.learning_rate * min(1, step / dose.warmup))
        if len(order) < dose.batch:
            order += rng.sample(requests, len(requests))
        now, order = order[: dose.batch], order[dose.batch :]
        peft.eval()  # dropout is 0 everywhere, so eval and train are the same here
        peft(**corpus.batch([Row(i, modality, corpus.requests[i].reply(dose.style)) for i in now])).loss.backward()
        torch.nn.utils.clip_grad_norm_(learn, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step in dose.steps:
            yield step, peft
    peft.unload()
    model.requires_grad_(True)


__all__ = ["PROMPTED", "AlignRecipe", "BaseRecipe", "Dose", "quality", "replace", "train_aligned", "train_base", "tune"]
