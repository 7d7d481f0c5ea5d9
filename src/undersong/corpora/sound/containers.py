"""Whether an audio file is whole, where decoders pass over what is missing.  Knows bytes; decodes nothing.

libsndfile reads what is left of a cut WAV, drops a damaged Ogg page and resynchronises in a damaged MP3, all without
an error: a clip with a hole in it would be embedded as if it were whole.
"""

from __future__ import annotations

import re
import zlib

STREAMED = 0x7FFF0000  # from here on a declared size is a placeholder of a writer that did not know it
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
KBITS = {  # MPEG 1 and MPEG 2/2.5, layers I to III, by bitrate index 1 to 14
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version bits


def fault(data: bytes, coding: str, log: str) -> str | None:
    """Why a file that was decoded is not whole, or None.  `coding` and `log`: libsndfile's format and its notes."""
    if coding == "OGG":
        return ogg_fault(data)
    if coding == "MP3":
        return mp3_fault(data)
    return header_fault(log)


def header_fault(log: str) -> str | None:
    """What libsndfile saw in a header that contradicts itself: sizes that the file does not fill, or a wrong rate."""
    sizes = re.findall(r"(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", log)
    if any(int(is_) < int(declared) < STREAMED for declared, is_ in sizes):
        return "the audio is cut short: its header says so"
    # Which of the two numbers is right, and so how fast and how high the voice is, nobody can tell.
    wrong = re.search(r"(Bytes/sec|Block Align)\s*: (\d+) \(should be (\d+)\)", log)
    if wrong and int(wrong[2]):
        return f"the audio's header contradicts itself ({wrong[1]} is {wrong[2]} instead of {wrong[3]})"
    return None


def ogg_fault(data: bytes) -> str | None:
    """Ogg (RFC 3533): pages follow each other without a gap, in order, each with its checksum."""
    place, numbers = 0, dict[bytes, int]()
    while place < len(data):
        head = data[place : place + 27]
        if head[:4] != b"OggS":
            return None if place and _is_tag(data[place:]) else "the audio is damaged: a page has no beginning"
        end = place + 27 + head[26] if len(head) == 27 else len(data) + 1
        end += sum(data[place + 27 : end])
        if end > len(data):
            return "the audio is cut short: its last page is not whole"
        serial, number = head[14:18], int.from_bytes(head[18:22], "little")
        if numbers.get(serial, number - 1) != number - 1:
            return "the audio is damaged: a page is missing"
        if _ogg_sum(data[place : place + 22] + bytes(4) + data[place + 26 : end]) != int.from_bytes(
            head[22:26], "little"
        ):
            return "the audio is damaged: a page has a wrong checksum"
        numbers[serial] = number
        place = end
    return None


def mp3_fault(data: bytes) -> str | None:
    """MPEG audio: frames follow each other without a gap; tags may stand around them, one frame may be cut at the end.

    Frames have no checksum, so what is damaged inside one (26 ms) is not found.  Free format is taken as it is.
    """
    place = after_tags(data, 0)
    first = next((i for i in range(place, min(place + 2048, len(data))) if _two_frames(data, i)), None)
    if first is None:
        return None if place < len(data) and (data[place + 2 : place + 3] or b"\0")[0] >> 4 == 0 else _gap(place)
    place, kind, frames = first, _mp3_kind(data, first), -1  # the first frame may hold no sound but their number
    declared = _mp3_declared(data[first : first + mp3_frame(data, first)])
    while place < len(data):
        size = mp3_frame(data, place)
        if size and _mp3_kind(data, place) == kind:
            place, frames = place + size, frames + 1
        elif (after := after_tags(data, place)) > place:
            place = after
        elif _is_tag(data[place:]) or (len(data) - place < 4 and place > first):
            break
        else:
            return _gap(place)
    if frames < declared - 1:
        return f"the audio is cut short: {frames} of its {declared} frames are left"
    return None


def mp3_frame(data: bytes, place: int) -> int:
    """The bytes of the frame whose header stands at `place`; 0 where none does."""
    head = data[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer, kind, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or not 0 < kind < 15 or rate == 3:
        return 0
    first = version == 3
    bits, hertz = KBITS[1 if first else 2, layer][kind - 1] * 1000, RATES[version][rate]
    padding = head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (144 if first or layer == 2 else 72) * bits // hertz + padding


def _mp3_kind(data: bytes, place: int) -> tuple[int, int]:
    """Version, layer and sampling rate as bits: what does not change within one recording."""
    return data[place + 1] & 0xFE, data[place + 2] & 0x0C


def _mp3_declared(frame: bytes) -> int:
    """The number of frames that the encoder wrote into the first one (Xing, Info); 0 where it did not."""
    found = max(frame.find(mark, 0, 48) for mark in (b"Xing", b"Info"))
    there = found >= 0 and frame[found + 7 : found + 8] and frame[found + 7] & 1
    return int.from_bytes(frame[found + 8 : found + 12], "big") if there else 0


def _two_frames(data: bytes, place: int) -> bool:
    size = mp3_frame(data, place)
    return bool(size) and (place + size >= len(data) or mp3_frame(data, place + size) > 0)


def after_tags(data: bytes, place: int) -> int:
    """Past the ID3v2 tags at `place`: ten bytes, the last four of them a size of seven bits a byte."""
    while data[place : place + 3] == b"ID3" and len(data) >= place + 10:
        size = 0
        for byte in data[place + 6 : place + 10]:
            size = size << 7 | byte & 0x7F
        place += 10 + size
    return place


def _is_tag(rest: bytes) -> bool:
    """Whether what follows the audio is no audio: ID3v1, APE, Lyrics3, or nothing but zeros."""
    return rest.startswith((b"TAG", b"APETAGEX", b"LYRICSBEGIN")) or not rest.strip(b"\0")


def _gap(place: int) -> str:
    return f"the audio is damaged: no MPEG frame at byte {place}"


def _ogg_sum(page: bytes) -> int:
    """The checksum of Ogg: CRC-32 as in zlib, but the highest bit first, from 0 and not inverted at the end."""
    mirrored = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
