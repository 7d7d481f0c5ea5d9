"""The first stage: a corpus read, decoded once and kept.  Knows manifests; does not know models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.store import Draft
from undersong.types import UndersongError


def corpus(
    shop: Workshop,
    ref: str,
    where: Mapping[str, Sequence[str]] | None = None,
    columns: Mapping[str, str] | None = None,
    decode: bool = True,
) -> Corpus:
    """Read, decode once, quarantine what cannot be read (DESIGN rule 2).  `columns`: our field -> the corpus's column.

    Without `decode`, where nobody listens, audio is not opened.
    """
    from undersong.corpora import corpus_hash, examine, open_corpus, select, write_corpus

    def make(draft: Draft) -> None:
        from undersong.encoders.progress import watch

        manifest = open_corpus(ref, columns)
        chosen = select(manifest.samples, where or {})
        clock = watch(len(chosen), shop.watcher(f"reading {ref}"))
        samples, failed = examine(chosen, tell=clock.at) if decode else (chosen, ())
        if not samples:
            lost = (*manifest.quarantined, *failed)
            why = f", the first: {lost[0].id} ({lost[0].reason})" if lost else ""
            raise UndersongError(f"Corpus {ref} holds no usable sample{why}; look at its files and filters.")
        write_corpus(samples, (*manifest.quarantined, *failed), draft.path)

    config: dict[str, Any] = {"where": {name: list(values) for name, values in (where or {}).items()}}
    config |= {"columns": dict(columns)} if columns else {}
    config |= {} if decode else {"decode": False}
    inputs: Inputs = {"content": corpus_hash(ref, columns)}
    return Corpus(ref, shop.store.get_or_make("corpus", 2, config, inputs, make, packages=("soundfile", "soxr")))
