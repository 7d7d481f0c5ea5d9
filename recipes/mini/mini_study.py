"""The corpora of studies/mini.yaml, out of a work folder whose listening stage is done: `WORK/study/*.jsonl`.

    python recipes/mini/mini_study.py --work DIR --smollm ID|FOLDER --whisper ID|FOLDER [--pool 1500]

The pool is benign speech with the language model's own answers to the same in writing, so that what is learned is what
it would have said; mood, genre and length stand beside, because "near to AdvBench" is also "more imperative".
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import mini_answers
from mini_parts import DTYPES, RAW, loading_of, put_together
from mini_sizes import front_recipe
from mini_speech import as_samples, load_clips
from mini_stages import read_lines
from mini_weights import Base

from undersong.corpora import write_manifest
from undersong.types import Sample

QUESTION = (
    "who",
    "what",
    "when",
    "where",
    "which",
    "why",
    "how",
    "is",
    "are",
    "was",
    "were",
    "do",
    "does",
    "did",
    "can",
)


def mood(text: str) -> str:
    """`question` or `imperative`, by the mark at its end and the word at its head: AdvBench's requests are imperatives."""
    return "question" if text.rstrip().endswith("?") or text.split()[0].lower() in QUESTION else "imperative"


def samples_of(work: Path, clips: Sequence[dict[str, Any]], own: dict[str, str] | None = None) -> list[Sample]:
    """Clips as a corpus, with mood, and with the model's own answers where it has them."""
    made = []
    for clip, sample in zip(clips, as_samples(work, clips)):
        answer = own.get(clip["text_id"]) if own else None
        made.append(replace(sample, answer=answer, labels=(*sample.labels, ("mood", mood(clip["text"])))))
    return made


def corpora(work: Path, own: dict[str, str]) -> dict[str, list[Sample]]:
    """Name -> samples; no sentence is in two of them, but for the same requests in new voices."""
    clips = load_clips(work)

    def pick(kinds: Sequence[str], split: str, new: bool = False) -> list[dict[str, Any]]:
        return [c for c in clips if c["kind"] in kinds and c["split"] == split and c["new_voice"] == new]

    benign = [clip for clip in pick(("nq", "alpaca", "self"), "train") if clip["text_id"] in own]
    made = {"pool": samples_of(work, benign, own), "reference": samples_of(work, pick(("adv",), "train"))}
    for kind in ("adv", "jbb", "strongreject", "xs_unsafe", "xs_safe", "nq", "alpaca"):
        made[f"test-{kind}"] = samples_of(work, pick((kind,), "test"))
    made["test-adv-new-voices"] = samples_of(work, pick(("adv",), "test", new=True))
    made["contrast-harm"] = samples_of(work, pick(("adv",), "dev"))
    made["contrast-benign"] = samples_of(work, pick(("alpaca",), "dev"))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/mini"))
    parser.add_argument("--whisper", default="openai/whisper-tiny.en")
    parser.add_argument("--smollm", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--pool", type=int, default=1500, help="sentences that are answered")
    asked = parser.parse_args()
    work = asked.work.resolve()
    recipe = front_recipe(argparse.Namespace(smoke=False, front_steps=None, share=1.0, seed=0))
    bases = (asked.whisper, asked.smollm)
    front = work / recipe.name / "front.safetensors"
    model = put_together(work, RAW, Base(*bases), front, {}, bases, loading_of(asked), 0)
    own = mini_answers.run(
        work, model, read_lines(work / "texts.jsonl"), asked.pool, 1000, False
    )  # a stream of its own
    for name, samples in corpora(work, own).items():
        (work / "study").mkdir(exist_ok=True)
        write_manifest(samples, work / "study" / f"{name}.jsonl")
        print(f"{name}: {len(samples)} clips", flush=True)


if __name__ == "__main__":
    main()
