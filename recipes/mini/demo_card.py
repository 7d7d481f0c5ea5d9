"""The card of the demo's spoken set: what is in it, where it is from, under which licenses, and its hashes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipes.mini.demo_texts import SOURCES
from recipes.mini.speech import SEEN
from undersong.corpora.tts import Voice, voice_identity
from undersong.models.mini.assemble import hash_parts
from undersong.store.atomic import write_atomic
from undersong.store.hashing import hash_file
from undersong.types import Sample

CARD = "CARD.md"
TEMPLATE = Path(__file__).with_name("demo_card_text.md")
PURPOSES = {
    "pool": "benign; training samples are selected from it",
    "reference": "harmful; Mini learned its refusals from these, and closeness is measured to them",
    "requests": "harmful; asked before and after tuning, from clusters that the model never saw",
    "mild": "benign requests that sound harmful; reports show the replies to them",
}


def write_card(out: Path, made: Mapping[str, Sequence[Sample]], parts: Path) -> None:
    """`CARD.md`, of what lies in the folder."""
    files = "\n".join(_file_row(out / f"{name}.parquet", name, samples) for name, samples in made.items())
    sources = "\n".join(_source_rows(made))
    used = {sample.speaker for samples in made.values() for sample in samples}
    voices = "\n".join(
        f"| `{voice.label}` | {_engine_name(voice)} | {voice.speed} |" for voice in SEEN if voice.label in used
    )
    front = hash_parts(parts)["front.safetensors"]
    text = TEMPLATE.read_text(encoding="utf-8").format(files=files, sources=sources, voices=voices, front=front)
    write_atomic(out / CARD, text.encode())


def _engine_name(voice: Voice) -> str:
    """Engine and version; of flite's banner the number alone, because the text of the card has its copyright."""
    engine, version, *_ = voice_identity(voice)
    numbered = re.search(r"version: flite-(\d+(?:\.\d+)*)", version)
    return f"{engine} {numbered[1] if numbered else version}"


def _file_row(file: Path, name: str, samples: Sequence[Sample]) -> str:
    groups, seconds = len({sample.group for sample in samples}), sum(sample.seconds or 0 for sample in samples)
    minutes = f"{seconds / 60:.1f}" if seconds else "text"
    return (
        f"| `mini:{name}` | {len(samples)} | {groups} | {minutes} | {file.stat().st_size / 1e6:.1f} MB | "
        f"{PURPOSES[name]} | `{hash_file(file)}` |"
    )


def _source_rows(made: Mapping[str, Sequence[Sample]]) -> list[str]:
    rows = []
    for name, samples in made.items():
        for kind, count in sorted(Counter(dict(sample.labels)["kind"] for sample in samples).items()):
            source = SOURCES[kind]
            rows.append(f"| `mini:{name}` | {source.name} | {count} | {source.license} | `{source.origin}` |")
    return rows
