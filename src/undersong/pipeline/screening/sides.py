"""The corpora of a screening as they are read: manifests of any form, or ready embeddings, without a common item.

Knows corpora and files of vectors; does not know distances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.pipeline.engine import AT_ONCE, Engine
from undersong.pipeline.screening.asked import READY, Asked
from undersong.pipeline.stages import corpus
from undersong.pipeline.workshop import Corpus, Workshop
from undersong.types import Embeddings, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.corpora.forms.facts import Prints


@dataclass(frozen=True)
class Side:
    """One of the corpora, by the reference it was called by: an artefact of items, or ready embeddings (None).  Either
    is read when somebody asks for what is in it."""

    ref: str
    corpus: Corpus | None

    @cached_property
    def ready(self) -> Embeddings | None:
        """The embeddings that are there already."""
        from undersong.encoders.vectors import read_embeddings

        return read_embeddings(self.ref) if self.corpus is None else None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Its usable items; none of ready embeddings."""
        return () if self.corpus is None else self.corpus.samples

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """What was left out before any encoder."""
        return () if self.corpus is None else self.corpus.quarantined

    @property
    def prints(self) -> Prints:
        """Fingerprints of its sound by id, where it was listened to."""
        return {} if self.corpus is None else self.corpus.prints

    @property
    def items(self) -> int:
        """How many can be used."""
        return len(self.samples) if self.ready is None else len(self.ready.ids)

    @cached_property
    def texts(self) -> dict[str, str]:
        """Id -> text."""
        return {sample.id: sample.text for sample in self.samples if sample.text}

    @property
    def files(self) -> list[str]:
        """What is read of it: its reference, and audio files by path."""
        from undersong.corpora.forms.manifest import audio_files

        return [self.ref, *(() if self.corpus is None else audio_files(self.corpus.artefact.checked().path))]

    @cached_property
    def hash(self) -> str:
        """Of its content."""
        from undersong.encoders.vectors import embeddings_hash

        return embeddings_hash(self.ref) if self.corpus is None else self.corpus.artefact.hash


@dataclass(frozen=True)
class Sides:
    """A pool, the harm sets by name, and harmless speech where it is asked for."""

    pool: Side
    harm: Mapping[str, Side]
    calm: Side | None = None

    @property
    def all(self) -> tuple[Side, ...]:
        """The pool, the harm sets in their order, then harmless speech."""
        return (self.pool, *self.harm.values(), *(() if self.calm is None else (self.calm,)))


def read_sides(shop: Workshop, pool: str, harm: Mapping[str, str], asked: Asked) -> Sides:
    """All sides, of one form; nothing but the form is checked yet."""
    from undersong.corpora import open_corpus, refuse_misspelt
    from undersong.encoders import check_encoder
    from undersong.encoders.options import parse_encoder
    from undersong.encoders.vectors import holds_embeddings

    refs = [pool, *harm.values(), *([] if asked.harmless is None else [str(asked.harmless)])]
    for ref in refs:
        refuse_misspelt(ref)  # a path that is none would be said of it
    forms = {ref: not _named(ref) and holds_embeddings(ref) for ref in refs}
    if other := next((ref for ref in refs if forms[ref] != forms[pool]), None):
        raise UndersongError(f"{pool} and {other} are of two forms; give manifests for all, or embeddings for all.")
    encoders = [encoder for encoder in (asked.axes or {}).values() if encoder != READY]
    for encoder in encoders:
        check_encoder(encoder)  # before any audio is decoded
    heard = asked.axes is None or any(parse_encoder(encoder).hears for encoder in encoders)

    def read(ref: str, columns: Mapping[str, str] | None, engine: Engine = AT_ONCE) -> Side:
        if asked.root is not None and not forms[ref]:
            open_corpus(ref, columns, asked.root)  # each time: that it was read before says nothing of its paths
        return Side(ref, None if forms[ref] else corpus(shop, ref, columns=columns, decode=heard, engine=engine))

    mine = read(pool, asked.columns, asked.engine)
    theirs = {name: read(ref, asked.harm_columns) for name, ref in harm.items()}
    calm = None if asked.harmless is None else read(str(asked.harmless), asked.harmless_columns)
    return Sides(mine, theirs, calm)


def check_sides(sides: Sides, most: float) -> None:
    """No item is in two of them, and hardly any is lost (`most`: that share of the pool)."""
    from undersong.corpora import refuse_shared_items
    from undersong.proximity import check_quarantine

    pool, calm = sides.pool, sides.calm
    total = pool.items + len(pool.quarantined)
    for side in sides.harm.values():
        check_quarantine("as it is", pool.quarantined, total, side.quarantined, most)
        refuse_shared_items(pool.samples, side.samples)
        if shared := sorted(_ids(pool) & _ids(side)):
            raise UndersongError(
                f"The pool and the harm set overlap in {len(shared)} ids, the first {shared[0]!r}; remove the items "
                "from one side, or give different items different ids."
            )
    if calm is not None:
        refuse_lost("cannot be used", calm, calm.quarantined, most)
        for name, other in (("The pool", pool), *((f"The harm set {name}", one) for name, one in sides.harm.items())):
            refuse_shared_items(other.samples, calm.samples, f"the harmless set {calm.ref}", name)


def refuse_lost(how: str, calm: Side, lost: Sequence[Quarantined], most: float) -> None:
    """Harmless items that are lost are no small matter: the score would be of others."""
    total = calm.items + len(calm.quarantined)
    if len(lost) > most * total:
        raise UndersongError(
            f"{len(lost)} of {total} items of the harmless set {calm.ref} {how}, the first: {lost[0].id} "
            f"({lost[0].reason}); mend them, or leave the set out."
        )


def _ids(side: Side) -> set[str]:
    """Of ready embeddings, which have nothing else to know an item by."""
    return set() if side.ready is None else {*side.ready.ids, *(item.id for item in side.ready.quarantined)}


def _named(ref: str) -> bool:
    """Whether a corpus is called by a name (organism:, preset:, hf:) and not by a path."""
    return ref.partition(":")[0] in ("organism", "preset", "hf") and not Path(ref).exists()
