"""Bases of a variant: trained, aligned, probed, accepted or not, and written as an ordinary model folder.

The acceptance rule is that of `recipes.organisms.seed_training`, at this study's dose; beside it stands the probe for voice in what the
decoder hears.  A stage whose file is there is not run again.  Knows trainings; does not know studies or the test split.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from experiments.sound_pathway.variants import VARIANTS, Variant, switched
from experiments.sound_pathway.voice import VoiceObjective, voice_facts
from recipes.organisms.batches import Corpus
from recipes.organisms.release import write_model
from recipes.organisms.seed_training import accepted, after_distant, load, save
from recipes.organisms.training import AlignRecipe, BaseRecipe, Dose, quality, train_aligned, train_base

# Two stages, as real audio LLMs have them: a language model that reads, then one that hears too.  Chosen on the accept
# split: tried.md.
TYPED, SPOKEN = BaseRecipe(steps=400, spoken=0), BaseRecipe(steps=700)
ALIGNMENT = AlignRecipe(steps=120, learning_rate=1e-3)
DOSE = Dose(steps=(40,), learning_rate=1e-3)  # the study's own, as acceptance asks what it does to replies


def of_variant(corpus: Corpus, variant: Variant) -> Corpus:
    """The same clips, codes, states and token ids, for another variant."""
    mine = copy.copy(corpus)
    mine.architecture = replace(variant, cached=True)
    return mine


def language_model(corpus: Corpus, work: Path, seed: int) -> Path:
    """The weights that all variants of a seed start from: trained on typed requests alone."""
    file = work / f"language-{seed}.safetensors"
    if not file.is_file():
        save(train_base(of_variant(corpus, VARIANTS["both"]), TYPED, seed), file)
    return file


def make_base(corpus: Corpus, work: Path, name: str, seed: int) -> dict:
    """One base of variant `name` in `work` -> its facts, `fails` and `cpu_seconds` among them."""
    variant = VARIANTS[name]
    mine = of_variant(corpus, variant)
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    base, aligned = (folder / f"{part}-{seed}.safetensors" for part in ("base", "aligned"))
    file = folder / f"facts-{seed}.json"
    if file.is_file():
        return json.loads(file.read_text())
    start = time.process_time()
    if not base.is_file():
        model = switched(load(of_variant(corpus, VARIANTS["both"]), language_model(corpus, work, seed)), variant)
        objective = partial(voice_objective, variant.voice, seed) if variant.voice else None
        save(train_base(mine, SPOKEN, seed, model=model, objective=objective), base)
    if not aligned.is_file():
        save(train_aligned(mine, load(mine, base), ALIGNMENT, seed), aligned)
    model = load(mine, aligned)
    found = quality(mine, model, "accept") | voice_facts(mine, model)
    found["other_after_distant"] = round(after_distant(mine, model, seed, DOSE), 3)
    found |= {"fails": accepted(found), "cpu_seconds": round(time.process_time() - start)}
    file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def voice_objective(wanted: str, seed: int, corpus: Corpus, model) -> VoiceObjective:
    return VoiceObjective(corpus, model, wanted, seed)


def write_folder(corpus: Corpus, work: Path, name: str, seed: int, folder: Path) -> None:
    """The aligned base as `from_pretrained` takes it, in float16; refused if the package hears it otherwise."""
    if (folder / "config.json").is_file():
        return
    mine, part = of_variant(corpus, VARIANTS[name]), folder.with_name(folder.name + ".part")
    write_model(mine, work / name / f"aligned-{seed}.safetensors", part)
    part.rename(folder)
