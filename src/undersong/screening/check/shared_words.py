"""Whether the words of the data are those of the references; if not, no distance by words means anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from undersong.encoders.word_distances import split_words

# Least mean share of a request's words that the references have. docs/how-to/check.md has what was measured for English
# and for other languages.
MIN_SHARED = 0.5
MIN_REQUESTS = 2  # that have a word: English references quote some other languages, mostly once
LANGUAGE_HINT = (
    "name --harm and --ordinary in the language of the data, or add --axis meaning=text:ID with a multilingual model"
)


def shared_word_share(texts: Sequence[str], references: Sequence[str]) -> float:
    """Mean over texts of the share of their words that at least two references have; 0 for a text without words."""
    frequencies = Counter(word for text in references for word in set(split_words(text)))
    shares = dict[str, float]()
    for text in texts:
        if text not in shares:
            words = split_words(text)
            shares[text] = sum(frequencies[word] >= MIN_REQUESTS for word in words) / len(words) if words else 0.0
    return sum(shares[text] for text in texts) / len(texts)


def language_obstacle(texts: Sequence[str], references: Sequence[str]) -> str | None:
    """Why words cannot compare the data; None if they can.

    Args:
        texts: Requests of the data, at least one.
        references: Harmful and ordinary requests.
    """
    share = shared_word_share(texts, references)
    if share >= MIN_SHARED:
        return None
    return (
        f"the words of the data are not those of the references ({100 * share:.0f} % of a request's words, on average, "
        "are in two of them), perhaps because of another language"
    )
