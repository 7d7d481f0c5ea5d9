"""Requests of the data among the ordinary ones: data that are compared with themselves never have more nearer ones."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.corpora.training_file import TrainingFile
from undersong.encoders.word_distances import split_words
from undersong.phrases import count
from undersong.screening.check.requests import RequestText, has_words, is_measured_by_words
from undersong.types import UndersongError

MAX_OVERLAP = 0.5  # share of the data's requests that may be ordinary ones


def overlap_notes(data: TrainingFile, ordinary: Sequence[RequestText], ref: str) -> list[str]:
    """A note on the requests of the data that stand word for word among the ordinary ones, if any do.

    What is typed beside a clip without a transcript does not count, because many clips share it.

    Args:
        data: The data.
        ordinary: The ordinary requests.
        ref: Their corpus.

    Raises:
        UndersongError: More than half of them do, so the data would be compared with themselves.
    """
    known = {_words(item.text) for item in ordinary}
    texts = [
        text for sample in data.samples if is_measured_by_words(sample) for text in sample.requests if has_words(text)
    ]
    shared = sum(_words(text) in known for text in texts)
    if not shared:
        return []
    subject = f"{shared:,} of {count(len(texts), 'request')} {'stands' if shared == 1 else 'stand'} word for word in"
    if shared > MAX_OVERLAP * len(texts):
        raise UndersongError(
            f"{data.ref} would be compared with itself, because {subject} {ref}; name other ordinary requests with "
            "--ordinary."
        )
    verb = "is" if shared == 1 else "are"
    return [f"{subject} {ref}, so {verb} compared with {'itself' if shared == 1 else 'themselves'}."]


def _words(text: str) -> tuple[str, ...]:
    return tuple(split_words(text))
