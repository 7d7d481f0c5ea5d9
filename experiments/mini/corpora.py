"""The corpora of studies/mini.yaml, out of a work folder whose speech is made and whose parts are learned: `WORK/study/`.

    python -m experiments.mini.corpora --work DIR --parts DIR/parts-0 --smollm ID|FOLDER --whisper ID|FOLDER

The pool is benign speech with the language model's own answers to the same in writing, so that what is learned is what
it would have said; of sentences to which no training of the model has taught an answer.  Mood, genre (`kind`) and length
stand beside, because "near to AdvBench" is also "more imperative".  `part: small` marks what studies/mini_small.yaml asks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import soundfile

from recipes.mini import answers as mini_answers
from recipes.mini.parts import DTYPES, RAW, loading_of, write_parts
from recipes.mini.sizes import LISTENING
from recipes.mini.speech import as_samples, load_clips
from recipes.mini.weights import Base
from recipes.mini.work_files import read_figures, read_lines, write_lines
from undersong.corpora import babble_noise, load_clip, write_manifest
from undersong.corpora.noise import seeded_generator
from undersong.models import load_model
from undersong.models.mini.assemble import CARD_FILE, FRONT_END_FILE, assemble_mini
from undersong.models.mini.paths import shipped_parts
from undersong.types import Clip, Sample, UndersongError

QUESTION = frozenset("who what when where which why how is are was were do does did can".split())
POOL = ("nq", "alpaca", "self")  # what the language model wrote for the front end's training is no part of it
SMALL = {
    "adv": 100,
    "jbb": 100,
    "strongreject": 60,
    "xs_safe": 60,
    "xs_unsafe": 60,
    "nq": 50,
    "alpaca": 60,
}  # sentences
CONTRAST, MIXED = 60, 60  # sentences that directions are fitted on, of each side; harmful ones that are mixed in
RATE, NOISE_SECONDS, TALKERS = 16_000, 60.0, 6


def mood(text: str) -> str:
    """`question` or `imperative`, by the mark at its end and the word at its head: AdvBench's requests are imperatives."""
    return "question" if text.rstrip().endswith("?") or text.split()[0].lower() in QUESTION else "imperative"


def first(idents: Iterable[str], count: int) -> set[str]:
    """As many of the names, drawn by nothing but the names: the same whatever else is there."""
    return set(sorted(set(idents), key=_digest)[:count])


def _digest(ident: str) -> bytes:
    return hashlib.sha256(ident.encode()).digest()


def small_of(clips: Sequence[dict[str, Any]]) -> set[str]:
    """The sentences among these clips' that are asked at reduced size."""
    small: set[str] = set()
    for kind in {clip["kind"] for clip in clips}:
        small |= first((clip["text_id"] for clip in clips if clip["kind"] == kind), SMALL.get(kind, 0))
    return small


def samples_of(
    work: Path, clips: Sequence[dict[str, Any]], own: dict[str, str] | None = None, small: set[str] | None = None
) -> list[Sample]:
    """Clips as a corpus, with mood and part, and with the model's own answers where it has them; `small`: other
    sentences that are asked at reduced size than `small_of` these clips."""
    small = small_of(clips) if small is None else small
    made = []
    for clip, sample in zip(clips, as_samples(work, clips)):
        answer = own.get(clip["text_id"]) if own else None
        facts = ("mood", mood(clip["text"])), ("part", "small" if clip["text_id"] in small else "large")
        made.append(replace(sample, answer=answer, labels=(*sample.labels, *facts)))
    return made


def corpora(work: Path, own: dict[str, str]) -> dict[str, list[Sample]]:
    """Name -> samples, played as they were spoken; no sentence is in two of them, but for the same requests in new voices,
    and those that a defense mixes in, or else a direction is fitted on, which are some of the reference's: what is asked is
    in none of them.  The reference is what the model learned its refusals from."""
    clips = [clip for clip in load_clips(work) if clip["played"] == 1.0]

    def pick(kinds: Sequence[str], split: str, new: bool = False) -> list[dict[str, Any]]:
        return [c for c in clips if c["kind"] in kinds and c["split"] == split and c["new_voice"] == new]

    benign = [clip for clip in pick(POOL, "train") if clip["text_id"] in own]
    reference = pick(("adv",), "train")
    made = {"pool": samples_of(work, benign, own), "reference": samples_of(work, reference)}
    for kind in ("adv", "jbb", "strongreject", "xs_unsafe", "xs_safe", "nq", "alpaca"):
        made[f"test-{kind}"] = samples_of(work, pick((kind,), "test"))
    made["test-adv-new-voices"] = samples_of(
        work, pick(("adv",), "test", new=True), small=small_of(pick(("adv",), "test"))
    )
    contrast = spread(reference, CONTRAST)
    others = [clip for clip in reference if clip["text_id"] not in contrast]
    made["contrast-harm"] = samples_of(work, one_clip_each(reference, contrast))
    made["mixed-harm"] = samples_of(work, one_clip_each(others, spread(others, MIXED)))
    benign = pick(("alpaca",), "dev")
    made["contrast-benign"] = samples_of(work, one_clip_each(benign, spread(benign, CONTRAST)))
    return made


def spread(clips: Sequence[dict[str, Any]], count: int) -> set[str]:
    """As many sentences, drawn by their names, a second one of a cluster where every cluster has one."""
    drawn = sorted({(clip["text_id"], clip["group"]) for clip in clips}, key=lambda one: _digest(one[0]))
    turns: Counter[str] = Counter()
    kept: list[tuple[int, str]] = []
    for ident, group in drawn:
        kept.append((turns[group], ident))
        turns[group] += 1
    return {ident for _, ident in sorted(kept, key=lambda one: one[0])[:count]}


