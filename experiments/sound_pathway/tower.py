"""The continuous ear: the Whisper encoder of the class, trained once by character CTC, as the semantic ear was.

Both audio encoders are the same and frozen in all bases of all variants, so what differs is what carries their sound into the
language model.  Unlike them, as in base training elsewhere, it hears every combination.  Knows nothing of language models.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from recipes.organisms import kimi
from recipes.organisms.batches import Corpus
from recipes.organisms.training import CHARACTERS, ctc_loss, set_rate

STEPS, BATCH, RATE, WARMUP, NOISE, SEED = 1000, 32, 2e-3, 100, 0.05, 0


def train_tower(corpus: Corpus, steps: int = STEPS, log=print):
    """-> the encoder, in float16 as it is saved."""
    tower = kimi.build(corpus.vocabulary, SEED).audio_tower
    head = torch.nn.Linear(tower.config.d_model, len(CHARACTERS) + 1)
    learn = [parameter for parameter in (*tower.parameters(), *head.parameters()) if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learn, lr=RATE, weight_decay=0.01, betas=(0.9, 0.98))
    rng, everything = random.Random(f"tower {SEED}"), range(len(corpus.requests))
    torch.manual_seed(SEED)
    for step in range(steps):
        cosine = 0.485 * (1 + math.cos(math.pi * step / steps)) + 0.03
        set_rate(optimiser, RATE * min(1, (step + 1) / WARMUP) * cosine)
        rows = rng.sample(everything, BATCH)
        mel = corpus.mel[rows].float()
        states = tower(mel + NOISE * torch.randn_like(mel)).last_hidden_state
        loss = ctc_loss(corpus, head, states, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learn, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 100 == 99:
            log(f"tower step {step + 1} ctc {loss.item():.3f}", flush=True)
    return tower.eval().half()


def tower_weights(corpus: Corpus, work: Path) -> dict[str, torch.Tensor]:
    """Its state dict, from the work folder or trained into it."""
    file = work / f"{corpus.world.name}-tower.safetensors"
    if not file.is_file():
        save_file({name: value.contiguous() for name, value in train_tower(corpus).state_dict().items()}, file)
    return {name: value.float() for name, value in load_file(file).items()}


def tower_states(corpus: Corpus, weights: dict[str, torch.Tensor], work: Path, size: int = 128) -> torch.Tensor:
    """What it says of every clip of the world, once: (clips, states, dim) float16."""
    file = work / f"{corpus.world.name}-states.npy"
    if not file.is_file():
        tower = kimi.build(corpus.vocabulary, SEED).audio_tower
        tower.load_state_dict(weights)
        tower.eval()
        with torch.inference_mode():
            parts = [tower(mel.float()).last_hidden_state.half() for mel in corpus.mel.split(size)]
        np.save(file, torch.cat(parts).numpy())
    return torch.from_numpy(np.load(file))
