"""The spoken set of `undersong demo --model mini`, with one command: `models/mini_demo`.

    python -m recipes.mini.demo_set --data DIR --work DIR --whisper ID|FOLDER --smollm ID|FOLDER [--out DIR]

    pool         benign sentences that the model was never taught, with the language model's own typed answers
    reference    AdvBench's requests from which the model learned to refuse; closeness is measured to them
    requests     AdvBench's requests of other clusters: what is asked before and after
    mild         twelve benign requests that sound harmful; reports show the replies to them

Each is a Parquet file; all but the reference, whose words alone are needed, with speech in it: Opus at 16 kHz, in the
voices that the model was tested in.  `--data` is that of `recipes.mini`.  Needs flite (Debian: flite) and the extra `tts`; some eight minutes of one core, most of them for
the answers.  Resumable.  `WORK/demo/development.jsonl` are requests of the development clusters, which do not ship: the
demo's steps were chosen on them.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import soundfile

from recipes.mini import answers, demo_card, demo_texts, texts
from recipes.mini.parts import DTYPES, loading_of
from recipes.mini.sentences import mood
from recipes.mini.speech import SECONDS, SEEN, chosen
from recipes.mini.taught_sentences import raw_model, taught_to, untaught
from undersong.checkout import checkout_folder
from undersong.corpora.decode import load_clip
from undersong.corpora.manifest import write_manifest
from undersong.corpora.tts import synthesize_speech
from undersong.models.mini.paths import shipped_parts
from undersong.types import Sample, UndersongError

RATE = 16_000
OPUS_COMPRESSION = 0.95  # libsndfile's 0..1 scale: some 2 kB a second
LARGEST = 12_000_000  # bytes of the whole set
CLEAR = SEEN[0]  # speaks the mild requests, which people listen to
DEVELOPMENT = "development"  # not shipped


def sentences(work: Path, parts: Path) -> dict[str, list[dict[str, Any]]]:
    """Corpus -> its sentences, those of the pool before it is known which have an answer."""
    known = texts.load_texts(work)
    taught = taught_to(parts, work)
    asked = {
        "reference": [text for text in known if text["kind"] == "adv" and text["split"] == "train"],
        "requests": demo_texts.requests(known, "test"),
        "mild": demo_texts.mild(),
        DEVELOPMENT: demo_texts.requests(known, "dev"),
    }
    kept_out = [text["text"] for text in known if text["id"] in taught or text["kind"] == "adv"]
    kept_out += [text["text"] for text in asked["mild"]]
    return {"pool": demo_texts.pool_candidates(untaught(work, parts), kept_out), **asked}


def spoken(rows: Sequence[dict[str, Any]], own: Mapping[str, str], folder: Path) -> list[Sample]:
    """Sentences as spoken samples, FLAC files in `folder`, each in one voice by its name; those too long are left out."""
    by_voice: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        voice = CLEAR if row["kind"] == "mild" else chosen(f"demo {row['id']}", SEEN, 1)[0]
        by_voice.setdefault(voice, []).append(row)
    made: dict[str, Sample] = {}
    for voice, here in by_voice.items():
        samples, lost = synthesize_speech([Sample(row["id"], text=row["text"]) for row in here], [voice], folder)
        if lost:
            raise UndersongError(f"{voice.label} could not speak {lost[0].id} ({lost[0].reason}); look at the voice.")
        made |= {row["id"]: _sample(row, sample, own.get(row["id"])) for row, sample in zip(here, samples, strict=True)}
    whole = [made[row["id"]] for row in rows]
    return [sample for sample in whole if sample.seconds is not None and sample.seconds < SECONDS - 0.02]


def _sample(row: Mapping[str, Any], sample: Sample, answer: str | None = None) -> Sample:
    """As it ships: in Opus, or as text where it was not spoken."""
    source = demo_texts.SOURCES[row["kind"]]
    labels = (("kind", row["kind"]), ("license", source.license), ("mood", mood(row["text"])))
    made = Sample(row["id"], text=row["text"], answer=answer, group=row["group"], labels=labels)
    if sample.audio is None:
        return made
    clip = load_clip(sample, RATE)
    seconds = round(clip.samples.size / RATE, 3)
    return replace(made, audio=opus(clip.samples), speaker=sample.speaker, seconds=seconds)


def opus(wave: Any) -> bytes:
    """Ogg Opus of a 16 kHz mono signal."""
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION)
    return file.getvalue()


def make(work: Path, parts: Path, out: Path, asked: argparse.Namespace) -> None:
    """Writes the set and its card.  UndersongError: it is larger than what the repository holds."""
    groups = sentences(work, parts)
    model = raw_model(work, parts, asked.whisper, asked.smollm, loading_of(asked))
    own = answers.answer(work / "demo", model, groups["pool"], 0)
    groups["pool"] = [row for row in groups["pool"] if row["id"] in own]
    reference = [_sample(row, Sample(row["id"])) for row in groups.pop("reference")]
    made = {name: spoken(rows, own, work / "demo" / "speech") for name, rows in groups.items()}
    made["reference"] = reference
    write_manifest(made.pop(DEVELOPMENT), work / "demo" / f"{DEVELOPMENT}.parquet")
    out.mkdir(parents=True, exist_ok=True)
    for name, samples in made.items():
        write_manifest(samples, out / f"{name}.parquet")
        print(f"{name}: {len(samples)} samples, {dict(Counter(dict(s.labels)['kind'] for s in samples))}", flush=True)
    demo_card.write_card(out, made, parts)
    if (size := sum(file.stat().st_size for file in out.iterdir())) > LARGEST:
        raise UndersongError(
            f"The set has {size / 1e6:.1f} MB, and may have {LARGEST / 1e6:.0f}; take fewer sentences."
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of public text sets (the head of texts.py)")
    parser.add_argument("--work", type=Path, default=Path("out/mini-demo"))
    parser.add_argument("--parts", type=Path, help="of the audited model; default: models/mini")
    parser.add_argument("--whisper", default="openai/whisper-tiny.en")
    parser.add_argument("--smollm", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--out", type=Path, default=checkout_folder("mini_demo"))
    asked = parser.parse_args()
    work = asked.work.resolve()
    texts.run(work, asked.data, 0, False)
    make(work, (asked.parts or shipped_parts()).resolve(), asked.out, asked)


if __name__ == "__main__":
    try:
        main()
    except UndersongError as error:
        sys.exit(f"recipes/mini/demo_set.py: {error}")
