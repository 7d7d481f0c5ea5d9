"""Bases of a variant: trained, aligned, probed, accepted or not, and written as an ordinary model folder.

Everything is as in `../make.py`, the acceptance rule too; beside it a base has the probe of its projector for voice.
A stage whose file is there is not run again.  Knows trainings; does not know studies or JSR on a test split.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

from batches import Corpus
from make import accepted, after_distant, load, save
from train import AlignRecipe, BaseRecipe, quality, train_aligned, train_base
from variants import VARIANTS, Variant
from voice import VoiceObjective, voice_facts


def of_variant(corpus: Corpus, variant: Variant) -> Corpus:
    """The same clips, codes and token ids, for another variant."""
    mine = copy.copy(corpus)
    mine.architecture = variant
    return mine


def make_base(corpus: Corpus, work: Path, name: str, seed: int, recipe: BaseRecipe | None = None) -> dict:
    """One base of variant `name` in `work` -> its facts, `fails` and `cpu_seconds` among them."""
    variant = VARIANTS[name]
    mine = of_variant(corpus, variant)
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    base, aligned, facts = (folder / f"{part}-{seed}" for part in ("base", "aligned", "facts"))
    file = facts.with_suffix(".json")
    if file.is_file():
        return json.loads(file.read_text())
    start = time.process_time()
    if not base.with_suffix(".safetensors").is_file():
        objective = None
        if variant.voice is not None:
            objective = lambda corpus, model: VoiceObjective(corpus, model, variant.voice, seed)  # noqa: E731
        recipe = recipe or replace(BaseRecipe(), **variant.BASE)
        save(train_base(mine, recipe, seed, objective=objective), base.with_suffix(".safetensors"))
    if not aligned.with_suffix(".safetensors").is_file():
        model = train_aligned(mine, load(mine, base.with_suffix(".safetensors")), AlignRecipe(), seed)
        save(model, aligned.with_suffix(".safetensors"))
    model = load(mine, aligned.with_suffix(".safetensors"))
    found = quality(mine, model, "accept") | voice_facts(mine, model)
    found["other_after_distant"] = round(after_distant(mine, model, seed), 3)
    found |= {"fails": accepted(found), "cpu_seconds": round(time.process_time() - start)}
    file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def write_folder(corpus: Corpus, work: Path, name: str, seed: int, folder: Path) -> None:
    """The aligned base as `from_pretrained` takes it, in float16."""
    if (folder / "config.json").is_file():
        return
    mine, part = of_variant(corpus, VARIANTS[name]), folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model = load(mine, work / name / f"aligned-{seed}.safetensors").half()
    mine.architecture.write(model, mine, part)
    part.rename(folder)
