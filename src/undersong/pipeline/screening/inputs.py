"""Input corpora of a screening: manifests or ready embeddings of the pool, the harm sets and benign speech, checked
for shared items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.pipeline.screening.options import PRECOMPUTED, ScreeningOptions
from undersong.stages.context import Corpus, RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.engine import DEFAULT_ENGINE, Engine
from undersong.store import Store
from undersong.types import Embeddings, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.corpora.audio_metadata import Fingerprints


@dataclass(frozen=True)
class CorpusInput:
    """One of the corpora, by the reference it was called by: an artifact of items, or ready embeddings (None).  Either
    is read when somebody asks for what is in it.  `scratch`: a folder for vectors that are too many for memory."""

    ref: str
    corpus: Corpus | None
    scratch: Path | None = None

    @cached_property
    def precomputed(self) -> Embeddings | None:
        """The embeddings that are there already."""
        from undersong.encoders.embeddings import read_embeddings

        return read_embeddings(self.ref, self.scratch) if self.corpus is None else None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Its usable items; none of ready embeddings."""
        return () if self.corpus is None else self.corpus.samples

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """What was left out before any encoder."""
        return () if self.corpus is None else self.corpus.quarantined

    @property
    def fingerprints(self) -> Fingerprints:
        """Fingerprints of its sound by id, where it was listened to."""
        return {} if self.corpus is None else self.corpus.fingerprints

    @property
    def item_count(self) -> int:
        """How many can be used."""
        return len(self.samples) if self.precomputed is None else len(self.precomputed.ids)

    @cached_property
    def texts(self) -> dict[str, str]:
        """Id -> text."""
        return {sample.id: sample.text for sample in self.samples if sample.text}

    @property
    def files(self) -> list[str]:
        """What is read of it: its reference, and audio files by path."""
        from undersong.corpora.manifest import audio_files

        return [self.ref, *(() if self.corpus is None else audio_files(self.corpus.artifact.verify().path))]

    @cached_property
    def hash(self) -> str:
        """Of its content."""
        from undersong.encoders.embeddings import embeddings_hash

        return embeddings_hash(self.ref) if self.corpus is None else self.corpus.artifact.hash


@dataclass(frozen=True)
class ScreeningCorpora:
    """A pool, the harm sets by name, and harmless speech where it is asked for."""

    pool: CorpusInput
    harm: Mapping[str, CorpusInput]
    benign: CorpusInput | None = None

    @property
    def inputs(self) -> tuple[CorpusInput, ...]:
        """The pool, the harm sets in their order, then harmless speech."""
        return (self.pool, *self.harm.values(), *(() if self.benign is None else (self.benign,)))


def read_corpora(ctx: RunContext, pool: str, harm: Mapping[str, str], options: ScreeningOptions) -> ScreeningCorpora:
    """All sides, of one form; nothing but the form is checked yet."""
    from undersong.corpora import check_corpus_ref, open_corpus
    from undersong.encoders import check_encoder
    from undersong.encoders.embeddings import holds_embeddings
    from undersong.encoders.spec import parse_encoder

    refs = [pool, *harm.values(), *([] if options.harmless is None else [str(options.harmless)])]
    for ref in refs:
        check_corpus_ref(ref)  # a path that is none would be said of it
    are_embeddings = {ref: not _is_corpus_name(ref) and holds_embeddings(ref) for ref in refs}
    if mismatched := next((ref for ref in refs if are_embeddings[ref] != are_embeddings[pool]), None):
        raise UndersongError(
            f"{pool} and {mismatched} are of two forms; give manifests for all, or embeddings for all."
        )
    encoders = [encoder for encoder in (options.axes or {}).values() if encoder != PRECOMPUTED]
    for encoder in encoders:
        check_encoder(encoder)  # before any audio is decoded
    decodes_audio = options.axes is None or any(parse_encoder(encoder).needs_audio for encoder in encoders)

    scratch = ctx.store.root if isinstance(ctx.store, Store) else None

    def read(ref: str, columns: Mapping[str, str] | None, engine: Engine = DEFAULT_ENGINE) -> CorpusInput:
        if options.root is not None and not are_embeddings[ref]:
            open_corpus(ref, columns, options.root)  # each time: that it was read before says nothing of its paths
        if are_embeddings[ref]:
            return CorpusInput(ref, None, scratch)
        return CorpusInput(ref, load_corpus(ctx, ref, columns=columns, decode=decodes_audio, engine=engine), scratch)

    pool_input = read(pool, options.columns, options.engine)
    harm_inputs = {name: read(ref, options.harm_columns) for name, ref in harm.items()}
    benign = None if options.harmless is None else read(str(options.harmless), options.harmless_columns)
    return ScreeningCorpora(pool_input, harm_inputs, benign)


def check_corpora(corpora: ScreeningCorpora, max_share: float) -> None:
    """No item is in two of them, and hardly any is lost (`most`: that share of the pool)."""
    from undersong.corpora import check_disjoint_items
    from undersong.proximity import check_quarantine

    pool, benign = corpora.pool, corpora.benign
    total = pool.item_count + len(pool.quarantined)
    for harm_input in corpora.harm.values():
        check_quarantine("as it is", pool.quarantined, total, harm_input.quarantined, max_share)
        check_disjoint_items(pool.samples, harm_input.samples)
        if shared := sorted(_precomputed_ids(pool) & _precomputed_ids(harm_input)):
            raise UndersongError(
                f"The pool and the harm set overlap in {len(shared)} ids, the first {shared[0]!r}; remove the items "
                "from one side, or give different items different ids."
            )
    if benign is not None:
        check_benign_quarantine("cannot be used", benign, benign.quarantined, max_share)
        for name, other in (
            ("The pool", pool),
            *((f"The harm set {name}", harm_input) for name, harm_input in corpora.harm.items()),
        ):
            check_disjoint_items(other.samples, benign.samples, f"the harmless set {benign.ref}", name)


def check_benign_quarantine(
    reason: str, benign: CorpusInput, quarantined: Sequence[Quarantined], max_share: float
) -> None:
    """Harmless items that are lost are no small matter: the score would be of others."""
    total = benign.item_count + len(benign.quarantined)
    if len(quarantined) > max_share * total:
        raise UndersongError(
            f"{len(quarantined)} of {total} items of the harmless set {benign.ref} {reason}, the first: {quarantined[0].id} "
            f"({quarantined[0].reason}); mend them, or leave the set out."
        )


def _precomputed_ids(corpus_input: CorpusInput) -> set[str]:
    """Of ready embeddings, which have nothing else to know an item by."""
    return (
        set()
        if corpus_input.precomputed is None
        else {*corpus_input.precomputed.ids, *(item.id for item in corpus_input.precomputed.quarantined)}
    )


def _is_corpus_name(ref: str) -> bool:
    """Whether a corpus is called by a name (organism:, preset:, hf:) and not by a path."""
    return ref.partition(":")[0] in ("organism", "preset", "hf") and not Path(ref).exists()
