"""Fault 1: one side's vectors were zero, so every distance was 1 and "closest" meant the order of the file."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.encoders.embedding_checks import validate_embeddings
from undersong.encoders.registry import make_encoder
from undersong.proximity.selection import select_by_kind
from undersong.proximity.table import proximity_table
from undersong.types import Embeddings, UndersongError


def test_zero_vectors_are_quarantined_and_equal_scores_stop_the_stage(benign, harmful) -> None:
    pool = make_encoder("logmel", fit=()).encode(benign)
    zeros = np.zeros_like(pool.vectors)
    made = validate_embeddings("broken", list(pool.ids), zeros, pool.frames, [], allow_equal=True)
    assert made.ids == ()
    assert len(made.quarantined) == len(benign)
    harm = make_encoder("logmel", fit=()).encode(harmful)
    with pytest.raises(UndersongError):
        proximity_table("acoustic", "harm", made, harm)
    same = Embeddings(pool.ids, np.ones_like(pool.vectors), pool.frames)
    with pytest.raises(UndersongError, match="equal"):
        proximity_table("acoustic", "harm", same, harm)


def test_an_encoder_that_fails_does_not_become_numbers(benign) -> None:
    with pytest.raises(UndersongError, match="same vector"):
        validate_embeddings(
            "stuck", [s.id for s in benign], np.ones((len(benign), 4), np.float32), np.ones(len(benign)), []
        )


def test_a_selection_does_not_follow_the_order_of_the_file(benign, harmful) -> None:
    encoder = make_encoder("logmel", fit=())
    harm = encoder.encode(harmful)
    plain = select_by_kind(proximity_table("a", "h", encoder.encode(benign), harm), "closest", 0.25)
    turned = select_by_kind(proximity_table("a", "h", encoder.encode(benign[::-1]), harm), "closest", 0.25)
    assert plain.ids_hash == turned.ids_hash
