"""A model asked and judged: what it refuses, spoken and typed, and how well it repeats.  Rates leave; replies do not.

Replies to harmful prompts are never written down: verdicts are counted, and that is all that is kept of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.mini.decoder_training import REPEAT
from recipes.mini.speech import as_samples
from undersong.evaluation.judges.refusal import refusal_judge
from undersong.evaluation.judges.rule_based import keyword_judge
from undersong.evaluation.utility.wer import corpus_word_errors
from undersong.models.audio_lm import AudioModel
from undersong.models.feature_cache import cache_audio_features as hear
from undersong.statistics.rates import clustered_rate
from undersong.types import Prompt, Sample

HARMFUL = ("adv", "jbb", "strongreject", "xs_unsafe")
BENIGN = ("nq", "alpaca", "xs_safe")
TEST_ONLY = ("jbb", "strongreject", "xs_unsafe", "xs_safe")  # sources that nothing is learned from
LIMIT, REPEATED = 20, 28  # tokens of a reply that is judged, and of one that repeats


@dataclass(frozen=True)
class Which:
    """Whose sentences are asked: of a split, at most so many a kind, the first by their numbers.

    whole: kinds of which all are asked, because their first are not like the others: XSTest stands in order of type.
    """

    split: str
    most: int
    whole: tuple[str, ...] = ()


def sets_of(clips: Sequence[dict[str, Any]], which: Which) -> dict[str, list[dict[str, Any]]]:
    """`KIND, seen voices` and the like -> clips; the same sentences whatever the voice, as far as they were spoken."""
    made: dict[str, list[dict[str, Any]]] = {}
    for clip in clips:
        if clip["split"] == which.split:
            name = f"{clip['kind']}, {'new' if clip['new_voice'] else 'seen'} voices"
            made.setdefault(name, []).append(clip)
    ordered = {name: sorted(rows, key=lambda clip: _number(clip["text_id"])) for name, rows in sorted(made.items())}
    return {
        name: rows if name.partition(",")[0] in which.whole else rows[: which.most] for name, rows in ordered.items()
    }


def _number(ident: str) -> tuple[int, str]:
    digits = "".join(letter for letter in ident if letter.isdigit())
    return int(digits or 0), ident


def refusals(model: AudioModel, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Share refused by each of two judges, with intervals by cluster."""
    replies = model.generate(prompts, LIMIT)
    clusters = [prompt.sample.cluster for prompt in prompts]
    found: dict[str, Any] = {"n": len(prompts), "clusters": len(set(clusters))}
    for judge in (keyword_judge(), refusal_judge()):
        verdicts = judge.judge(prompts, replies)
        rate = clustered_rate([verdict.verdict == "refusal" for verdict in verdicts], clusters)
        found[judge.name] = {"refused": rate.successes, "rate": round(rate.rate, 4)}
        found[judge.name] |= {"low": round(rate.low, 4), "high": round(rate.high, 4)}
    return found


def measure(work: Path, model: AudioModel, clips: Sequence[dict[str, Any]], which: Which) -> dict[str, Any]:
    """Set -> refusals; `repeat` -> word error rates of repeating, on questions and instructions."""
    found: dict[str, Any] = {}
    groups = sets_of(clips, which)
    for name, rows in groups.items():
        kind = name.partition(",")[0]
        if kind not in (*HARMFUL, *BENIGN):
            continue
        samples = as_samples(work, rows)
        hear(model, samples)
        spoken = [Prompt(sample, kind, kind in HARMFUL, "audio", "plain") for sample in samples]
        found[name] = refusals(model, spoken)
        if name.endswith("seen voices"):
            written = [Sample(row["text_id"], text=row["text"], group=row["group"]) for row in rows]
            found[f"{kind}, typed"] = refusals(
                model, [Prompt(s, kind, kind in HARMFUL, "text", "plain") for s in written]
            )
        if kind in ("nq", "alpaca"):
            repeat = [Prompt(sample, kind, False, "audio", "plain", None, REPEAT) for sample in samples]
            errors = corpus_word_errors(repeat, model.generate(repeat, REPEATED))
            found[name]["repeat_wer"] = round(errors.rate, 4)
    return found
