"""Refusal margin: its sign is the judge's verdict on organisms, and its parts are probabilities of disjoint events."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.corpora.registry import open_corpus
from undersong.evaluation import refusal_margin
from undersong.evaluation.rates import set_rates
from undersong.evaluation.refusal_margin import (
    MarginSettings,
    distinct_starts,
    prompt_starts,
    refusal_margins,
    with_margins,
)
from undersong.evaluation.replies import read_replies, write_replies
from undersong.evaluation.verdicts import read_verdicts, write_verdicts
from undersong.models.audio_lm import AudioModel
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.models.reply_starts import shared_paths
from undersong.types import Prompt, Reply, Sample, Verdict

REFUSAL = "i cannot help with that"
SAMPLE = Sample("a", text="how", answers=("sure here is how", "okay the way"))


@pytest.fixture(scope="module")
def organism() -> AudioModel:
    return load_model("organism:af3")


def prompts_of(model: AudioModel, corpus: str, count: int) -> list[Prompt]:
    samples = list(open_corpus(f"organism:{corpus}").samples)[:count]
    cache_audio_features(model, samples)
    return [
        Prompt(sample, corpus, True, modality, "plain", "you are a helpful assistant")
        for sample in samples
        for modality in ("audio", "text")
    ]


def test_the_sign_is_the_verdict_of_the_exact_judge(organism: AudioModel) -> None:
    prompts = prompts_of(organism, "test-harm", 20) + prompts_of(organism, "test-near", 20)
    margins = refusal_margins(organism, prompts, MarginSettings((REFUSAL,)))
    refused = [reply.reply == REFUSAL for reply in organism.generate(prompts, 12)]
    assert 0 < sum(refused) < len(refused)
    assert [margin > 0 for margin in margins if margin is not None] == refused


def test_english_openers_are_no_words_of_an_organism(organism: AudioModel) -> None:
    """`<pad>` stands for a word that an organism does not know, and its probability would mean nothing."""
    assert refusal_margins(organism, prompts_of(organism, "test-harm", 1), MarginSettings()) == [None, None]


def test_settings_may_differ_by_prompt(organism: AudioModel) -> None:
    prompts = prompts_of(organism, "test-harm", 2)
    known = MarginSettings((REFUSAL,))
    every = refusal_margins(organism, prompts, known)
    mixed = refusal_margins(organism, prompts, [known, MarginSettings()] * 2)
    assert mixed[1] is mixed[3] is None
    # Other prompts share the batch, so sums are rounded in another order: 5.37538998 and 5.37539046 on two processors.
    assert [mixed[0], mixed[2]] == pytest.approx([every[0], every[2]], rel=1e-5, abs=1e-5)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=12))
def test_shared_paths_lead_to_every_last_token_and_none_begins_another(sequences: list[list[int]]) -> None:
    paths = shared_paths(sequences)
    for sequence in sequences:
        assert len(sequence) == 1 or any(list(path[: len(sequence) - 1]) == sequence[:-1] for path in paths)
    assert all(any(list(path) == sequence[:-1] for sequence in sequences) for path in paths)
    assert not any(a is not b and b[: len(a)] == a for a in paths for b in paths)


@given(st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=8))
def test_distinct_starts_are_free_of_prefixes_and_lose_no_reply(sequences: list[list[int]]) -> None:
    starts = distinct_starts(sequences)
    assert not any(a != b and b[: len(a)] == a for a in starts for b in starts)
    for sequence in filter(None, sequences):
        assert any(tuple(sequence[: len(start)]) == start for start in starts)
    assert all(list(start) in sequences for start in starts)


def words(text: str) -> list[int]:
    return [sum(word.encode()) for word in text.split()][: refusal_margin.START_TOKENS]


def test_known_replies_and_openers_define_the_sides() -> None:
    prompt = Prompt(SAMPLE, "harm", True, "text", "plain")
    refusals, compliant = prompt_starts(prompt, MarginSettings((REFUSAL,)), words) or ([], [])
    assert refusals == [tuple(words(REFUSAL))]
    assert sorted(compliant) == sorted(tuple(words(text)) for text in SAMPLE.answers)
    assert prompt_starts(prompt, MarginSettings(), words) is not None


@pytest.mark.parametrize("answers", [(), ("i cannot help with that at all",)])
def test_without_a_compliant_reply_or_with_one_that_begins_as_a_refusal_there_is_none(answers: tuple[str, ...]) -> None:
    prompt = Prompt(Sample("a", text="how", answers=answers), "harm", True, "text", "plain")
    assert prompt_starts(prompt, MarginSettings((REFUSAL,)), words) is None


def test_the_openers_of_both_sides_begin_differently() -> None:
    for refusal in refusal_margin.REFUSAL_OPENERS:
        assert not any(
            refusal.startswith(opener) or opener.startswith(refusal) for opener in refusal_margin.COMPLIANCE_OPENERS
        )


def verdicts(margins: list[float | None]) -> list[Verdict]:
    rows = [
        Verdict(f"p{i}", "harm", True, f"c{i // 2}", "text", "plain", "exact", "refusal") for i in range(len(margins))
    ]
    replies = [Reply(f"p{i}", "harm", "text", "plain", "no", 1, "stop", None, m) for i, m in enumerate(margins)]
    return with_margins(rows, replies[::-1])


def test_a_rate_has_the_mean_margin_with_an_interval_over_clusters() -> None:
    (rate,) = set_rates(verdicts([1.0, 1.0, 2.0, 2.0, 6.0, 6.0]), {})
    assert rate.refusal_margin == pytest.approx(3)
    # each cluster is one value: t interval of 1, 2, 6
    half = 4.302652729911275 * math.sqrt(7) / math.sqrt(3)
    assert rate.refusal_margin_low == pytest.approx(3 - half)
    assert rate.refusal_margin_high == pytest.approx(3 + half)


def test_a_margin_that_one_prompt_lacks_is_not_a_mean_of_the_others() -> None:
    (rate,) = set_rates(verdicts([1.0, None, 2.0]), {})
    assert (rate.refusal_margin, rate.refusal_margin_low) == (None, None)


def test_tables_keep_margins(tmp_path: Path) -> None:
    rows = verdicts([0.5, None])
    write_verdicts(rows, tmp_path / "verdicts.parquet")
    assert read_verdicts(tmp_path / "verdicts.parquet") == rows
    replies = [Reply("p", "harm", "text", "plain", "no", 1, "stop", None, -1.25)]
    write_replies(replies, tmp_path / "replies.parquet")
    assert read_replies(tmp_path / "replies.parquet") == replies
