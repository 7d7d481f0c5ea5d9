"""`tune`: fine-tune the decoder on a manifest's samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from undersong.encoders.batching import watch_progress
from undersong.escaping import describe_error
from undersong.options import key_values
from undersong.regular_files import check_regular_file
from undersong.settings.presets import PRESETS
from undersong.settings.tuning import TuningSettings
from undersong.stages.output_folder import (
    check_output_folder,
    check_same_options,
    check_same_provenance,
    locked_output_folder,
    report_kept_work,
    write_provenance,
)
from undersong.stages.training import select_by_id, train_on_samples, training_recipe, training_targets
from undersong.standalone.inputs import examine_samples, load_model_with_audio
from undersong.standalone.options import TuneOptions
from undersong.store.atomic import TEMPORARY_PREFIX, atomic_replacement, move_into_place, remove_path
from undersong.store.hashing import canonical_json
from undersong.store.provenance import PROVENANCE
from undersong.types import Sample, UndersongError

SINGULAR_OPTIONS = {"save_steps": "save_step", "seeds": "seed", "draws": "seed"}  # keys of a study -> options
DEFAULT_TUNE_OPTIONS = TuneOptions()


def tune_manifest(
    manifest: str | Path,
    model: str,
    out: str | Path,
    options: TuneOptions = DEFAULT_TUNE_OPTIONS,
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """Fine-tune a model on a manifest's samples, or on those of `options.selection`.

    Writes `step-*/`, `log.jsonl` and `provenance.json`.

    Args:
        manifest: A path or `organism:NAME`.
        model: Model to fine-tune.
        out: Folder to write.
        options: Samples and hyper-parameters.
        say: Receives notes and progress lines; None drops them.

    Returns:
        The folders of the saved steps; of several processes, only the first returns them.

    Raises:
        UndersongError: Before step one, for a sample that cannot be used, a hyper-parameter out of range, or an `out`
            that holds something else or that another process is writing to.
    """
    settings = tuning_settings(options)  # checked before anything is read
    check_same_options(Path(out), "tune", tune_key_values(options, training_recipe(settings)))  # before torch is loaded
    from undersong.tuning.distributed import rank

    # Only the first process writes, so only it needs the lock.
    with locked_output_folder(Path(out)) if rank() == 0 else nullcontext(Path(out)) as folder:
        return _tune_into(folder, str(manifest), model, options, settings, say)


def _tune_into(
    out: Path,
    manifest: str,
    model: str,
    options: TuneOptions,
    settings: TuningSettings,
    say: Callable[[str], None] | None,
) -> list[Path]:
    """Do what `tune_manifest` does, under the lock of the output folder."""
    from undersong.corpora.registry import corpus_hash
    from undersong.models.refs import model_hash
    from undersong.proximity.selection import ids_hash
    from undersong.tuning.checkpoints import step_folder
    from undersong.tuning.distributed import local_device, rank, world_size
    from undersong.tuning.train import write_log

    loading = options.loading
    modality, seed, target, system = options.modality, options.seed, options.target_column, options.system_prompt
    check_output_folder(out, "tune")
    listed_samples = _listed_samples(manifest, options.selection, say)
    loading = replace(loading, device=local_device(loading.device))
    recipe_values = training_recipe(settings)
    config = tune_key_values(options, recipe_values)
    inputs = {
        "model": model_hash(model),
        "manifest": corpus_hash(manifest),
        "ids": ids_hash(sample.id for sample in listed_samples),
    }
    check_same_provenance(out, "tune", config, inputs)
    samples = _usable_samples(listed_samples, modality)
    training_targets(samples, target)  # an empty one is an error, which should not wait for the model
    state_folder = out.with_name(f"{out.name}.{_training_id(config, inputs)}.state")
    kept_folder = state_folder.with_suffix(".kept")  # becomes the output; a killed training continues with its steps
    steps = [step_folder(step) for step in settings.save_steps]
    with report_kept_work(partial(_kept_training, state_folder, kept_folder)):
        # With a provenance only its publication was killed. Of several processes all must decide alike, so they train.
        if world_size() > 1 or not (kept_folder / PROVENANCE).is_file():
            if say is not None and rank() == 0:
                say(
                    f"{model}: loading, and encoding {len(samples)} samples"
                    if modality == "audio"
                    else f"{model}: loading"
                )
            audio_lm = load_model_with_audio(model, loading, samples)

            def save_step(name: str, write: Any) -> None:
                with atomic_replacement(kept_folder / name) as path:
                    write(path)

            training = train_on_samples(
                audio_lm,
                samples,
                modality,
                system,
                target,
                recipe_values,
                seed,
                save_step,
                state_folder,
                report=watch_progress(f"training on {len(samples)} samples", say),
            )
            if rank() > 0:
                return []
            with atomic_replacement(kept_folder / "log.jsonl") as path:
                write_log(training, path)
            notes = {"model": model, "device": loading.device, **audio_lm.facts, "samples": len(samples)}
            notes |= {
                "processes": world_size(),
                "frozen_before": training.frozen_before,
                "frozen_after": training.frozen_after,
            }
            write_provenance(kept_folder, "tune", config, inputs, notes)
        if rank() == 0:
            _publish(kept_folder, out, steps)
    return [out / step for step in steps] if rank() == 0 else []


def _kept_training(state_folder: Path, kept_folder: Path) -> str | None:
    """Say after an interruption what the next attempt goes on from; a state without a checkpoint is removed."""
    from undersong.tuning.checkpoints import CHECKPOINT_MANIFEST
    from undersong.tuning.distributed import world_size

    if (kept_folder / PROVENANCE).is_file():
        return "the finished training is kept beside --out, and the same command only publishes it"
    complete = [file.parent.name for file in state_folder.glob(f"checkpoint-*/{CHECKPOINT_MANIFEST}")]
    if complete:
        step = max(int(name.rpartition("-")[2]) for name in complete)
        return f"the state of step {step} is kept beside --out, and the same command goes on from it"
    if world_size() == 1:  # others may still write there
        remove_path(state_folder)
    if steps := sorted(path.name for path in kept_folder.glob("step-*")):
        return f"{steps[-1]} is saved in {kept_folder}, but no state to go on from; the same command starts anew"
    return None


def _publish(kept_folder: Path, out: Path, steps: Sequence[str]) -> None:
    for leftover in kept_folder.glob(f"{TEMPORARY_PREFIX}*"):
        remove_path(leftover)
    if missing_steps := [step for step in steps if not (kept_folder / step).is_dir()]:
        remove_path(kept_folder)
        raise UndersongError(
            f"{missing_steps[0]}, which an earlier attempt had saved, is missing in {kept_folder}; run again, and the "
            "training begins anew."
        )
    check_output_folder(out, "tune")  # checked again, because others may have written there during training
    move_into_place(kept_folder, out)


def _training_id(config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """A name for this very training: another recipe must not go on from its state."""
    return hashlib.sha256(canonical_json([dict(config), dict(inputs)]).encode()).hexdigest()[:12]


def tune_key_values(options: TuneOptions, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Options that a training depends on, by name, as its provenance has them; `recipe`: its hyper-parameters."""
    return {"recipe": dict(recipe)} | key_values(options, options.RECIPE, options.HASHED_INPUTS)


