from .audio_metadata import (
    examine as examine,
)
from .decode import (
    UnreadableAudioError as UnreadableAudioError,
)
from .decode import (
    inaudible_reason as inaudible_reason,
)
from .decode import (
    load_clip as load_clip,
)
from .decode import (
    load_clips as load_clips,
)
from .decode import (
    pcm_hash as pcm_hash,
)
from .export import (
    write_chats as write_chats,
)
from .export import (
    write_hub_folder as write_hub_folder,
)
from .export import (
    write_samples as write_samples,
)
from .formats import (
    open_manifest as open_manifest,
)
from .manifest import (
    Manifest as Manifest,
)
from .manifest import (
    filter_samples as filter_samples,
)
from .manifest import (
    read_manifest as read_manifest,
)
from .manifest import (
    write_corpus as write_corpus,
)
from .manifest import (
    write_manifest as write_manifest,
)
from .near_duplicates import (
    TEXT_THRESHOLD as TEXT_THRESHOLD,
)
from .near_duplicates import (
    DuplicatePair as DuplicatePair,
)
from .near_duplicates import (
    count_duplicates as count_duplicates,
)
from .near_duplicates import (
    find_duplicates as find_duplicates,
)
from .near_duplicates import (
    find_similar_texts as find_similar_texts,
)
from .noise import (
    babble_noise as babble_noise,
)
from .noise import (
    load_noise as load_noise,
)
from .noise import (
    mix_noise as mix_noise,
)
from .noise import (
    pink_noise as pink_noise,
)
from .noise import (
    with_noise as with_noise,
)
from .overlap import (
    HELD_OUT as HELD_OUT,
)
from .overlap import (
    check_disjoint_behaviors as check_disjoint_behaviors,
)
from .overlap import (
    check_disjoint_items as check_disjoint_items,
)
from .overlap import (
    find_overlap as find_overlap,
)
from .registry import (
    check_corpus_ref as check_corpus_ref,
)
from .registry import (
    corpus_hash as corpus_hash,
)
from .registry import (
    get_preset as get_preset,
)
from .registry import (
    is_local_corpus as is_local_corpus,
)
from .registry import (
    load_presets as load_presets,
)
from .registry import (
    manifest_hash as manifest_hash,
)
from .registry import (
    open_corpus as open_corpus,
)
from .registry import (
    open_preset as open_preset,
)
from .tts import (
    Voice as Voice,
)
from .tts import (
    synthesize_speech as synthesize_speech,
)
from .tts import (
    with_audio as with_audio,
)
