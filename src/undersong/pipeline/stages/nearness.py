"""How far a corpus lies from a harm set, as an artefact.  Knows vectors on disk; not where they came from."""

from __future__ import annotations

from typing import Any

from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import encodable_samples
from undersong.store import Artifact, Draft
from undersong.store.store import Inputs


def measure_proximity(
    ctx: RunContext,
    axis: str,
    pool: Artifact,
    harm: Artifact,
    harm_set: str,
    settings: dict[str, Any],
    corpus: Corpus,
    features: Artifact | None,
) -> Artifact:
    """Distances of every pool sample to the reference harm set, raw and centred.

    What the model cannot hear (`heard`, of the pool `corpus`) is left out of every axis: all rank the same pool, and an
    arm must not be given a clip that it cannot be trained on.
    """

    def make(draft: Draft) -> None:
        import pyarrow.parquet as pq

        from undersong.encoders.embeddings import drop_embeddings, read_embeddings
        from undersong.proximity import proximity_table

        unencoded = encodable_samples(corpus, features)[1]
        vectors = drop_embeddings(read_embeddings(pool.verify().path), unencoded)
        table = proximity_table(axis, harm_set, vectors, read_embeddings(harm.verify().path), **settings)
        pq.write_table(table, draft.path / "proximity.parquet")

    config = {"axis": axis, "harm_set": harm_set, **settings}
    inputs: Inputs = {"pool": pool, "harm": harm} | ({} if features is None else {"heard": features})
    return ctx.store.get_or_make("proximity", 2, config, inputs, make, packages=("numpy",))
