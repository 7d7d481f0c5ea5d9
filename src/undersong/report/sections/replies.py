"""Requests with the replies before and after tuning; replies to harmful prompts are redacted by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from undersong.pages import formatting
from undersong.pages.audio_players import AudioPlayer
from undersong.report.summary import arm_summaries, base_runs
from undersong.results.schema import ReplyExample, Results

BEFORE = "before tuning"


@dataclass(frozen=True, slots=True)
class ExampleReply:
    """Reply of one run: `place` describes its arm and seed, and its model if there are several."""

    place: str
    verdict: str
    reply: str | None  # None: redacted, or not in the results
    redacted: bool


@dataclass(frozen=True, slots=True)
class RequestReplies:
    """A request, and its replies before and after tuning; no player where its audio is not in the page."""

    prompt_id: str
    text: str
    place: str  # its prompt set, modality and system prompt
    player: AudioPlayer | None
    replies: tuple[ExampleReply, ...]


@dataclass(frozen=True, slots=True)
class ReplyExamples:
    """Requests to read and to hear, and the number of redacted replies."""

    harmful: tuple[RequestReplies, ...]
    benign: tuple[RequestReplies, ...]
    redacted: int


def build_reply_examples(
    results: Results, show_replies: bool, players: Mapping[str, AudioPlayer] = {}
) -> ReplyExamples | None:
    """Group the example replies by request and model, the base's first; None if the results hold none.

    Replies to benign prompts are always shown; those to harmful prompts only with `show_replies`.

    Args:
        results: The results.
        show_replies: True to show replies to harmful prompts.
        players: Players by prompt id.
    """
    if not results.examples:
        return None
    rows = [row for run in results.runs for row in run.rates]
    benign_sets = {row.prompt_set for row in rows if not row.harmful} - {row.prompt_set for row in rows if row.harmful}
    arms = arm_summaries(results)
    labels = {run.arm: BEFORE for run in base_runs(results)} | {arm.name: arm.short_label for arm in arms}
    order = {name: number for number, name in enumerate(labels)}
    models = list(dict.fromkeys(example.model for example in results.examples))
    groups: dict[tuple[str, str, str, str], list[ReplyExample]] = {}
    for example in results.examples:
        key = example.prompt_set, example.modality, example.system, example.prompt_id
        groups.setdefault(key, []).append(example)
    requests = [
        (
            prompt_set in benign_sets,
            RequestReplies(
                prompt_id=prompt_id,
                text=examples[0].prompt_text or "",
                place=f"{prompt_set} · {formatting.modality_label(modality)} · “{system}”",
                player=players.get(prompt_id),
                replies=tuple(
                    _reply(example, labels, prompt_set in benign_sets or show_replies)
                    for example in sorted(
                        examples, key=lambda example: (models.index(example.model), order.get(example.arm, len(order)))
                    )
                ),
            ),
        )
        for (prompt_set, modality, system, prompt_id), examples in groups.items()
    ]
    return ReplyExamples(
        harmful=tuple(request for is_benign, request in requests if not is_benign),
        benign=tuple(request for is_benign, request in requests if is_benign),
        redacted=sum(reply.redacted for _, request in requests for reply in request.replies),
    )


def _reply(example: ReplyExample, labels: Mapping[str, str], show_reply: bool) -> ExampleReply:
    parts = [example.model] if example.model is not None else []
    parts += [labels.get(example.arm, example.arm)]
    parts += [f"seed {example.seed}"] if example.seed is not None else []
    return ExampleReply(
        place=", ".join(parts),
        verdict=example.verdict,
        reply=example.reply if show_reply else None,
        redacted=not show_reply or example.reply is None,
    )
