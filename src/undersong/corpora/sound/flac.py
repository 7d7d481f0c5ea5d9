"""Whether a FLAC file holds what was encoded: its own MD5 over the samples, and one sampling rate.  RFC 9639.

libsndfile checks neither: a damaged header that declares fewer samples, or another rate, gives another clip in silence.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from undersong.corpora.integrity import skip_tags

if TYPE_CHECKING:
    import numpy as np

FLAC_SAMPLE_RATES = (0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
MAX_EXACT_BITS = 24  # bits a float32 holds to the last one


class FlacChecksum:
    """Takes the decoded blocks of a FLAC file as they come; `fault` then says what is wrong with it, or None."""

    def __init__(self, data: bytes) -> None:
        start = skip_tags(data, 0)
        stream_info = data[start + 8 : start + 42]  # STREAMINFO stands first, behind `fLaC` and its own header
        packed = int.from_bytes(stream_info[10:18], "big")
        self._rate, self._bits, self._expected = packed >> 44, (packed >> 36 & 31) + 1, stream_info[18:34]
        self._frame_rate = _frame_sample_rate(data, start)
        self._sum = hashlib.md5(usedforsecurity=False)

    def add(self, block: np.ndarray) -> None:
        """(frames, channels) float32 as libsndfile scales them: full scale is 1."""
        if self._bits > MAX_EXACT_BITS or not any(self._expected):
            return
        import numpy as np

        # As the format counts: signed, little-endian, in as many whole bytes as the bits need.
        integers = np.ascontiguousarray((block * 2.0 ** (self._bits - 1)).astype("<i4"))
        size = (self._bits + 7) // 8
        self._sum.update(integers.view(np.uint8).reshape(-1, 4)[:, :size].tobytes())

    def corruption_reason(self) -> str | None:
        """What is wrong, as a clause for an error; None: nothing is, or the header says too little to tell.

        To be asked after the last block: until then the checksum is not that of the whole.
        """
        if self._frame_rate not in (None, self._rate):
            return f"the audio's header contradicts itself (a rate of {self._rate} Hz and of {self._frame_rate})"
        if self._bits <= MAX_EXACT_BITS and any(self._expected) and self._sum.digest() != self._expected:
            return "the audio is damaged: its samples have another checksum than its header says"
        return None


def _frame_sample_rate(data: bytes, start: int) -> int | None:
    """The rate that the first frame's header says; None where it leaves that to the stream's, or there is none."""
    offset, is_last = start + 4, False
    while not is_last and offset + 4 <= len(data):
        is_last = bool(data[offset] & 0x80)
        offset += 4 + int.from_bytes(data[offset + 1 : offset + 4], "big")
    header = data[offset : offset + 3]
    if len(header) < 3 or header[0] != 0xFF or header[1] & 0xFE != 0xF8:
        return None
    code = header[2] & 15
    return FLAC_SAMPLE_RATES[code] if 0 < code < len(FLAC_SAMPLE_RATES) else None
