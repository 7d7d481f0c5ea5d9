"""Written references spoken by text-to-speech voices, so that clips can be compared with clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from undersong.corpora.tts import Voice, synthesize_speech, voice_identity
from undersong.screening.check.request_sets import RequestSet
from undersong.stages.context import RunContext
from undersong.store.draft import Draft
from undersong.store.hashing import canonical_json
from undersong.types import Sample, UndersongError

if TYPE_CHECKING:
    from undersong.store.store import Artifact

SPEAKING_VERSION = 1
# Several speakers and accents, so that no axis can tell requests apart by who speaks.
DEFAULT_VOICES = ("espeak:en-us", "espeak:en-us+f3", "espeak:en-gb-x-rp+f2", "espeak:en-gb-scotland+m3")
SPOKEN_FILE = "spoken.parquet"


def available_voices(named: Sequence[str]) -> tuple[str, ...]:
    """The named voices, or those of espeak-ng if it is installed; none if it is not."""
    return tuple(named) or (DEFAULT_VOICES if find_spec("espeakng_loader") is not None else ())


def speak_set(ctx: RunContext, requests: RequestSet, voices: Sequence[str]) -> RequestSet:
    """Speak written requests, each in one of the voices in turn; those that cannot be spoken are left out.

    The voices take turns over clusters of both references in the same way, so both have the same mixture of voices.

    Args:
        ctx: The run context, whose store keeps the clips.
        requests: Written requests.
        voices: The voices, ENGINE:NAME.

    Raises:
        UndersongError: A voice is not installed.
    """
    from undersong.corpora.manifest import read_manifest, write_manifest

    spoken_by = _parse_voices(voices)
    texts = [sample.text or "" for sample in requests.samples]
    config = {"voices": [list(voice_identity(voice)) for voice in spoken_by], "texts": texts}

    def make(draft: Draft) -> None:
        spoken = list[Sample]()
        for turn, voice in enumerate(spoken_by):
            ctx.announce(f"{voice.label} speaks {len(requests.samples[turn :: len(spoken_by)]):,} requests.")
            clips, _ = synthesize_speech(requests.samples[turn :: len(spoken_by)], [voice], draft.path / "clips")
            spoken += [replace(clip, labels=()) for clip in clips]
        if not spoken:
            raise UndersongError(f"None of {len(texts):,} requests can be spoken by {', '.join(voices)}; name others.")
        with draft.file(SPOKEN_FILE) as path:
            write_manifest(spoken, path)

    artifact: Artifact = ctx.store.get_or_make("spoken_requests", SPEAKING_VERSION, config, {}, make)
    clips = {sample.id: sample for sample in read_manifest(artifact.path / SPOKEN_FILE).samples}
    kept = [i for i in range(len(requests.samples)) if str(i) in clips]
    chosen = requests.take(kept)
    samples = tuple(
        replace(sample, audio=clips[str(i)].audio, speaker=clips[str(i)].speaker)
        for i, sample in zip(kept, chosen.samples, strict=True)
    )
    return replace(chosen, samples=samples)


def voices_key(voices: Sequence[str]) -> str:
    """What determines how the voices sound, for keys."""
    spoken_by = _parse_voices(voices)
    return canonical_json([list(voice_identity(voice)) for voice in spoken_by])


def _parse_voices(names: Sequence[str]) -> list[Voice]:
    return [Voice(engine, name) for engine, _, name in (voice.partition(":") for voice in names)]
