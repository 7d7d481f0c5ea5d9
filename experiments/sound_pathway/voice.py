"""Voice at the projector: an objective that asks for it or against it, and the probe that shows what came of it.

Both objectives teach the projector alone; the tower before it is taught by what it has to hear.  Keep: a linear head
names the voice from the mean of a clip's projected frames.  Discard: two adversaries read these means.  The linear one
is solved for at every step, by ridge regression on the clips heard last, and the share of voice that it explains is the
loss: at 0 the voices' means are equal and no linear probe can tell them (Belrose et al. 2023, arXiv 2306.03819).  The
other has a hidden layer and learns along; the projector learns to leave it undecided (the confusion loss of Tzeng et
al. 2015, arXiv 1510.02192).  The probe is another one, fitted afterwards on other clips.  Knows tensors; does not know
studies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from experiments.sound_pathway.variants import DISCARD, KEEP

VOICES = "ABCDEF"
HIDDEN, HELD, BATCH, ROUNDS, RATE, RIDGE = 128, 1536, 128, 2, 5e-3, 0.1  # of the adversaries
WEIGHT = {KEEP: 0.5, DISCARD: 0.03}


def clip_means(packed: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """(tokens of all clips one after another, dim) -> (clips, dim)."""
    return torch.stack([part.mean(0) for part in packed.split(list(lengths))])


def decoder_hears(corpus, model, requests: list[int], size: int = 96) -> np.ndarray:
    """(clips, dim): the mean of what the decoder gets at a clip's placeholders."""
    out = []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(requests), size):
            some = requests[start : start + size]
            sound = model.fuse(*model.encode_audio(**corpus.architecture.sound(corpus, some)))
            out.append(clip_means(sound, tokens_of(corpus, some)))
    return torch.cat(out).numpy()


def tokens_of(corpus, requests: list[int]) -> list[int]:
    return [corpus.architecture.audio_tokens(int(corpus.frames[i])) for i in requests]


class VoiceObjective:
    """Added to base training's loss; `parameters` learn with the model, and all of it is thrown away afterwards."""

    def __init__(self, corpus, model, wanted: str, seed: int, weight: float | None = None) -> None:
        dim = model.config.hidden_size
        self.generator = torch.Generator().manual_seed(seed)  # the model's own draws must not depend on any of this
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = torch.nn.Linear(dim, len(VOICES))
            self.curved = torch.nn.Sequential(
                torch.nn.Linear(dim, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, len(VOICES))
            )
        self.wanted, self.weight = wanted, WEIGHT[wanted] if weight is None else weight
        self.parameters = list(self.linear.parameters()) if wanted == KEEP else []
        self.optimiser = torch.optim.AdamW(self.curved.parameters(), lr=RATE, weight_decay=0.01)
        self.remembered, self.remembered_voice = torch.zeros(0, dim), torch.zeros(0, dtype=torch.long)
        self.corpus, self.projector = corpus, model.model.vq_adaptor
        self.seen: dict[str, torch.Tensor] = {}
        self.voice = torch.tensor([VOICES.index(r.voice) for r in corpus.requests])
        self.hook = self.projector.register_forward_pre_hook(
            lambda _module, inputs: self.seen.update(states=inputs[0].detach())
        )

    def __call__(self, requests: list[int]) -> torch.Tensor:
        """The loss on the clips that the model has just heard."""
        projected = self.projector.layers(self.seen.pop("states"))
        means, named = clip_means(projected, tokens_of(self.corpus, requests)), self.voice[requests]
        if self.wanted == KEEP:
            return self.weight * F.cross_entropy(self.linear(means), named)
        self._remember(means, named)
        self._learn()
        undecided = -self.curved(self._scaled(means)).log_softmax(-1).mean()
        # Only the clips just heard pass a gradient on, so it is scaled to what it would be if all did.
        linear = explained(self.remembered, self.remembered_voice) * len(self.remembered) / len(means)
        self.remembered = self.remembered.detach()
        return self.weight * (linear + undecided)

    def _remember(self, means: torch.Tensor, named: torch.Tensor) -> None:
        self.remembered = torch.cat([self.remembered, means])[-HELD:]
        self.remembered_voice = torch.cat([self.remembered_voice, named])[-HELD:]

    def _learn(self) -> None:
        """The curved adversary's own steps; what the confusion loss left in its gradients is dropped."""
        for _ in range(ROUNDS):
            some = torch.randint(len(self.remembered), (BATCH,), generator=self.generator)
            means, named = self._scaled(self.remembered[some].detach()), self.remembered_voice[some]
            self.optimiser.zero_grad()
            F.cross_entropy(self.curved(means), named).backward()
            self.optimiser.step()

    def _scaled(self, means: torch.Tensor) -> torch.Tensor:
        """By the clips remembered: what is small is not gone."""
        known = self.remembered.detach()
        return (means - known.mean(0)) / (known.std(0, correction=0) + 1e-3)


def explained(vectors: torch.Tensor, voices: torch.Tensor) -> torch.Tensor:
    """Share of the voices' variance (one column each) that a ridge regression on `vectors` (clips, dim) explains."""
    wanted = F.one_hot(voices, len(VOICES)).to(vectors.dtype)
    wanted, given = wanted - wanted.mean(0), vectors - vectors.mean(0)
    scatter = given.T @ given
    ridge = RIDGE * scatter.diagonal().mean() + 1e-6
    fitted = torch.linalg.solve(scatter + ridge * torch.eye(len(scatter)), given.T @ wanted)
    return (wanted * (given @ fitted)).sum() / wanted.square().sum().clamp_min(1e-6)


def probe_voice(
    fitted: np.ndarray, voices: Sequence[str], held_out: np.ndarray, held_out_voices: Sequence[str]
) -> dict[str, float]:
    """Share of held-out clips whose voice a probe names: `linear` (logistic regression) and `curved` (RBF kernel).

    `fitted` (clips, dim), `held_out` (clips, dim), standardized by the fitted clips.  Chance is 1 / voices.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    probes = {"linear": LogisticRegression(C=10.0, max_iter=2000), "curved": SVC(C=10.0)}
    return {
        name: float(make_pipeline(StandardScaler(), one).fit(fitted, voices).score(held_out, held_out_voices))
        for name, one in probes.items()
    }


def voice_facts(corpus, model) -> dict[str, float]:
    """The probe, fitted on the combinations of alignment and scored on those held out to accept a base."""
    every = ("harm", "near_verb", "near_object", "far")
    sides = corpus.pick("align", every)[::2], corpus.pick("accept", every)
    vectors = [decoder_hears(corpus, model, side) for side in sides]
    named = [[corpus.requests[i].voice for i in side] for side in sides]
    found = probe_voice(vectors[0], named[0], vectors[1], named[1])
    return {f"voice_{name}": round(value, 3) for name, value in found.items()}
