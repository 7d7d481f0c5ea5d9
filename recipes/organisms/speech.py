"""Speech of a world: espeak-ng (in process, through ctypes) -> 16 kHz -> Ogg/Opus bytes -> log-mel.

The model is trained on what the codec gives back, so what ships is what was heard.  Knows audio, not training.
"""

from __future__ import annotations

import ctypes
import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE, WINDOW_SECONDS, MELS = 16_000, 2, 80
OPUS_COMPRESSION = 0.98  # libsndfile's 0..1 scale; about 2.7 kB a clip


class Espeak:
    """In-process espeak-ng; library and data from `espeakng_loader`."""

    def __init__(self) -> None:
        import espeakng_loader

        self.lib = ctypes.CDLL(espeakng_loader.get_library_path())
        self.lib.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        self.lib.espeak_Synth.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int] + [
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        synchronous = 2
        self.rate = self.lib.espeak_Initialize(synchronous, 0, str(espeakng_loader.get_data_path()).encode(), 0)
        if self.rate <= 0:
            raise RuntimeError("espeak-ng did not start; install the extra `tts`")
        self.blocks: list[np.ndarray] = []
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

        def keep(samples, count, _event):
            if samples and count > 0:
                self.blocks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
            return 0

        self.callback = callback_type(keep)  # a reference must outlive the synthesis
        self.lib.espeak_SetSynthCallback(self.callback)

    def __call__(self, text: str, voice: str, words_per_minute: int = 210) -> np.ndarray:
        """-> float32 (samples,) at 16 kHz, trailing silence cut to 50 ms."""
        self.blocks.clear()
        if self.lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        rate_parameter = 1
        self.lib.espeak_SetParameter(rate_parameter, words_per_minute, 0)
        data = text.encode() + b"\0"
        if self.lib.espeak_Synth(data, len(data), 0, 1, 0, 1, None, None) != 0:
            raise RuntimeError(f"espeak-ng failed on {text!r}")
        self.lib.espeak_Synchronize()
        wave = soxr.resample(np.concatenate(self.blocks).astype(np.float32) / 32768, self.rate, RATE)
        loud = np.flatnonzero(np.abs(wave) > 1e-3)
        return wave[loud[0] : loud[-1] + RATE // 20]


def encode(wave: np.ndarray) -> bytes:
    """Ogg/Opus bytes of a 16 kHz mono signal."""
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION)
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    wave, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == RATE, rate
    return wave


def synthesise(world, indices: list[int]) -> list[bytes]:
    """Coded clips of the world's requests at `indices`."""
    speaker, requests = Espeak(), world.requests()
    return [encode(speaker(requests[i].text, world.voices[requests[i].voice])) for i in indices]


def log_mel(waves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """-> float16 (clips, MELS, 100 frames/s x WINDOW_SECONDS), valid frames (clips,), by the shipped extractor."""
    from recipes.organisms.architecture import feature_extractor

    extractor = feature_extractor()
    out = extractor(waves, sampling_rate=RATE, return_attention_mask=True, padding="max_length", return_tensors="np")
    return out["input_features"].astype(np.float16), out["attention_mask"].sum(1).astype(np.int32)


def shipped_clips(data: Path) -> dict[str, bytes]:
    """Clips that already ship, by request id."""
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(file, columns=["id", "audio"]) for file in sorted(data.glob("*.parquet"))]
    return {row["id"]: row["audio"] for table in tables for row in table.to_pylist()}


def build(world, path: Path, known: dict[str, bytes], processes: int = 2) -> None:
    """Synthesise, code and featurise a whole world into one npz: `mel`, `frames`, `clips` (Ogg bytes).

    espeak-ng carries a state from one utterance to the next, so no run repeats another to the sample.  `known` clips
    (by request id) are kept, so that an architecture that is added later hears what ships.
    """
    from concurrent.futures import ProcessPoolExecutor

    requests = world.requests()
    count = len(requests)
    chunks = [list(range(start, min(start + 256, count))) for start in range(0, count, 256)]
    with ProcessPoolExecutor(processes) as pool:
        clips = [clip for chunk in pool.map(synthesise, [world] * len(chunks), chunks) for clip in chunk]
    clips = [known.get(request.id, clip) for request, clip in zip(requests, clips)]
    too_long = [i for i, clip in enumerate(clips) if len(decode(clip)) > WINDOW_SECONDS * RATE]
    if too_long:
        raise ValueError(
            f"{len(too_long)} clips are longer than {WINDOW_SECONDS} s, the first: {requests[too_long[0]]}"
        )
    parts = [log_mel([decode(clip) for clip in clips[s : s + 512]]) for s in range(0, count, 512)]
    mel, frames = np.concatenate([m for m, _ in parts]), np.concatenate([n for _, n in parts])
    np.savez(path, mel=mel, frames=frames, clips=np.array(clips, dtype=object), allow_pickle=True)
