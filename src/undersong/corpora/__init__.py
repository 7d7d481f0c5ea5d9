"""Corpora: what can be heard or read, as manifests and as decoded clips.  Does not know models."""

from undersong.corpora.alike.duplicates import Shared, count_shared, find_shared
from undersong.corpora.alike.overlap import HELD_OUT, overlap, refuse_shared_behaviour, refuse_shared_items
from undersong.corpora.forms.conversations import write_chats, write_messages
from undersong.corpora.forms.manifest import Manifest, read_manifest, select, write_corpus, write_manifest
from undersong.corpora.forms.opening import open_manifest
from undersong.corpora.forms.writers import dataset_info, write_hub_folder, write_kept
from undersong.corpora.organism import (
    corpus_hash,
    corpus_path,
    is_here,
    manifest_hash,
    open_corpus,
    organism_corpus,
    refuse_misspelt,
)
from undersong.corpora.presets import known_presets, open_preset, preset
from undersong.corpora.sound.audible import audible, why_inaudible
from undersong.corpora.sound.audio import Unreadable, load_clip, load_clips, pcm_hash
from undersong.corpora.sound.facts import examine
from undersong.corpora.sound.noise import babble, mix, pink
from undersong.corpora.sound.noisy import load_noise, with_noise
from undersong.corpora.sound.speak import speak_texts, with_audio
from undersong.corpora.sound.voices import Voice

__all__ = [
    "HELD_OUT",
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
    "is_here",
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
    "refuse_misspelt",
    "refuse_shared_behaviour",
    "refuse_shared_items",
    "select",
    "speak_texts",
    "why_inaudible",
    "with_audio",
    "with_noise",
    "write_chats",
    "write_corpus",
    "write_hub_folder",
    "write_kept",
    "write_manifest",
    "write_messages",
]
