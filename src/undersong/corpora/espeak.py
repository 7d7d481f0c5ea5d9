"""A worker process for espeak-ng: reads JSON lines and writes raw samples. It forks for every utterance, so that output
is reproducible. Imports ctypes only.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any, BinaryIO

SYNCHRONOUS, UTF8, RATE_PARAMETER = 2, 1, 1


def serve(lines: BinaryIO, out: BinaryIO) -> None:
    """Answer each line {"text", "voice", "speed"} with {"rate", "bytes"} and 16-bit samples, or with {"error"}."""
    library, rate = _initialize()
    for line in lines:
        pcm, error = _synthesize_in_fork(library, json.loads(line))
        out.write(json.dumps({"error": error} if error else {"rate": rate, "bytes": len(pcm)}).encode() + b"\n" + pcm)
        out.flush()


def _initialize() -> tuple[Any, int]:
    """Load the library with the path of its data; return it and its sampling rate."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
        *(ctypes.c_void_p, ctypes.c_void_p),
    ]
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate <= 0:
        raise OSError("espeak-ng did not start")
    return library, rate


def _synthesize_in_fork(library: Any, request: dict[str, Any]) -> tuple[bytes, str | None]:
    """Return (samples, None) or (b"", reason). A crash of the library ends only the fork."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read_end)
            with open(write_end, "wb") as pipe:
                pipe.write(_synthesize(library, **request))
            status = 0
        except LookupError:
            status = 2
        finally:
            os._exit(status)  # none of the parent's buffers is flushed twice
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        pcm = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 2:
        return b"", f"espeak-ng has no voice {request['voice']!r}"
    if status:
        return b"", f"espeak-ng failed on it (status {status})"
    return pcm, None if pcm else "espeak-ng says nothing"


def _synthesize(library: Any, text: str, voice: str, speed: int) -> bytes:
    """16-bit samples of one utterance. Raises LookupError if the voice is unknown."""
    blocks: list[bytes] = []
    callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

    def collect(samples: Any, count: int, _event: Any) -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = callback_type(collect)  # a reference must outlive the synthesis
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise LookupError(voice)
    library.espeak_SetParameter(RATE_PARAMETER, speed, 0)
    data = text.encode() + b"\0"
    if library.espeak_Synth(data, len(data), 0, 1, 0, UTF8, None, None) != 0:
        raise OSError("synthesis failed")
    library.espeak_Synchronize()
    return b"".join(blocks)


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
