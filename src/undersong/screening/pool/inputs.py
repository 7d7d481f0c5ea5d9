"""Input corpora of a screening: manifests or precomputed embeddings of the pool, the harm sets and benign speech,
checked for shared items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.screening.marked_samples import check_known_ids, read_marked_ids
from undersong.screening.pool.options import PRECOMPUTED, ScreeningOptions
from undersong.stages.context import Corpus, RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.engine import DEFAULT_ENGINE, Engine
from undersong.store.store import Store
from undersong.types import Embeddings, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.corpora.audio_metadata import Fingerprints


@dataclass(frozen=True)
class CorpusInput:
    """Input corpus with its reference: a corpus artifact, or precomputed embeddings if `corpus` is None. Both are read
    on first use."""

    ref: str
    corpus: Corpus | None
    scratch: Path | None = None
    dropped: frozenset[str] = frozenset()  # ids of items that are left out at the user's wish

    @cached_property
    def precomputed(self) -> Embeddings | None:
        """Precomputed embeddings, or None."""
        from undersong.encoders.embeddings import read_embeddings

        return read_embeddings(self.ref, self.scratch) if self.corpus is None else None

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """Usable samples that are not dropped; empty for precomputed embeddings."""
        samples = () if self.corpus is None else self.corpus.samples
        return tuple(sample for sample in samples if sample.id not in self.dropped) if self.dropped else samples

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """Items quarantined before any encoder."""
        return () if self.corpus is None else self.corpus.quarantined

    @property
    def fingerprints(self) -> Fingerprints:
        """Audio fingerprints by id, if the audio was decoded."""
        return {} if self.corpus is None else self.corpus.fingerprints

    @property
    def item_count(self) -> int:
        """Number of usable items."""
        return len(self.samples) if self.precomputed is None else len(self.precomputed.ids)

    @cached_property
    def texts(self) -> dict[str, str]:
        """Text of each id."""
        return {sample.id: sample.text for sample in self.samples if sample.text}

    @property
    def files(self) -> list[str]:
        """Files that are read: the reference, and audio files by path."""
        from undersong.corpora.manifest import audio_files

        return [self.ref, *(() if self.corpus is None else audio_files(self.corpus.artifact.path))]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the corpus (items and audio), or of the embeddings file."""
        from undersong.encoders.embeddings import embeddings_hash

        return embeddings_hash(self.ref) if self.corpus is None else self.corpus.artifact.hash


@dataclass(frozen=True)
class ScreeningCorpora:
    """A pool, the harm sets by name, and benign reference speech if there is one."""

    pool: CorpusInput
    harm: Mapping[str, CorpusInput]
    benign: CorpusInput | None = None

    @property
    def inputs(self) -> tuple[CorpusInput, ...]:
        """The pool, the harm sets in their order, then the benign reference."""
        return (self.pool, *self.harm.values(), *(() if self.benign is None else (self.benign,)))


def read_corpora(ctx: RunContext, pool: str, harm: Mapping[str, str], options: ScreeningOptions) -> ScreeningCorpora:
    """Read all corpora, checking only that they have the same format.

    Args:
        ctx: The run context.
        pool: Reference of the pool.
        harm: References of the harm sets.
        options: Options of the screening.

    Raises:
        UndersongError: A reference or an encoder is invalid, or formats are mixed.
    """
    from undersong.corpora.column_names import COLUMN_ADVICE
    from undersong.corpora.registry import check_corpus_ref, open_corpus
    from undersong.encoders.embeddings import holds_embeddings
    from undersong.encoders.registry import check_encoder
    from undersong.encoders.spec import parse_encoder

    refs_by_role = {"the pool": pool} | {f"the harm set {name}": ref for name, ref in harm.items()}
    if options.benign_reference is not None:
        refs_by_role["the benign reference"] = str(options.benign_reference)
    for ref in refs_by_role.values():
        check_corpus_ref(ref)  # so that an invalid reference is not reported as a missing path
    are_embeddings = {ref: not _is_corpus_name(ref) and holds_embeddings(ref) for ref in refs_by_role.values()}
    for role, ref in refs_by_role.items():
        if are_embeddings[ref] != are_embeddings[pool]:
            formats = {True: "embeddings", False: "a manifest"}
            raise UndersongError(
                f"The pool {pool} is {formats[are_embeddings[pool]]}, and {role} {ref} is "
                f"{formats[are_embeddings[ref]]}; give manifests for all, or embeddings for all."
            )
    encoders = [encoder for encoder in (options.axes or {}).values() if encoder != PRECOMPUTED]
    for encoder in encoders:
        check_encoder(encoder)  # before any audio is decoded
    needs_audio = options.axes is None or any(parse_encoder(encoder).needs_audio for encoder in encoders)
    decodes_audio = needs_audio or bool(options.rehearse)  # a rehearsal is spoken where there is audio

    scratch = ctx.store.root if isinstance(ctx.store, Store) else None

    def read(ref: str, columns: Mapping[str, str] | None, engine: Engine = DEFAULT_ENGINE) -> CorpusInput:
        if options.audio_root is not None and not are_embeddings[ref]:
            open_corpus(
                ref, columns, options.audio_root
            )  # each time: that it was read before says nothing of its paths
        corpus = None
        if not are_embeddings[ref]:
            corpus = load_corpus(
                ctx, ref, columns=columns, decode=decodes_audio, engine=engine, column_advice=COLUMN_ADVICE
            )
        return CorpusInput(ref, corpus, scratch)

    pool_input = read(pool, options.columns, options.engine)
    harm_inputs = {name: read(ref, options.harm_columns) for name, ref in harm.items()}
    benign = (
        None
        if options.benign_reference is None
        else read(str(options.benign_reference), options.benign_reference_columns)
    )
    return ScreeningCorpora(_without_dropped(pool_input, options), harm_inputs, benign)


