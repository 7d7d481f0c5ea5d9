"""Corpora: what can be heard or read, as manifests and as decoded clips.  Does not know models."""

from undersong.corpora.audio_metadata import examine
from undersong.corpora.decode import UnreadableAudioError, load_clip, load_clips, pcm_hash
from undersong.corpora.export import dataset_info, write_hub_folder, write_samples
from undersong.corpora.formats import open_manifest
from undersong.corpora.forms.conversations import write_chats, write_messages
from undersong.corpora.manifest import Manifest, filter_samples, read_manifest, write_corpus, write_manifest
from undersong.corpora.near_duplicates import DuplicatePair, count_duplicates, find_duplicates
from undersong.corpora.noise import babble_noise, mix_noise, pink_noise
from undersong.corpora.organism import (
    check_corpus_ref,
    corpus_hash,
    corpus_path,
    is_local_corpus,
    manifest_hash,
    open_corpus,
    organism_corpus,
)
from undersong.corpora.overlap import HELD_OUT, check_disjoint_behaviors, check_disjoint_items, find_overlap
from undersong.corpora.registry import get_preset, load_presets, open_preset
from undersong.corpora.sound.audible import inaudible_reason, is_audible
from undersong.corpora.sound.noisy import load_noise, with_noise
from undersong.corpora.sound.speak import synthesize_speech, with_audio
from undersong.corpora.tts import Voice

__all__ = [
    "HELD_OUT",
    "Manifest",
    "DuplicatePair",
    "UnreadableAudioError",
    "Voice",
    "is_audible",
    "babble_noise",
    "corpus_hash",
    "corpus_path",
    "count_duplicates",
    "dataset_info",
    "examine",
    "find_duplicates",
    "is_local_corpus",
    "load_presets",
    "load_clip",
    "load_clips",
    "load_noise",
    "manifest_hash",
    "mix_noise",
    "open_corpus",
    "open_manifest",
    "open_preset",
    "organism_corpus",
    "find_overlap",
    "pcm_hash",
    "pink_noise",
    "get_preset",
    "read_manifest",
    "check_corpus_ref",
    "check_disjoint_behaviors",
    "check_disjoint_items",
    "filter_samples",
    "synthesize_speech",
    "inaudible_reason",
    "with_audio",
    "with_noise",
    "write_chats",
    "write_corpus",
    "write_hub_folder",
    "write_samples",
    "write_manifest",
    "write_messages",
]
