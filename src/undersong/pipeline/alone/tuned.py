"""`tune`: a decoder trained on a manifest's samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.alone.readied import examined, ready_model
from undersong.pipeline.folders import same_as_before, whole, writable, write_provenance
from undersong.pipeline.stages.training import picked, recipe_of, targets_of, train
from undersong.store import canonical, replacing
from undersong.study import Tuning
from undersong.types import Sample, UndersongError


def tune_manifest(
    manifest: str | Path,
    model: str,
    out: str | Path,
    selection: str | Path | None = None,
    modality: str = "audio",
    seed: int = 0,
    recipe: Mapping[str, Any] | None = None,
    target: str = "answer",
    system: str | None = None,
    loading: Loading = PLAIN,
) -> list[Path]:
    """LoRA on a manifest's samples, or on those of a `selection.json`; the PEFT folders kept, one a step (in several
    processes: of the first, which alone writes).

    `manifest`: a path or `organism:NAME`; `recipe`: keys of a study's `tuning`, which has the defaults.  Writes
    `step-*/`, `log.jsonl` and `provenance.json` to `out`.  Errors, before step one: a sample to train on that cannot
    be used, a recipe out of range, an `out` that holds something else, or a training of anything else.
    """
    from undersong.corpora import corpus_hash
    from undersong.models.folders import model_hash
    from undersong.proximity import ids_hash
    from undersong.tuning.lora import step_folder, write_log
    from undersong.tuning.processes import device_here, rank, world

    settings = _settings({**(recipe or {}), "target": target}, modality, seed)
    out = writable(Path(out), "tune")
    samples = _to_train_on(str(manifest), selection, modality)
    targets_of(samples, target)  # an empty one is an error, which should not wait for the model
    loading = replace(loading, device=device_here(loading.device))
    values = recipe_of(settings)
    config: dict[str, Any] = {"recipe": values, "modality": modality, "seed": seed, "system": system, "target": target}
    config["loading"] = loading.key
    inputs = {
        "model": model_hash(model),
        "manifest": corpus_hash(str(manifest)),
        "ids": ids_hash(s.id for s in samples),
    }
    same_as_before(out, "tune", config, inputs)
    loaded = ready_model(model, loading, samples)
    state = out.with_name(f"{out.name}.{_named(config, inputs)}.state")
    kept = state.with_suffix(".kept")  # a killed training goes on after the steps that it has kept

    def keep(name: str, write: Any) -> None:
        with replacing(kept / name) as path:
            write(path)

    tuned = train(loaded, samples, modality, system, target, values, seed, keep, state)
    if rank() > 0:
        return []
    with whole(out, "tune") as folder:
        for made in kept.iterdir():
            made.rename(folder / made.name)
        kept.rmdir()
        write_log(tuned, folder / "log.jsonl")
        notes = {"model": model, "device": loading.device, **loaded.facts, "samples": len(samples)}
        notes |= {"processes": world(), "frozen_before": tuned.frozen_before, "frozen_after": tuned.frozen_after}
        write_provenance(folder, "tune", config, inputs, notes)
    return [out / step_folder(step) for step in settings.steps]


def _named(config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """A name for this very training: another recipe must not go on from its state."""
    return hashlib.sha256(canonical([dict(config), dict(inputs)]).encode()).hexdigest()[:12]


def _settings(values: Mapping[str, Any], modality: str, seed: int) -> Tuning:
    """The recipe as a study would check it."""
    from pydantic import ValidationError

    try:
        return Tuning.model_validate({**values, "modalities": [modality], "seeds": [seed], "draws": [seed]})
    except ValidationError as error:
        problem = error.errors()[0]
        where = next((str(part) for part in problem["loc"]), "recipe").replace("modalities", "modality")
        raise UndersongError(
            f"Tuning: {where}: {problem['msg'].removeprefix('Value error, ')}; give another."
        ) from None


def _to_train_on(manifest: str, selection: str | Path | None, modality: str) -> list[Sample]:
    """The selected samples by id, all of them usable; an id that is quarantined or gone is an error (DESIGN rule 2)."""
    from undersong.corpora import open_corpus
    from undersong.proximity import from_json

    opened = open_corpus(manifest)
    if selection is None:
        ids = sorted([*(s.id for s in opened.samples), *(item.id for item in opened.quarantined)])
    else:
        ids = list(from_json(_text_of(Path(selection))).ids)
    chosen = picked(opened.samples, opened.quarantined, ids)
    usable, failed = examined(chosen, modality)
    return picked(usable, failed, ids)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UndersongError(f"The selection {file} cannot be read ({error}); give a selection.json.") from None
