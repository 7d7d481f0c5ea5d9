"""Clips of a data page: encoded small, the first ones up to a limit on their bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from undersong.pages.audio_players import MAX_CLIP_SECONDS, mp3_excerpt, playable_clip
from undersong.types import Sample

MAX_CLIP_BYTES = 16 << 20  # bytes of all clips; in the page they take a third more
SMALL_BYTES_PER_SECOND = 4_000  # a compressed file of at most this rate is embedded as it is
PLAYABLE = {"OGG": "audio/ogg", "MP3": "audio/mpeg", "MPEG": "audio/mpeg"}  # by soundfile's name of the format


@dataclass(frozen=True, slots=True)
class EmbeddedClips:
    """Clips of a page.

    Attributes:
        files: Media type and base64 of each embedded clip.
        places: Index in `files` of the clip of each key.
        left_out: Number of clips beyond the limit.
        unreadable: Number of clips that could not be decoded.
        shortened: Number of clips of which only the beginning is embedded.
    """

    files: tuple[tuple[str, str], ...]
    places: Mapping[Hashable, int]
    left_out: int
    unreadable: int
    shortened: int


def embed_clips(clips: Iterable[tuple[Hashable, str | bytes]], max_bytes: int | None = None) -> EmbeddedClips:
    """Encode clips as MP3 of 16 kHz, the first ones first, until the limit is reached. The rest is not read.

    MP3 plays in every browser, and takes a fifth of the time that Opus takes.

    Args:
        clips: Key and audio (a path, or the bytes of a file) of each clip; the first of a repeated key counts.
        max_bytes: Largest number of bytes; None: MAX_CLIP_BYTES.
    """
    limit = MAX_CLIP_BYTES if max_bytes is None else max_bytes
    files, places = list[tuple[str, str]](), dict[Hashable, int]()
    used = left_out = unreadable = shortened = 0
    for key, audio in _first_of_each(clips).items():
        if used >= limit:
            left_out += 1
            continue
        encoded = _encode(audio)
        if encoded is None:
            unreadable += 1
            continue
        media_type, content, is_cut = encoded
        if used + len(content) > limit:
            left_out += 1
            used = limit  # the others are not tried: a page with the shortest clips would be a biased one
            continue
        used += len(content)
        shortened += is_cut
        places[key] = len(files)
        files.append((media_type, base64.b64encode(content).decode("ascii")))
    return EmbeddedClips(tuple(files), places, left_out, unreadable, shortened)


def _first_of_each(clips: Iterable[tuple[Hashable, str | bytes]]) -> dict[Hashable, str | bytes]:
    first: dict[Hashable, str | bytes] = {}
    for key, audio in clips:
        first.setdefault(key, audio)
    return first


def _encode(audio: str | bytes) -> tuple[str, bytes, bool] | None:
    """Media type and bytes of a small file, and whether it was cut; None if the audio cannot be decoded."""
    small = _small_file(audio)
    if small is not None:
        return *small, False
    clip = playable_clip("clip", audio)
    if clip is None:
        return None
    return "audio/mpeg", mp3_excerpt(clip), clip.samples.size > MAX_CLIP_SECONDS * clip.rate


def _small_file(audio: str | bytes) -> tuple[str, bytes] | None:
    """Media type and bytes of a file that is small as it is; None if it has to be encoded."""
    import soundfile

    from undersong.corpora.decode import file_bytes

    try:
        content = file_bytes(Sample("clip", audio))
        info = soundfile.info(io.BytesIO(content))
    except (ValueError, soundfile.LibsndfileError):
        return None
    seconds = info.frames / info.samplerate if info.samplerate else 0.0
    if info.format not in PLAYABLE or not 0 < seconds <= MAX_CLIP_SECONDS:
        return None
    return (PLAYABLE[info.format], content) if len(content) <= SMALL_BYTES_PER_SECOND * seconds else None