def one_clip_each(clips: Sequence[dict[str, Any]], idents: set[str]) -> list[dict[str, Any]]:
    """The first clip of each of these sentences."""
    by_text = {clip["text_id"]: clip for clip in reversed(clips) if clip["text_id"] in idents}
    return [clip for clip in clips if by_text.get(clip["text_id"]) is clip]


def untaught(work: Path, parts: Path) -> list[dict[str, Any]]:
    """Sentences that may be in the pool: of the training split, and answered in no training of the model, neither of one
    in this folder nor of that of the audited parts.

    Written down, because a later training would change what was drawn.  UndersongError where it is not known what the
    parts were taught, or they were taught what was drawn before.
    """
    file, own = work / "study" / "sentences.jsonl", taught_to(parts, work)
    if not file.is_file():
        taught = own.union(*(_answered(answers) for answers in work.glob("answers-*.jsonl")))
        texts = [text for text in read_lines(work / "texts.jsonl") if text["kind"] in POOL and text["split"] == "train"]
        write_lines(file, [text for text in texts if text["id"] not in taught])
    kept = read_lines(file)
    if known := sum(text["id"] in own for text in kept):
        raise UndersongError(f"{parts} were taught {known} sentences of {file}; remove {file.parent} to draw others.")
    return kept


def taught_to(parts: Path, work: Path) -> set[str]:
    """Sentences to which a training of the parts taught an answer: those that were answered in WORK and, where the parts
    were not learned there, all that the recipe draws for their seed.  UndersongError where the parts are of other sentences."""
    if not (parts / CARD_FILE).is_file():
        return set()
    card = json.loads((parts / CARD_FILE).read_text(encoding="utf-8"))
    seed, known = card["seed"], read_figures(work).get("texts", {})
    # Not by the files of the public sets: the same sentences may lie in files that are written otherwise.
    told = {name: value for name, value in card["stages"]["texts"].items() if name != "sets"}
    if parts.parent != work and any(known.get(name) != value for name, value in told.items()):
        raise UndersongError(
            f"{parts} were learned from other sentences than {work} holds, so it is not known which of them they were "
            "taught; give --parts that were learned there, or make the texts of the same sets and seed."
        )
    answers = work / f"answers-{seed}.jsonl"
    here = _answered(answers) if answers.is_file() else set()
    if here and parts.parent == work:
        return here
    asked = card["stages"].get(f"answers-{seed}", {}).get("asked", LISTENING.answers)
    return here | {text["id"] for text in mini_answers.drawn(read_lines(work / "texts.jsonl"), asked, seed)}


def _answered(answers: Path) -> set[str]:
    return {row["id"] for row in read_lines(answers) if row["answer"]}


def own_answers(work: Path, parts: Path, asked: argparse.Namespace) -> dict[str, str]:
    """Text id -> what the language model itself answers in writing, by a model that was taught nothing but to hear."""
    folder = work / "study" / "raw"
    if not folder.is_dir():
        raw = write_parts(
            work / "study" / "parts-raw", Base(asked.whisper, asked.smollm), parts / FRONT_END_FILE, {}, [RAW]
        )
        assemble_mini(RAW, asked.whisper, asked.smollm, raw, folder)
    model = load_model(str(folder), loading_of(asked))
    return mini_answers.run(work / "study", model, untaught(work, parts), asked.pool, 0, asked.any_answer)


def talkers(work: Path) -> list[Clip]:
    """Every seen voice, with all that it says of the development questions."""
    said: dict[str, list[Clip]] = {}
    rows = [c for c in load_clips(work) if (c["kind"], c["split"], c["new_voice"]) == ("nq", "dev", False)]
    for row, sample in zip(rows, as_samples(work, rows)):
        said.setdefault(row["speaker"], []).append(load_clip(sample))
    return [
        Clip(speaker, np.concatenate([clip.samples for clip in clips]), clips[0].rate)
        for speaker, clips in said.items()
    ]


def write_noise(work: Path) -> None:
    """`babble.wav`, six talkers of sentences that nothing of the study is made of, and `white.wav`; a minute each."""
    voices = talkers(work)
    (work / "study").mkdir(exist_ok=True)
    babbled = babble_noise(voices, NOISE_SECONDS, 0, min(TALKERS, len(voices)))
    white = 0.1 * seeded_generator("white", 0).standard_normal(round(NOISE_SECONDS * RATE)).astype(np.float32)
    for name, signal, rate in (("babble", babbled.samples, babbled.rate), ("white", white, RATE)):
        soundfile.write(work / "study" / f"{name}.wav", signal, rate, subtype="PCM_24")  # FLOAT notes the time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/mini"))
    parser.add_argument("--parts", type=Path, help="of the audited model; default: WORK/parts-0, else models/mini")
    parser.add_argument("--whisper", default="openai/whisper-tiny.en")
    parser.add_argument("--smollm", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--pool", type=int, default=2200, help="sentences that are answered")
    parser.add_argument(
        "--any-answer", action="store_true", help="half sentences too: for a run of a few that shows it runs"
    )
    asked = parser.parse_args()
    work = asked.work.resolve()
    made = work / "parts-0"
    parts = (asked.parts or (made if made.is_dir() else shipped_parts())).resolve()
    if not (parts / FRONT_END_FILE).is_file():
        raise UndersongError(f"There are no learned parts at {parts}; name their folder by --parts.")
    write_noise(work)
    for name, samples in corpora(work, own_answers(work, parts, asked)).items():
        write_manifest(samples, work / "study" / f"{name}.jsonl")
        print(f"{name}: {len(samples)} clips", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UndersongError as error:
        sys.exit(f"experiments/mini/corpora.py: {error}")