def tuning_settings(options: TuneOptions) -> TuningSettings:
    """The hyper-parameters as a study would check them."""
    from pydantic import ValidationError

    if options.preset is not None and options.preset not in PRESETS:
        raise UndersongError(f"There is no --preset {options.preset!r}; take {' or '.join(PRESETS)}.")
    try:
        return TuningSettings.model_validate(
            options.recipe
            | {"target_column": options.target_column, "modalities": [options.modality]}
            | {"seeds": [options.seed], "draws": [options.seed]}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            raise UndersongError(f"The hyper-parameters cannot be used: {message}.") from None
        name = str(problem["loc"][0]).replace("modalities", "modality")
        option = f"--{SINGULAR_OPTIONS.get(name, name).replace('_', '-')}"
        raise UndersongError(
            f"{option} cannot be {problem['input']!r}: {message[:1].lower()}{message[1:]}; give another value."
        ) from None


def _listed_samples(manifest: str, selection: str | Path | None, say: Callable[[str], None] | None) -> list[Sample]:
    """Return the selected samples by id, with nothing decoded; an id that is missing or quarantined is an error."""
    from undersong.corpora.column_names import check_audio_or_text
    from undersong.corpora.registry import open_corpus
    from undersong.proximity.selection import selection_from_json
    from undersong.tuning.distributed import rank

    corpus_manifest = open_corpus(manifest)
    if say is not None and rank() == 0:
        for note in corpus_manifest.notes:
            say(note)
    check_audio_or_text(manifest, corpus_manifest.samples)
    if selection is None:
        ids = sorted([*(s.id for s in corpus_manifest.samples), *(item.id for item in corpus_manifest.quarantined)])
    else:
        ids = list(selection_from_json(_read_selection(Path(selection)), str(selection)).ids)
    return select_by_id(corpus_manifest.samples, corpus_manifest.quarantined, ids)


def _usable_samples(samples: Sequence[Sample], modality: str) -> list[Sample]:
    """Return the samples, decoded where they are used as audio; one that is unusable is an error."""
    usable, failed = examine_samples(samples, modality)
    return select_by_id(usable, failed, [sample.id for sample in samples])


def _read_selection(file: Path) -> str:
    check_regular_file(file)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UndersongError(
            f"The selection {file} cannot be read ({describe_error(error)}); give a selection.json."
        ) from None
