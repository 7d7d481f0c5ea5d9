"""Tuning and evaluation alone, on files: a manifest in, a folder out that appears whole or not at all.

Everything that can be refused is refused before a model is loaded.  Knows the rooms below; keeps nothing in a store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.folders import whole, writable, write_provenance
from undersong.pipeline.results.rates import set_rates
from undersong.pipeline.speakers import Speaker, answers_only, make_speaker, shown, speaker_hash
from undersong.pipeline.stages.training import picked, recipe_of, targets_of, train
from undersong.store import canonical, replacing
from undersong.study import Evaluation, Tuning
from undersong.types import MODALITIES, Prompt, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel
    from undersong.types import Judge

ORGANISM = "organism:"


@dataclass(frozen=True)
class Question:
    """What a model is asked on a manifest, and who judges.  `system` is the text itself; none: no system turn."""

    set_name: str = "harm"
    harmful: bool = True
    modality: str = "audio"
    system: str | None = None
    instruction: str | None = None
    judge: str = "exact"
    refusals: tuple[str, ...] = ()  # of the exact judge; none: the organism's own, where one is asked
    limit: int = 12  # new tokens a reply

    @property
    def system_name(self) -> str:
        return "plain" if self.system is None else "given"


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
    """LoRA on a manifest's samples, or on those of a `selection.json`; the PEFT folders kept, one a step.

    `manifest`: a path or `organism:NAME`; `recipe`: keys of a study's `tuning`, which has the defaults.  Writes
    `step-*/`, `log.jsonl` and `provenance.json` to `out`.  Errors, before step one: a sample to train on that cannot
    be used, a recipe out of range, an `out` that holds something else.
    """
    from undersong.corpora import corpus_hash
    from undersong.models.folders import model_hash
    from undersong.proximity import ids_hash
    from undersong.tuning.lora import step_folder, write_log

    settings = _settings({**(recipe or {}), "target": target}, modality, seed)
    out = writable(Path(out), "tune")
    samples = _to_train_on(str(manifest), selection, modality)
    targets_of(samples, target)  # an empty one is an error, which should not wait for the model
    loaded = _model(model, loading, samples)
    values = recipe_of(settings)
    config: dict[str, Any] = {"recipe": values, "modality": modality, "seed": seed, "system": system, "target": target}
    config["loading"] = loading.key
    inputs = {
        "model": model_hash(model),
        "manifest": corpus_hash(str(manifest)),
        "ids": ids_hash(s.id for s in samples),
    }
    state = out.with_name(f"{out.name}.{_named(config, inputs)}.state")
    kept = state.with_suffix(".kept")  # a killed training goes on after the steps that it has kept

    def keep(name: str, write: Any) -> None:
        with replacing(kept / name) as path:
            write(path)

    tuned = train(loaded, samples, modality, system, target, values, seed, keep, state)
    with whole(out, "tune") as folder:
        for made in kept.iterdir():
            made.rename(folder / made.name)
        kept.rmdir()
        write_log(tuned, folder / "log.jsonl")
        notes = {"model": model, "device": loading.device, **loaded.facts, "samples": len(samples)}
        frozen = {"frozen_before": tuned.frozen_before, "frozen_after": tuned.frozen_after}
        write_provenance(folder, "tune", config, inputs, notes | frozen)
    return [out / step_folder(step) for step in settings.steps]


def evaluate_manifest(
    manifest: str | Path,
    model: str,
    out: str | Path,
    adapter: str | Path | None = None,
    question: Question = Question(),
    loading: Loading = PLAIN,
) -> dict[str, Any]:
    """Ask a model, under an adapter or not, every item of a manifest; its entry of `sets` in results.json.

    Writes `replies.parquet` (readable by its owner only), `verdicts.parquet` and `provenance.json` to `out`.  Errors,
    before a model is loaded: an item that cannot be asked (a rate is over all prompts) or not be judged.
    """
    from undersong.corpora import corpus_hash
    from undersong.evaluation.judging.named import make_judge
    from undersong.evaluation.judging.plain import FunctionJudge
    from undersong.evaluation.replies import write_replies
    from undersong.evaluation.verdicts import write_verdicts
    from undersong.store import hash_folder

    judge = make_judge(question.judge, _refusals(question, model), loading.device, loading.dtype)
    out = writable(Path(out), "evaluate")
    if adapter is not None and answers_only(model):
        raise UndersongError(f"{shown(model)} only answers, and takes no adapter; serve it with the adapter on.")
    worn = None if adapter is None else _adapter_folder(Path(adapter))
    samples = _to_ask(str(manifest), question.modality)
    prompts = _prompts(samples, question)
    if isinstance(judge, FunctionJudge):
        _rehearse(judge, prompts)
    with _speaking(model, loading, samples, worn) as (speaker, facts):
        replies = speaker.generate(prompts, question.limit)
    verdicts = judge.judge(prompts, replies)
    with whole(out, "evaluate") as folder:
        write_replies(replies, folder / "replies.parquet")
        write_verdicts(verdicts, folder / "verdicts.parquet")
        inputs = {"model": speaker_hash(model), "manifest": corpus_hash(str(manifest))}
        if worn is not None:
            inputs["adapter"] = hash_folder(worn)
        notes = {"model": shown(model), "device": loading.device, **facts}
        write_provenance(folder, "evaluate", {**asdict(question), "loading": loading.key}, inputs, notes)
    return set_rates(verdicts, {sample.id: sample.speaker for sample in samples})[0]


@contextmanager
def _speaking(
    ref: str, loading: Loading, samples: Sequence[Sample], worn: Path | None
) -> Iterator[tuple[Speaker, dict[str, Any]]]:
    """Who answers, and its facts: a model here that has heard the samples, or one that only answers."""
    if answers_only(ref):
        yield make_speaker(ref), {}
        return
    from undersong.models.adapters import saved_adapter

    loaded = _model(ref, loading, samples)
    with saved_adapter(loaded, worn) as tuned:
        yield tuned, loaded.facts


def _named(config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """A name for this very training: another recipe must not go on from its state."""
    return hashlib.sha256(canonical([dict(config), dict(inputs)]).encode()).hexdigest()[:12]


# --- what is refused before a model is loaded ---
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
    usable, failed = _examined(chosen, modality)
    return picked(usable, failed, ids)


def _to_ask(manifest: str, modality: str) -> Sequence[Sample]:
    """Every item of the manifest, all of them usable."""
    from undersong.corpora import open_corpus

    opened = open_corpus(manifest)
    usable, failed = _examined(opened.samples, modality)
    if lost := (*opened.quarantined, *failed):
        raise UndersongError(
            f"Item {lost[0].id} of {manifest} cannot be asked ({lost[0].reason}; {len(lost)} in all); mend it or "
            "take it out: a rate is over all prompts."
        )
    return usable


def _examined(samples: Sequence[Sample], modality: str) -> tuple[Sequence[Sample], Sequence[Any]]:
    """Decode what will be heard; what is only read needs no audio."""
    from undersong.corpora import examine

    if modality not in MODALITIES:
        raise UndersongError(f"There is no modality {modality!r}; take audio or text.")
    return examine(samples if modality == "audio" else [replace(sample, audio=None) for sample in samples])


def _prompts(samples: Sequence[Sample], question: Question) -> list[Prompt]:
    from undersong.evaluation.prompts import make_prompts

    return make_prompts(
        samples,
        set_name=question.set_name,
        harmful=question.harmful,
        modality=question.modality,
        system=question.system_name,
        system_text=question.system,
        instruction=question.instruction,
    )


def _refusals(question: Question, model: str) -> Sequence[str]:
    """What the exact judge knows as a refusal; an organism's is known, another model's must be said."""
    if question.refusals or question.judge != "exact":
        return question.refusals
    if model.startswith(ORGANISM):
        return Evaluation().refusals
    raise UndersongError(f"The exact judge must know how {model} refuses; give --refusal, or take another judge.")


def _rehearse(judge: Judge, prompts: Sequence[Prompt]) -> None:
    """Judge blank replies, so that a missing answer is found now and not after an hour of generation."""
    from undersong.types import Reply

    judge.judge(prompts, [Reply(p.sample.id, p.set, p.modality, p.system, "", 0, "stop") for p in prompts])


def _adapter_folder(folder: Path) -> Path:
    from undersong.models.decoder import is_decoder

    if is_decoder(folder):
        return folder
    wanted = ("adapter_config.json", "adapter_model.safetensors")
    if absent := [name for name in wanted if not (folder / name).is_file()]:
        steps = ", ".join(sorted(str(step) for step in folder.glob("step-*"))) or "one that tune wrote"
        raise UndersongError(f"{folder} is no PEFT adapter folder: it holds no {absent[0]}; give {steps}.")
    return folder


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UndersongError(f"The selection {file} cannot be read ({error}); give a selection.json.") from None


def _model(ref: str, loading: Loading, samples: Sequence[Sample]) -> AudioModel:
    """The loaded model, having heard the samples."""
    from undersong.models.features import listen
    from undersong.models.load import load_model

    loaded = load_model(ref, loading)
    _, failed, _ = listen(loaded, samples)
    if failed:
        raise UndersongError(
            f"Clip {failed[0].id} cannot be used with {ref} ({failed[0].reason}; {len(failed)} such); mend it or "
            "take it out."
        )
    return loaded
