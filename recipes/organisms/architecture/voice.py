"""Voice at the projector: an objective that asks for it or against it, and the probe that shows what came of it.

Keep: a linear head names the voice from the mean of a clip's projected frames, and projector and tower learn with it.
Discard: adversaries do (Ganin and Lempitsky 2015, arXiv 1409.7495): heads learn to name the voice, and the gradient that
reaches the projector is turned round.  The probe is another one, fitted afterwards on other clips.  Knows tensors; does
not know studies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from variants import DISCARD, KEEP

VOICES = "ABCDEF"
HIDDEN = 128
WEIGHT = {KEEP: 0.5, DISCARD: 1.0}


class Reversed(torch.autograd.Function):
    """Identity whose gradient is multiplied by -weight."""

    @staticmethod
    def forward(context, values: torch.Tensor, weight: float) -> torch.Tensor:
        context.weight = weight
        return values.view_as(values)

    @staticmethod
    def backward(context, gradient: torch.Tensor):
        return -context.weight * gradient, None


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
            sound = model.fuse(*model.hear(**corpus.architecture.sound(corpus, some)))
            out.append(clip_means(sound, tokens_of(corpus, some)))
    return torch.cat(out).numpy()


def tokens_of(corpus, requests: list[int]) -> list[int]:
    return [corpus.architecture.audio_tokens(int(corpus.frames[i])) for i in requests]


class VoiceObjective:
    """Added to base training's loss; `parameters` learn with the model and are thrown away."""

    def __init__(self, corpus, model, wanted: str, seed: int, weight: float | None = None) -> None:
        dim = model.config.hidden_size
        generator_state = torch.get_rng_state()  # the model's own draws must not depend on this
        torch.manual_seed(seed)
        self.linear = torch.nn.Linear(dim, len(VOICES))
        self.curved = torch.nn.Sequential(
            torch.nn.Linear(dim, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, len(VOICES))
        )
        torch.set_rng_state(generator_state)
        self.scale = torch.nn.BatchNorm1d(dim, affine=False)  # small is not gone
        self.wanted, self.weight = wanted, WEIGHT[wanted] if weight is None else weight
        self.corpus, self.seen = corpus, {}
        self.voice = torch.tensor([VOICES.index(r.voice) for r in corpus.requests])
        self.hook = model.model.vq_adaptor.register_forward_hook(
            lambda _module, _inputs, output: self.seen.update(projected=output)
        )

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return [*self.linear.parameters(), *self.curved.parameters()]

    def __call__(self, requests: list[int]) -> torch.Tensor:
        """The loss on the clips that the model has just heard."""
        means, named = clip_means(self.seen.pop("projected"), tokens_of(self.corpus, requests)), self.voice[requests]
        if self.wanted == KEEP:
            return self.weight * F.cross_entropy(self.linear(means), named)
        turned = self.scale(Reversed.apply(means, self.weight))
        return F.cross_entropy(self.linear(turned), named) + F.cross_entropy(self.curved(turned), named)


def probe_voice(
    fitted: np.ndarray, voices: Sequence[str], held_out: np.ndarray, held_out_voices: Sequence[str]
) -> dict[str, float]:
    """Share of held-out clips whose voice a probe names: `linear` (logistic regression) and `curved` (RBF kernel).

    `fitted` (clips, dim), `held_out` (clips, dim), standardised by the fitted clips.  Chance is 1 / voices.
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
