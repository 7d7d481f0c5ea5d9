"""Audio players embedded in the report: data URIs and waveforms, with limits on the size of each file and of the
page.
"""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from markupsafe import Markup

from undersong.pages.svg import tag
from undersong.results.schema_screening import AxisScreening, NeighborPair
from undersong.types import Clip, Sample, UndersongError

MAX_FILE_BYTES = 128 << 10  # bytes of one file
MAX_TOTAL_BYTES = 12 << 20  # bytes of all players; in the page they take a third more
MAX_CLIP_SECONDS = 30
SAMPLE_RATE = 16_000
WAVEFORM_BARS, WAVEFORM_HEIGHT = 90, 28

AudioFiles = Mapping[str, tuple[bytes, str]]  # sample id -> (the file's bytes, its media type)


@dataclass(frozen=True, slots=True)
class AudioPlayer:
    """A clip in the page: `uri` is a data: address, `wave` a picture or empty, `seconds` its length or empty."""

    uri: str
    wave: Markup
    seconds: str


@dataclass(frozen=True, slots=True)
class EmbeddedPlayers:
    """Players by sample id, and the numbers of clips without a player (`skipped`) or shortened (`truncated`)."""

    by_id: Mapping[str, AudioPlayer]
    skipped: int
    truncated: int


def embed_players(
    screens: Sequence[AxisScreening], audio: AudioFiles, prompt_ids: Iterable[str] = ()
) -> EmbeddedPlayers:
    """Embed the audio of the samples that the page names, up to the size limit: prompts with replies, then the samples
    of every axis, the closest first.

    Args:
        screens: Screenings, whose samples are played.
        audio: Encoded audio and media type by sample id.
        prompt_ids: Prompts whose replies the page shows, which are played once each.

    Raises:
        UndersongError: A media type is not audio.
    """
    sample_ids = [id for id in (*dict.fromkeys(prompt_ids), *_sample_ids(screens)) if id in audio]
    by_id: dict[str, AudioPlayer] = {}
    skipped = truncated = used_bytes = 0
    for id, mentions in Counter(sample_ids).items():
        content, media_type = audio[id]
        if not re.fullmatch(r"audio/[A-Za-z0-9.+-]+", media_type):
            raise UndersongError(
                f"the media type {media_type!r} of sample {id!r} is not audio: give one such as audio/ogg."
            )
        clip = playable_clip(id, content)
        if len(content) > MAX_FILE_BYTES:
            if clip is None:
                skipped += 1
                continue
            content, media_type = mp3_excerpt(clip), "audio/mpeg"
            truncated += clip.samples.size > MAX_CLIP_SECONDS * SAMPLE_RATE
        if used_bytes + mentions * len(content) > MAX_TOTAL_BYTES:
            skipped += 1
            continue
        used_bytes += mentions * len(content)
        by_id[id] = AudioPlayer(
            uri=f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}",
            wave=_waveform(clip) if clip is not None else Markup(""),
            seconds=f"{clip.samples.size / SAMPLE_RATE:.1f}\u202fs" if clip is not None else "",
        )
    return EmbeddedPlayers(by_id, skipped, truncated)


def _sample_ids(screens: Sequence[AxisScreening]) -> Iterator[str]:
    for kind in ("closest", "distant"):
        ranked_pairs: Iterable[Sequence[NeighborPair]] = (getattr(screen, kind) for screen in screens)
        for rank in zip_longest(*ranked_pairs):
            for item in rank:
                if item is not None:
                    yield item.id
                    if item.nearest_id:
                        yield item.nearest_id


def playable_clip(id: str, content: str | bytes) -> Clip | None:
    """Decode a clip; None if that fails here, because a browser may still be able to play it."""
    from undersong.corpora.decode import UnreadableAudioError, load_clip

    try:
        return load_clip(Sample(id, audio=content), SAMPLE_RATE)
    except UnreadableAudioError:
        return None


def mp3_excerpt(clip: Clip) -> bytes:
    """Encode the beginning of a clip as MP3, which every browser plays and which is encoded reproducibly."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, clip.samples[: MAX_CLIP_SECONDS * SAMPLE_RATE], SAMPLE_RATE, format="MP3")
    return file.getvalue()


def _waveform(clip: Clip) -> Markup:
    """Draw peaks over time on the clip's own scale, with the line that marks the playback position."""
    peaks = np.array([np.abs(part).max(initial=0.0) for part in np.array_split(clip.samples, WAVEFORM_BARS)])
    heights = np.rint(WAVEFORM_HEIGHT / 2 * peaks / max(float(peaks.max()), 1e-6)).astype(int)
    middle = WAVEFORM_HEIGHT // 2
    path = "".join(f"M{i},{middle - h}v{max(2 * h, 1)}" for i, h in enumerate(heights))
    bar_element = tag(
        "svg", tag("path", d=path), viewBox=f"-1 0 {WAVEFORM_BARS + 1} {WAVEFORM_HEIGHT}", preserveAspectRatio="none"
    )
    cursor = tag("line", x1="0%", x2="0%", y1="0%", y2="100%", class_="at")
    return tag("svg", bar_element, cursor, class_="wave", aria_hidden="true", width="100%", height=WAVEFORM_HEIGHT)
