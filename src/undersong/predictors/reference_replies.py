"""The base's own replies to a reference harm set: which refuse, with which words, and with which first tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from undersong.evaluation.judges.rule_based import begins_with_refusal
from undersong.predictors.refusal_score import first_tokens, refusal_tokens
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

MIN_REPLY_TOKENS = 32  # enough to tell a refusal by its opening
MAX_BENIGN_PROMPTS = 64  # benign prompts whose replies are generated to learn how other replies begin


@dataclass(frozen=True)
class BaseReplies:
    """Replies of the base to prompts, and which of them refuse."""

    ids: tuple[str, ...]
    replies: tuple[str, ...]
    refused: tuple[bool, ...]

    @property
    def refusals(self) -> list[str]:
        """A refusal of each prompt: the base's own, or its most common one where it did not refuse.

        Raises:
            UndersongError: The base refused nothing.
        """
        counts = Counter(reply for reply, is_refusal in zip(self.replies, self.refused) if is_refusal)
        if not counts:
            raise UndersongError(
                f"The base refused none of the {len(self.replies)} reference prompts, so it is unknown how it refuses; "
                "give a model that refuses, or leave this axis out."
            )
        most_common = counts.most_common(1)[0][0]
        return [reply if is_refusal else most_common for reply, is_refusal in zip(self.replies, self.refused)]


def generate_base_replies(
    model: AudioModel, prompts: Sequence[Prompt], refusal_texts: Sequence[str] = (), max_tokens: int = MIN_REPLY_TOKENS
) -> BaseReplies:
    """Generate the openings of the base's replies, and classify them.

    Args:
        model: The base.
        prompts: The prompts.
        refusal_texts: All sentences that the model refuses with, as organisms have; empty: refusals are known by their
            opening in English.
        max_tokens: Most new tokens of a reply; not fewer than `MIN_REPLY_TOKENS`.
    """
    limit = max(max_tokens, MIN_REPLY_TOKENS)
    replies = tuple(reply.reply for reply in model.generate(prompts, limit))
    refused = tuple(
        reply.strip() in refusal_texts if refusal_texts else begins_with_refusal(reply) for reply in replies
    )
    return BaseReplies(tuple(prompt.sample.id for prompt in prompts), replies, refused)


def calibrate_refusal_tokens(
    model: AudioModel,
    harmful: Sequence[Prompt],
    refused: Sequence[bool],
    benign: Sequence[Prompt],
    refusal_texts: Sequence[str] = (),
) -> list[int]:
    """First tokens that the base's refusals begin with, and its other replies do not.

    Args:
        model: The base.
        harmful: Prompts of the reference harm set.
        refused: Which of them the base refuses.
        benign: Benign prompts, such as the pool's; up to `MAX_BENIGN_PROMPTS` of them, evenly spaced, are replied to.
        refusal_texts: As in `generate_base_replies`.

    Raises:
        UndersongError: The base refuses nothing or everything, or its first token does not identify a refusal.
    """
    count = min(len(benign), MAX_BENIGN_PROMPTS)
    chosen = [benign[i * len(benign) // count] for i in range(count)]
    benign_replies = generate_base_replies(model, chosen, refusal_texts)
    starts = [*first_tokens(model, harmful), *first_tokens(model, chosen)]
    return refusal_tokens(starts, [*refused, *benign_replies.refused])