def _without_dropped(pool: CorpusInput, options: ScreeningOptions) -> CorpusInput:
    """The pool without the items of the list `drop`.

    Raises:
        UndersongError: The list names other items, or all.
    """
    if options.drop is None:
        return pool
    ids = read_marked_ids(options.drop)
    known = {sample.id for sample in pool.samples} | {item.id for item in pool.quarantined} | _precomputed_ids(pool)
    check_known_ids(ids, known, options.drop, pool.ref)
    if len(ids) == len(known):
        raise UndersongError(
            f"The list {options.drop} names all items of {pool.ref}, so none would be left; shorten it."
        )
    return replace(pool, dropped=frozenset(ids))


def check_corpora(corpora: ScreeningCorpora, max_share: float) -> None:
    """Check that no item is in two corpora, and that at most `max_share` of the pool is lost.

    Raises:
        UndersongError: A check fails.
    """
    from undersong.corpora.overlap import check_disjoint_items
    from undersong.proximity.table import check_quarantine

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
            check_disjoint_items(other.samples, benign.samples, f"the benign reference {benign.ref}", name)


def check_benign_quarantine(
    reason: str, benign: CorpusInput, quarantined: Sequence[Quarantined], max_share: float
) -> None:
    """Check that few benign items are lost, because the score would be about the remaining ones only.

    Args:
        reason: The step at which items were lost, for the message.
        benign: The benign corpus.
        quarantined: Its lost items.
        max_share: Share of items that may be lost.

    Raises:
        UndersongError: Too many items are lost.
    """
    total = benign.item_count + len(benign.quarantined)
    if len(quarantined) > max_share * total:
        raise UndersongError(
            f"{len(quarantined)} of {total} items of the benign reference {benign.ref} {reason}, the first: "
            f"{quarantined[0].id} "
            f"({quarantined[0].reason}); fix them, or leave the set out."
        )


def pool_quarantine(pool: CorpusInput, lost_by_step: Mapping[str, Sequence[Quarantined]]) -> tuple[Quarantined, ...]:
    """Pool items that some step could not use, once each, with all reasons.

    Args:
        pool: The pool.
        lost_by_step: Items that each axis, or the rehearsal, could not use, by the name of the step.
    """
    reasons: dict[str, list[str]] = {}
    for item in pool.quarantined:
        reasons.setdefault(item.id, []).append(item.reason)
    for step, lost in lost_by_step.items():
        for item in lost:
            reasons.setdefault(item.id, []).append(f"{step}: {item.reason}")
    return tuple(Quarantined(id, "; ".join(item_reasons)) for id, item_reasons in reasons.items())


def _precomputed_ids(corpus_input: CorpusInput) -> set[str]:
    """Ids of precomputed embeddings, which identify items in no other way."""
    return (
        set()
        if corpus_input.precomputed is None
        else {*corpus_input.precomputed.ids, *(item.id for item in corpus_input.precomputed.quarantined)}
    )


def _is_corpus_name(ref: str) -> bool:
    """True if a reference is a corpus name (such as organism:NAME) and not a path."""
    from undersong.corpora.formats import HUB_PREFIX
    from undersong.corpora.registry import PACKAGED_PREFIXES, PRESET_PREFIX

    return ref.startswith((*PACKAGED_PREFIXES, PRESET_PREFIX, HUB_PREFIX)) and not Path(ref).exists()
