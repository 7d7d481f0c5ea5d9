"""Anchors that sample gradients are compared with: gradient matching (He et al., arXiv 2404.01099), and influence on
the refusal margin.

Both compare by the scalar product with the mean of the anchors' vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from undersong.tuning.gradient_features import gradient_vectors
from undersong.types import Embeddings, Prompt, Quarantined, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel


@dataclass(frozen=True)
class GradientSettings:
    """Settings that gradients must share to be comparable.

    Attributes:
        dim: Dimension of the projection; None: no projection.
        rank: Rank of the LoRA.
        alpha: Scale of the LoRA.
        seed: Seed of the LoRA and of the projection.
    """

    dim: int | None = 1024
    rank: int = 8
    alpha: int = 16
    seed: int = 0


DEFAULT_GRADIENT_SETTINGS = GradientSettings()


def influence_anchors(
    model: AudioModel,
    prompts: Sequence[Prompt],
    compliant: Sequence[str],
    refusals: Sequence[str],
    max_tokens: int | None,
    settings: GradientSettings = DEFAULT_GRADIENT_SETTINGS,
) -> Embeddings:
    """Gradient of complying minus gradient of refusing, for each harmful prompt, at full length.

    The refusal margin of a prompt is the loss of complying minus the loss of refusing: the log-odds of the two replies
    per token. One small step of gradient descent on a sample with gradient g lowers the margin by the step size times
    the scalar product of g with this vector. So the mean over the prompts gives each sample's influence on the margin
    of the harm set, to first order (TracIn, arXiv 2002.08484; LESS, arXiv 2402.04333). The length of g counts: a
    sample that teaches more moves the margin more.

    Args:
        model: The model.
        prompts: Harmful prompts.
        compliant: A reply to each that complies.
        refusals: A reply to each that refuses.
        max_tokens: First tokens of each reply that count; None: all.
        settings: Settings of the gradients.

    Returns:
        One vector per prompt. Prompts without a usable gradient on either side are quarantined.
    """
    comply, refuse = (
        _reply_gradients(model, prompts, replies, max_tokens, settings, normalize=False)
        for replies in (compliant, refusals)
    )
    return _differences(comply, [refuse])


def matching_anchors(
    model: AudioModel,
    prompts: Sequence[Prompt],
    compliant: Sequence[str],
    refusals: Sequence[str],
    count: int,
    max_tokens: int | None,
    settings: GradientSettings = DEFAULT_GRADIENT_SETTINGS,
) -> Embeddings:
    """Anchors of gradient matching: harmful replies, minus two sets of safe replies.

    He et al. average the unit gradients of ten harmful anchors (`normalize`, first 10 tokens), score a sample by the
    cosine of its gradient with that average, and subtract its scores by two safe sets: weights 1, -1, -1 in
    `scripts/rank.sh` of princeton-nlp/benign-data-breaks-safety. Here the first safe set holds the model's refusals of
    the harmful anchors, the second its refusals of as many other behaviors. (There, the second set refuses in other
    words.) A reference of few behaviors has a smaller second set, or none.

    Differences from the source: the gradient is that of a LoRA, projected, as for all axes here.

    Args:
        model: The model.
        prompts: Harmful prompts, of which the anchors are taken.
        compliant: A reply to each that complies.
        refusals: A reply to each that refuses.
        count: Number of harmful anchors.
        max_tokens: First tokens of each reply that count; None: all.
        settings: Settings of the gradients.

    Returns:
        One vector per harmful anchor, less the means of the safe sets. The score of a sample is the scalar product of
            its unit gradient with the mean of these.
    """
    rows = spread_rows(prompts)
    harmful_rows, other_rows = rows[:count], rows[count : 2 * count]

    def gradients(replies: Sequence[str], chosen: Sequence[int]) -> Embeddings:
        return _reply_gradients(
            model, [prompts[i] for i in chosen], [replies[i] for i in chosen], max_tokens, settings, normalize=True
        )

    safe_sets = [gradients(refusals, chosen) for chosen in (harmful_rows, other_rows) if chosen]
    return _differences(gradients(compliant, harmful_rows), safe_sets, by_mean=True)


def spread_rows(prompts: Sequence[Prompt]) -> list[int]:
    """One prompt of each behavior, as row numbers: the behaviors in the order of a golden-ratio walk.

    A corpus is often sorted by topic. This order takes behaviors from all over it, whatever number is taken, and draws
    nothing.
    """
    first_rows: dict[str, int] = {}
    for row, prompt in enumerate(prompts):
        first_rows.setdefault(prompt.sample.cluster, row)
    rows = list(first_rows.values())
    golden = (5**0.5 - 1) / 2
    return [rows[i] for i in sorted(range(len(rows)), key=lambda i: (i * golden) % 1)]


def _reply_gradients(
    model: AudioModel,
    prompts: Sequence[Prompt],
    replies: Sequence[str],
    max_tokens: int | None,
    settings: GradientSettings,
    normalize: bool,
) -> Embeddings:
    if not prompts:
        raise UndersongError("There is no harmful prompt to take gradients of; give a reference harm set.")
    return gradient_vectors(
        model,
        prompts,
        replies,
        dim=settings.dim,
        rank=settings.rank,
        alpha=settings.alpha,
        seed=settings.seed,
        normalize=normalize,
        max_tokens=max_tokens,
    )


def _differences(harmful: Embeddings, safe_sets: Sequence[Embeddings], by_mean: bool = False) -> Embeddings:
    """Harmful vectors minus, by id, those of the safe set; or minus the mean of each safe set."""
    lost = {item.id: item for embeddings in (harmful, *safe_sets) for item in embeddings.quarantined}
    kept = [row for row, id in enumerate(harmful.ids) if id not in lost]
    vectors = harmful.vectors[kept].astype(np.float64)
    for safe in safe_sets:
        if by_mean:
            vectors -= safe.vectors.mean(axis=0, dtype=np.float64) if len(safe.ids) else 0.0
        else:
            by_id = dict(zip(safe.ids, safe.vectors))
            vectors -= np.array([by_id[harmful.ids[row]] for row in kept]).reshape(vectors.shape)
    quarantined: tuple[Quarantined, ...] = tuple(lost.values())
    return replace(
        harmful,
        ids=tuple(harmful.ids[row] for row in kept),
        vectors=vectors.astype(np.float32),
        frames=harmful.frames[kept],
        quarantined=quarantined,
    )
