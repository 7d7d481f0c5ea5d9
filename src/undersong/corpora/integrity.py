"""Integrity checks for WAV, Ogg, MP3 and FLAC data: truncated files, missing pages, wrong checksums and contradictory
headers. Does not decode.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


UNKNOWN_SIZE = 0x7FFF0000  # larger declared sizes are placeholders of a writer that did not know the size
BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
MP3_KILOBITS = {  # MPEG 1 and MPEG 2/2.5, layers I to III, by bitrate index 1 to 14
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MP3_SAMPLE_RATES = {  # by version bits
    3: (44_100, 48_000, 32_000),
    2: (22_050, 24_000, 16_000),
    0: (11_025, 12_000, 8_000),
}


def corruption_reason(data: bytes, file_format: str, header_log: str) -> str | None:
    """Reason why a decoded file is incomplete or damaged, or None.

    `file_format` and `header_log` are libsndfile's format name and its notes.
    """
    if file_format == "OGG":
        return ogg_corruption(data)
    if file_format == "MP3":
        return mp3_corruption(data)
    return header_corruption(header_log)


def header_corruption(header_log: str) -> str | None:
    """Reason if a header contradicts itself (sizes that the file does not fill, or a wrong rate), by libsndfile's
    notes.
    """
    sizes = re.findall(r"(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", header_log)
    if any(int(actual) < int(declared) < UNKNOWN_SIZE for declared, actual in sizes):
        return "the audio is cut short: its header says so"
    # It is unknown which of the two numbers is right, and so how fast and how high the voice is.
    mismatch = re.search(r"(Bytes/sec|Block Align)\s*: (\d+) \(should be (\d+)\)", header_log)
    if mismatch and int(mismatch[2]):
        return f"the audio's header contradicts itself ({mismatch[1]} is {mismatch[2]} instead of {mismatch[3]})"
    return None


def ogg_corruption(data: bytes) -> str | None:
    """Reason if Ogg pages (RFC 3533) are not contiguous, in order and with valid checksums; else None."""
    offset, page_numbers = 0, dict[bytes, int]()
    while offset < len(data):
        header = data[offset : offset + 27]
        if header[:4] != b"OggS":
            return (
                None if offset and _is_trailing_tag(data[offset:]) else "the audio is damaged: a page has no beginning"
            )
        end = offset + 27 + header[26] if len(header) == 27 else len(data) + 1
        end += sum(data[offset + 27 : end])
        if end > len(data):
            return "the audio is cut short: its last page is not whole"
        serial, number = header[14:18], int.from_bytes(header[18:22], "little")
        if page_numbers.get(serial, number - 1) != number - 1:
            return "the audio is damaged: a page is missing"
        if _ogg_checksum(data[offset : offset + 22] + bytes(4) + data[offset + 26 : end]) != int.from_bytes(
            header[22:26], "little"
        ):
            return "the audio is damaged: a page has a wrong checksum"
        page_numbers[serial] = number
        offset = end
    return None


def mp3_corruption(data: bytes) -> str | None:
    """Reason if MPEG audio frames are not contiguous; else None. Tags around them and one cut frame at the end are
    allowed.

    Frames have no checksum, so damage inside a frame (26 ms) is not found. Free format is accepted as it is.
    """
    offset = skip_tags(data, 0)
    first_frame = next((i for i in range(offset, min(offset + 2048, len(data))) if _has_two_frames(data, i)), None)
    if first_frame is None:
        return (
            None
            if offset < len(data) and (data[offset + 2 : offset + 3] or b"\0")[0] >> 4 == 0
            else _gap_reason(offset)
        )
    offset, kind = first_frame, _mp3_stream_format(data, first_frame)
    frames = -1  # the first frame may hold the number of frames instead of sound
    declared = _mp3_declared_frames(data[first_frame : first_frame + mp3_frame_size(data, first_frame)])
    while offset < len(data):
        size = mp3_frame_size(data, offset)
        if size and _mp3_stream_format(data, offset) == kind:
            offset, frames = offset + size, frames + 1
        elif (next_offset := skip_tags(data, offset)) > offset:
            offset = next_offset
        elif _is_trailing_tag(data[offset:]) or (len(data) - offset < 4 and offset > first_frame):
            break
        else:
            return _gap_reason(offset)
    if frames < declared - 1:
        return f"the audio is cut short: {frames} of its {declared} frames are left"
    return None


def mp3_frame_size(data: bytes, offset: int) -> int:
    """Bytes of the MPEG frame whose header is at `offset`; 0 if there is no header."""
    header = data[offset : offset + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    version, layer, bitrate_index, rate_index = (
        header[1] >> 3 & 3,
        4 - (header[1] >> 1 & 3),
        header[2] >> 4,
        header[2] >> 2 & 3,
    )
    if version == 1 or layer == 4 or not 0 < bitrate_index < 15 or rate_index == 3:
        return 0
    is_mpeg1 = version == 3
    bit_rate, sample_rate = (
        MP3_KILOBITS[1 if is_mpeg1 else 2, layer][bitrate_index - 1] * 1000,
        MP3_SAMPLE_RATES[version][rate_index],
    )
    padding = header[2] >> 1 & 1
    if layer == 1:
        return (12 * bit_rate // sample_rate + padding) * 4
    return (144 if is_mpeg1 or layer == 2 else 72) * bit_rate // sample_rate + padding


def _mp3_stream_format(data: bytes, offset: int) -> tuple[int, int]:
    """Version, layer and sampling rate as bits: constant within one recording."""
    return data[offset + 1] & 0xFE, data[offset + 2] & 0x0C


def _mp3_declared_frames(frame: bytes) -> int:
    """Number of frames that the encoder wrote into the first one (Xing, Info); 0 if it did not."""
    tag_offset = max(frame.find(tag, 0, 48) for tag in (b"Xing", b"Info"))
    has_frame_count = tag_offset >= 0 and frame[tag_offset + 7 : tag_offset + 8] and frame[tag_offset + 7] & 1
    return int.from_bytes(frame[tag_offset + 8 : tag_offset + 12], "big") if has_frame_count else 0


def _has_two_frames(data: bytes, offset: int) -> bool:
    size = mp3_frame_size(data, offset)
    return bool(size) and (offset + size >= len(data) or mp3_frame_size(data, offset + size) > 0)


def skip_tags(data: bytes, offset: int) -> int:
    """Offset behind the ID3v2 tags at `offset`: ten bytes, the last four of them a size with seven bits per byte."""
    while data[offset : offset + 3] == b"ID3" and len(data) >= offset + 10:
        size = 0
        for byte in data[offset + 6 : offset + 10]:
            size = size << 7 | byte & 0x7F
        offset += 10 + size
    return offset


def _is_trailing_tag(trailing: bytes) -> bool:
    """True if the bytes behind the audio are no audio: ID3v1, APE, Lyrics3, or only zeros."""
    return trailing.startswith((b"TAG", b"APETAGEX", b"LYRICSBEGIN")) or not trailing.strip(b"\0")


def _gap_reason(offset: int) -> str:
    return f"the audio is damaged: no MPEG frame at byte {offset}"


def _ogg_checksum(page: bytes) -> int:
    """The checksum of Ogg: CRC-32 as in zlib, but highest bit first, started at 0 and not inverted at the end."""
    mirrored = zlib.crc32(page.translate(BIT_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


FLAC_SAMPLE_RATES = (0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
MAX_EXACT_BITS = 24  # a float32 holds integers of up to 24 bits exactly


class FlacChecksum:
    """MD5 check of a FLAC file: takes the decoded blocks in order, then `corruption_reason` gives the result."""

    def __init__(self, data: bytes) -> None:
        start = skip_tags(data, 0)
        stream_info = data[start + 8 : start + 42]  # STREAMINFO comes first, behind `fLaC` and its own header
        packed = int.from_bytes(stream_info[10:18], "big")
        self._rate, self._bits, self._expected = packed >> 44, (packed >> 36 & 31) + 1, stream_info[18:34]
        self._frame_rate = _frame_sample_rate(data, start)
        self._sum = hashlib.md5(usedforsecurity=False)

    def add(self, block: np.ndarray) -> None:
        """Add a block (frames, channels) float32 as libsndfile scales it: full scale is 1."""
        if self._bits > MAX_EXACT_BITS or not any(self._expected):
            return
        import numpy as np

        # The format's layout: signed, little-endian, in as many whole bytes as the bits need.
        integers = np.ascontiguousarray((block * 2.0 ** (self._bits - 1)).astype("<i4"))
        size = (self._bits + 7) // 8
        self._sum.update(integers.view(np.uint8).reshape(-1, 4)[:, :size].tobytes())

    def corruption_reason(self) -> str | None:
        """Reason why the file is damaged, or None if it is intact or its header says too little.

        Call it after the last block; before, the checksum is not that of the whole file.
        """
        if self._frame_rate not in (None, self._rate):
            return f"the audio's header contradicts itself (a rate of {self._rate} Hz and of {self._frame_rate})"
        if self._bits <= MAX_EXACT_BITS and any(self._expected) and self._sum.digest() != self._expected:
            return "the audio is damaged: its samples have another checksum than its header says"
        return None


def _frame_sample_rate(data: bytes, start: int) -> int | None:
    """Rate in the first frame's header; None if it refers to the stream's rate, or there is no frame."""
    offset, is_last = start + 4, False
    while not is_last and offset + 4 <= len(data):
        is_last = bool(data[offset] & 0x80)
        offset += 4 + int.from_bytes(data[offset + 1 : offset + 4], "big")
    header = data[offset : offset + 3]
    if len(header) < 3 or header[0] != 0xFF or header[1] & 0xFE != 0xF8:
        return None
    code = header[2] & 15
    return FLAC_SAMPLE_RATES[code] if 0 < code < len(FLAC_SAMPLE_RATES) else None
