"""One arm at one seed, and its adapter.  Knows what is trained on what; not how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.pipeline.stages.heard import MODEL_PACKAGES, hearable
from undersong.pipeline.stages.training import picked, train
from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.store import Artefact, Draft

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel
    from undersong.proximity import Selection


@dataclass(frozen=True)
class Arm:
    """One run: a base tuned on a selection in a modality at a seed; `None` for the base itself."""

    model: str
    base_seed: int
    axis: str | None = None
    kind: str = "base"
    fraction: float | None = None
    modality: str | None = None
    seed: int | None = None
    draw: int | None = None
    selection: Selection | None = None
    harm_set: str = ""  # that closeness was to
    rule: str = ""  # the whole rule of selection, where kind and fraction do not say it

    @property
    def run(self) -> tuple[int, int, int]:
        """(base, draw, seed) of a tuned arm, by which runs are paired."""
        assert self.draw is not None
        assert self.seed is not None
        return self.base_seed, self.draw, self.seed

    @property
    def name(self) -> str:
        """`base`, or AXIS/KIND/FRACTION/MODALITY, which all its draws and seeds share; by a rule without the
        fraction."""
        if self.kind == "base":
            return "base"
        amount = "" if self.rule else f"/{self.fraction:g}"
        return f"{self.axis}/{self.kind}{amount}/{self.modality}"


@dataclass(frozen=True)
class Guard:
    """What a training has beyond its arm: `config` and `inputs` file it, `make` gives it as `train` takes it (`mixing`,
    `watch`, `start`)."""

    config: dict[str, Any]
    inputs: dict[str, Artefact]
    heard: tuple[Artefact, ...]
    make: Callable[[AudioModel], dict[str, Any]]


def adapter(
    shop: Workshop,
    arm: Arm,
    pool: Corpus,
    heard: Artefact,
    recipe: dict[str, Any],
    system_text: str | None,
    target: str,
    guard: Guard | None = None,
) -> Artefact:
    """LoRA on the decoder.  Filed under the selection's ids, so two arms with the same samples are one training.

    Guarded by a canary it may have stopped early: it then holds the last safe step and those before it.
    """
    from undersong.models.folders import model_hash

    assert arm.selection is not None, "the base is not tuned"
    assert arm.modality is not None
    assert arm.seed is not None
    chosen, modality, seed = arm.selection, arm.modality, arm.seed

    def make(draft: Draft) -> None:
        from undersong.tuning.lora import write_log

        def keep(name: str, write: Callable[[Path], None]) -> None:
            if not draft.has(name):
                with draft.file(name) as folder:
                    write(folder)

        samples = picked(pool.samples, [*pool.quarantined, *hearable(pool, heard)[1]], chosen.ids)
        model = shop.model(arm.model, [heard, *(guard.heard if guard else ())])
        state, more = draft.path.with_suffix(".state"), guard.make(model) if guard else {}
        tuned = train(model, samples, modality, system_text, target, recipe, seed, keep, state, **more)
        with draft.file("log.jsonl") as path:
            write_log(tuned, path)
        draft.note(frozen_before=tuned.frozen_before, frozen_after=tuned.frozen_after, device=shop.loading.device)
        if guard:
            draft.note(stopped=tuned.stopped, watched=list(tuned.watched))

    config = {
        "recipe": recipe,
        "modality": modality,
        "seed": seed,
        "system": system_text,
        "target": target,
        "loading": shop.loading.key,
    }
    inputs: Inputs = {
        "model": model_hash(arm.model),
        "pool": pool.artefact,
        "heard": heard,
        "ids": chosen.ids_hash,
    }
    if guard:
        config, inputs = config | guard.config, {**inputs, **guard.inputs}
    return shop.store.get_or_make("adapter", 1, config, inputs, make, seed=seed, packages=MODEL_PACKAGES)
