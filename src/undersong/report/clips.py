"""What of the samples' audio the page holds, how each clip looks, and what was left out to keep the page small.

A file of up to LARGEST bytes stands in the page as it is; of a larger one its first SECONDS, as a small MP3.
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

from undersong.report.beforehand import Near, Screen
from undersong.report.svg import tag
from undersong.types import Clip, Sample, UndersongError

LARGEST = 128 << 10  # bytes of one file
ALL = 12 << 20  # bytes of all players; in the page they take a third more
SECONDS = 30
RATE = 16_000
BARS, HEIGHT = 90, 28

Audio = Mapping[str, tuple[bytes, str]]  # sample id -> (the file's bytes, its media type)


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip in the page: `uri` is a data: address, `wave` a picture or empty, `seconds` its length or empty."""

    uri: str
    wave: Markup
    seconds: str


@dataclass(frozen=True, slots=True)
class Players:
    """`left`: how many clips have no player, for want of room; `cut`: how many are there in part."""

    heard: Mapping[str, Heard]
    left: int
    cut: int


def players(screens: Sequence[Screen], audio: Audio) -> Players:
    """Of all samples the page names, the closest of every axis first, as far as there is room.

    Errors: UndersongError where a media type is not audio.
    """
    named = [id for id in _named(screens) if id in audio]
    heard: dict[str, Heard] = {}
    left = cut = used = 0
    for id, times in Counter(named).items():
        content, media = audio[id]
        if not re.fullmatch(r"audio/[A-Za-z0-9.+-]+", media):
            raise UndersongError(f"the media type {media!r} of sample {id!r} is not audio: give one such as audio/ogg.")
        clip = _decoded(id, content)
        if len(content) > LARGEST:
            if clip is None:
                left += 1
                continue
            content, media = _small(clip), "audio/mpeg"
            cut += clip.samples.size > SECONDS * RATE
        if used + times * len(content) > ALL:
            left += 1
            continue
        used += times * len(content)
        heard[id] = Heard(
            uri=f"data:{media};base64,{base64.b64encode(content).decode('ascii')}",
            wave=_wave(clip) if clip is not None else Markup(""),
            seconds=f"{clip.samples.size / RATE:.1f}\u202fs" if clip is not None else "",
        )
    return Players(heard, left, cut)


def _named(screens: Sequence[Screen]) -> Iterator[str]:
    for kind in ("closest", "distant"):
        listed: Iterable[Sequence[Near]] = (getattr(screen, kind) for screen in screens)
        for rank in zip_longest(*listed):
            for item in rank:
                if item is not None:
                    yield item.id
                    if item.nearest_id:
                        yield item.nearest_id


def _decoded(id: str, content: bytes) -> Clip | None:
    """None for what cannot be decoded here: a browser may, and the user gave it."""
    from undersong.corpora import Unreadable, load_clip

    try:
        return load_clip(Sample(id, audio=content), RATE)
    except Unreadable:
        return None


def _small(clip: Clip) -> bytes:
    """MP3, which every browser plays and which is written alike every time."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, clip.samples[: SECONDS * RATE], RATE, format="MP3")
    return file.getvalue()


def _wave(clip: Clip) -> Markup:
    """Peaks over time, on the clip's own scale; the line that a script moves along stands at the beginning."""
    peaks = np.array([np.abs(part).max(initial=0.0) for part in np.array_split(clip.samples, BARS)])
    heights = np.rint(HEIGHT / 2 * peaks / max(float(peaks.max()), 1e-6)).astype(int)
    middle = HEIGHT // 2
    path = "".join(f"M{i},{middle - h}v{max(2 * h, 1)}" for i, h in enumerate(heights))
    bars = tag("svg", tag("path", d=path), viewBox=f"-1 0 {BARS + 1} {HEIGHT}", preserveAspectRatio="none")
    line = tag("line", x1="0%", x2="0%", y1="0%", y2="100%", class_="at")
    return tag("svg", bars, line, class_="wave", aria_hidden="true", width="100%", height=HEIGHT)
