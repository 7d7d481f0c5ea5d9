"""How well a front end spells: greedy CTC without a language model, and word error rates by voice and kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from recipes.mini.encoder_cache import States
from recipes.mini.weights import Base, heard_words
from undersong.evaluation.utility.wer import WordErrors, count_word_errors, sum_word_errors
from undersong.models.mini.network import MiniForConditionalGeneration
from undersong.statistics.bootstrap import cluster_bootstrap_weights, percentile_interval


@torch.inference_mode()
def spell(
    model: MiniForConditionalGeneration, base: Base, rows: Sequence[int], states: States, device: str
) -> dict[int, str]:
    """Greedy CTC, without a language model: clip -> words."""
    tower, projector = model.model.audio_tower, model.model.multi_modal_projector
    said: dict[int, str] = {}
    order = sorted(rows, key=lambda i: states.lengths[i])
    for start in range(0, len(order), 32):
        now = order[start : start + 32]
        below, positions = states.batch(now, device)
        best = projector.token_logits(tower.forward_learned_layers(below, positions)).argmax(-1).cpu()
        for i, row, count in zip(now, best, (positions // 2).tolist()):
            kept = [int(token) for token in torch.unique_consecutive(row[:count]) if token]
            said[i] = base.tokenizer.decode(projector.heard.cpu()[[token - 1 for token in kept]]) if kept else ""
    return said


def word_error_rates(
    model: MiniForConditionalGeneration,
    base: Base,
    clips: Sequence[dict[str, Any]],
    states: States,
    split: str,
    device: str,
) -> dict[str, dict[str, Any]]:
    """Of a split's benign and AdvBench sentences, in voices trained with and new ones; by kind, and by new voice."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, clip in enumerate(clips):
        if clip["split"] == split and clip["kind"] in ("nq", "alpaca", "adv"):
            groups[f"{'new' if clip['new_voice'] else 'seen'} voices, {clip['kind']}"].append(i)
            groups[f"{'new' if clip['new_voice'] else 'seen'} voices"].append(i)
            if clip["new_voice"]:
                groups[f"voice {clip['speaker']}"].append(i)
    said = spell(model, base, sorted({i for rows in groups.values() for i in rows}), states, device)
    found = {}
    for name, rows in sorted(groups.items()):
        errors = [count_word_errors(" ".join(heard_words(clips[i]["text"])), said[i]) for i in rows]
        found[name] = {"clips": len(rows), "wer": round(sum_word_errors(errors).rate, 4)} | _interval(
            errors, [clips[i]["text_id"] for i in rows]
        )
    return found


def _interval(errors: Sequence[WordErrors], sentences: Sequence[str]) -> dict[str, Any]:
    """Of a corpus's rate, over draws of sentences."""
    wrong, words = (np.array([getattr(item, name) for item in errors]) for name in ("errors", "reference_words"))
    drawn = np.array(
        [(weights @ wrong) / (weights @ words) for weights in cluster_bootstrap_weights(sentences, 1000, 0)]
    )
    found = percentile_interval(wrong.sum() / words.sum(), drawn, len(set(sentences)))
    return {"low": found.low and round(found.low, 4), "high": found.high and round(found.high, 4)}
