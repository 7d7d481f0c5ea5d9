"""Corpora: what can be heard or read, as manifests and as decoded clips.  Does not know models."""

from undersong.corpora.audio import Unreadable, examine, load_clip, load_clips, pcm_hash
from undersong.corpora.manifest import Manifest, read_manifest, select, write_corpus, write_manifest
from undersong.corpora.organism import corpus_hash, corpus_path, open_corpus, organism_corpus
from undersong.corpora.overlap import overlap, refuse_shared_behaviour, refuse_shared_items

__all__ = [
    "Manifest",
    "Unreadable",
    "corpus_hash",
    "corpus_path",
    "examine",
    "load_clip",
    "load_clips",
    "open_corpus",
    "organism_corpus",
    "overlap",
    "pcm_hash",
    "read_manifest",
    "refuse_shared_behaviour",
    "refuse_shared_items",
    "select",
    "write_corpus",
    "write_manifest",
]
