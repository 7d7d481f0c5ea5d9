"""The corpora of a screening as they are read: manifests of any form, or ready embeddings, without a common item.

Knows corpora and files of vectors; does not know axes' distances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from undersong.types import Embeddings, Quarantined, Sample, UndersongError

READY = "embeddings"  # the encoder of embeddings that are already there


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two corpora: its usable manifest items (none for ready embeddings) and what was left out before."""

    samples: tuple[Sample, ...] = ()
    rows: tuple[Sample, ...] = ()  # the same and more, as the manifest has them
    quarantined: tuple[Quarantined, ...] = ()
    ready: Embeddings | None = None

    def texts(self) -> dict[str, str]:
        return {sample.id: sample.text for sample in self.samples if sample.text}


def read_sides(
    pool: str,
    harm: str,
    axes: Mapping[str, str] | None,
    max_quarantined: float,
    columns: Mapping[str, str] | None,
    harm_columns: Mapping[str, str] | None,
) -> tuple[Side, Side]:
    """Both sides, of one form and without a common item."""
    from undersong.corpora import refuse_shared_items
    from undersong.encoders import check_encoder
    from undersong.encoders.options import parse_encoder
    from undersong.encoders.vectors import holds_embeddings
    from undersong.proximity import check_quarantine

    forms = {not _named(side) and holds_embeddings(side) for side in (pool, harm)}
    if len(forms) > 1:
        raise UndersongError(f"{pool} and {harm} are of two forms; give two manifests, or embeddings for both.")
    if forms == {True}:
        return _read_ready(Path(pool), Path(harm))
    for encoder in (axes or {}).values():
        if encoder != READY:
            check_encoder(encoder)  # before any audio is decoded
    heard = axes is None or any(encoder != READY and parse_encoder(encoder).hears for encoder in axes.values())
    sides = read_side(pool, heard, columns), read_side(harm, heard, harm_columns)
    total = len(sides[0].samples) + len(sides[0].quarantined)
    check_quarantine("as it is", sides[0].quarantined, total, sides[1].quarantined, max_quarantined)
    refuse_shared_items(sides[0].samples, sides[1].samples)
    return sides


def _read_ready(pool: Path, harm: Path) -> tuple[Side, Side]:
    from undersong.encoders.vectors import read_embeddings

    sides = Side(ready=read_embeddings(pool)), Side(ready=read_embeddings(harm))
    ids = [{*side.ready.ids, *(item.id for item in side.ready.quarantined)} for side in sides if side.ready]
    if shared := sorted(ids[0] & ids[1]):
        raise UndersongError(
            f"The pool and the harm set overlap in {len(shared)} ids, the first {shared[0]!r}; remove the items from "
            "one side, or give different items different ids."
        )
    return sides


def _named(side: str) -> bool:
    """Whether a corpus is called by a name (organism:, preset:, hf:) and not by a path."""
    return side.partition(":")[0] in ("organism", "preset", "hf") and not Path(side).exists()


def read_side(ref: str, heard: bool, columns: Mapping[str, str] | None) -> Side:
    """Items of a corpus; where an axis hears, each clip is decoded once to find what cannot be read or is copied."""
    from undersong.corpora import examine, open_corpus

    manifest = open_corpus(ref, columns=columns)
    samples, failed = examine(manifest.samples) if heard else (manifest.samples, ())
    return Side(samples, manifest.samples, (*manifest.quarantined, *failed))


def read_harmless(ref: str, sides: tuple[Side, Side], axes: Mapping[str, str], max_quarantined: float) -> Side:
    """Harmless speech to set beside a pool: of the same form, none of it harm or pool, and hardly any of it lost."""
    from undersong.corpora import refuse_shared_items
    from undersong.encoders.options import parse_encoder
    from undersong.encoders.vectors import read_embeddings

    if sides[0].ready is not None:
        return Side(ready=read_embeddings(ref))
    heard = any(spec != READY and parse_encoder(spec).hears for spec in axes.values())
    side = read_side(ref, heard, None)
    lost, total = side.quarantined, len(side.samples) + len(side.quarantined)
    if not side.samples or len(lost) > max_quarantined * total:
        why = f", the first: {lost[0].id} ({lost[0].reason})" if lost else ""
        raise UndersongError(f"{len(lost)} of {total} items of the harmless set {ref} cannot be used{why}; mend them.")
    for other in sides:
        refuse_shared_items(side.samples, other.samples, name=f"the harmless set {ref}")
    return side


def refuse_lost_harmless(vectors: Mapping[str, Embeddings], max_quarantined: float) -> None:
    """Harmless items that an axis could not embed are no small matter: the score would be of others."""
    for axis, made in vectors.items():
        lost, total = made.quarantined, len(made.ids) + len(made.quarantined)
        if len(lost) > max_quarantined * total:
            raise UndersongError(
                f"{len(lost)} of {total} harmless items cannot be used on axis {axis}, the first: {lost[0].id} "
                f"({lost[0].reason}); mend them, or leave the axis out."
            )
