"""The corpora of studies/mini.yaml, out of a work folder whose speech is made and whose parts are learned: `WORK/study/`.

    python -m experiments.mini.corpora --work DIR --parts DIR/parts-0 --smollm ID|FOLDER --whisper ID|FOLDER

The pool is benign speech with the language model's own answers to the same in writing, so that what is learned is what
it would have said; of sentences to which no training of the model has taught an answer.  Mood, genre (`kind`) and length
stand beside, because "near to AdvBench" is also "more imperative".  `part: small` marks what studies/mini_small.yaml asks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import soundfile

from recipes.mini import answers as mini_answers
from recipes.mini.parts import DTYPES, loading_of
from recipes.mini.sentences import digest, first, mood
from recipes.mini.speech import as_samples, load_clips
from recipes.mini.taught_sentences import POOL, raw_model, untaught
from undersong.corpora.decode import load_clip
from undersong.corpora.manifest import write_manifest
from undersong.corpora.noise import babble_noise, seeded_generator
from undersong.models.mini.assemble import FRONT_END_FILE
from undersong.models.mini.paths import shipped_parts
from undersong.types import Clip, Sample, UndersongError

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
    drawn = sorted({(clip["text_id"], clip["group"]) for clip in clips}, key=lambda one: digest(one[0]))
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


def own_answers(work: Path, parts: Path, asked: argparse.Namespace) -> dict[str, str]:
    """Text id -> what the language model itself answers in writing, by a model that was taught nothing but to hear."""
    model = raw_model(work, parts, asked.whisper, asked.smollm, loading_of(asked))
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
