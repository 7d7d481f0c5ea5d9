"""How far a corpus lies from a harm set, as an artefact.  Knows vectors on disk; not where they came from."""

from __future__ import annotations

from typing import Any

from undersong.pipeline.stages.heard import hearable
from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.store import Artefact, Draft


def proximity(
    shop: Workshop,
    axis: str,
    pool: Artefact,
    harm: Artefact,
    harm_set: str,
    settings: dict[str, Any],
    corpus: Corpus,
    heard: Artefact | None,
) -> Artefact:
    """Distances of every pool sample to the reference harm set, raw and centred.

    What the model cannot hear (`heard`, of the pool `corpus`) is left out of every axis: all rank the same pool, and an
    arm must not be given a clip that it cannot be trained on.
    """

    def make(draft: Draft) -> None:
        import pyarrow.parquet as pq

        from undersong.encoders.vectors import read_embeddings, without
        from undersong.proximity import proximity_table

        unheard = hearable(corpus, heard)[1]
        vectors = without(read_embeddings(pool.checked().path), unheard)
        table = proximity_table(axis, harm_set, vectors, read_embeddings(harm.checked().path), **settings)
        pq.write_table(table, draft.path / "proximity.parquet")

    config = {"axis": axis, "harm_set": harm_set, **settings}
    inputs: Inputs = {"pool": pool, "harm": harm} | ({} if heard is None else {"heard": heard})
    return shop.store.get_or_make("proximity", 2, config, inputs, make, packages=("numpy",))
