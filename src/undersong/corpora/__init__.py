"""Corpora: what can be heard or read, as manifests and as decoded clips.  Does not know models."""

from undersong.corpora.audible import audible, why_inaudible
from undersong.corpora.audio import Unreadable, examine, load_clip, load_clips, pcm_hash
from undersong.corpora.duplicates import Shared, count_shared, find_shared
from undersong.corpora.manifest import Manifest, read_manifest, select, write_corpus, write_manifest
from undersong.corpora.noise import babble, mix, pink
from undersong.corpora.noisy import load_noise, with_noise
from undersong.corpora.opening import open_manifest
from undersong.corpora.organism import corpus_hash, corpus_path, manifest_hash, open_corpus, organism_corpus
from undersong.corpora.overlap import overlap, refuse_shared_behaviour, refuse_shared_items
from undersong.corpora.presets import known_presets, open_preset, preset
from undersong.corpora.speak import speak_texts, with_audio
from undersong.corpora.voices import Voice
from undersong.corpora.writers import dataset_info, write_hub_folder, write_kept, write_messages

__all__ = [
    "Manifest",
    "Shared",
    "Unreadable",
    "Voice",
    "audible",
    "babble",
    "corpus_hash",
    "corpus_path",
    "count_shared",
    "dataset_info",
    "examine",
    "find_shared",
    "known_presets",
    "load_clip",
    "load_clips",
    "load_noise",
    "manifest_hash",
    "mix",
    "open_corpus",
    "open_manifest",
    "open_preset",
    "organism_corpus",
    "overlap",
    "pcm_hash",
    "pink",
    "preset",
    "read_manifest",
    "refuse_shared_behaviour",
    "refuse_shared_items",
    "select",
    "speak_texts",
    "why_inaudible",
    "with_audio",
    "with_noise",
    "write_corpus",
    "write_hub_folder",
    "write_kept",
    "write_manifest",
    "write_messages",
]
