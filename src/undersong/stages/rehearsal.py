"""Rehearsal of sets of one pool: margins of the reference harm set after a short training, an artifact for each set and
seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from undersong.phrases import count
from undersong.predictors.registry import PredictorSettings
from undersong.settings.defaults import WARMUP_STEPS
from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import MODEL_PACKAGES, compute_features, encodable_samples
from undersong.stages.training import select_by_id
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Store
from undersong.types import Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel
    from undersong.predictors.rehearsal import Rehearsal
    from undersong.store.store import Inputs
    from undersong.tuning.config import LoraRecipe

VERSION = 1
REHEARSAL_FILE, MARGINS_FILE = "rehearsal.json", "margins.json"


def warmup_notes(steps: int, warmup_steps: int = WARMUP_STEPS) -> list[str]:
    """A note on a training that ends within its warm-up."""
    if steps > warmup_steps:
        return []
    return [
        f"Warm-up lasts {warmup_steps} steps, so {count(steps, 'step')} hardly "
        f"{'teaches' if steps == 1 else 'teach'} anything; rehearse more."
    ]


def check_compliant_answers(prompts: Sequence[tuple[str, Sample]], ref: str, model: str) -> None:
    """Check before anything is measured that each reference prompt can have a refusal margin.

    Args:
        prompts: The reference prompts, each with the id that messages give it.
        ref: Reference of their corpus.
        model: Reference of the base.

    Raises:
        UndersongError: The model's refusals are known word for word, and a prompt has no compliant answer.
    """
    from undersong.stages.predictors import known_refusal_texts

    lacking = [name for name, sample in prompts if not sample.accepted_answers]
    if lacking and known_refusal_texts(model):
        verb = "has" if len(lacking) == 1 else "have"
        raise UndersongError(
            f"{len(lacking)} of {count(len(prompts), 'harmful request')} of {ref} {verb} no compliant answer, the "
            f"first: {lacking[0]}; a rehearsal needs them because the refusals of {model} are known word for word, so "
            "add them (column answer or answers), or name another harm set with --harm."
        )


@dataclass(frozen=True)
class RehearsalStage:
    """Rehearsals of sets of one pool, each measured on the same reference harm set.

    Attributes:
        ctx: Store, model and audio features.
        model: Reference of the base.
        settings: Prompts, reply column and known refusals; its seed is replaced by that of the rehearsal.
        recipe: Hyper-parameters of the training; its steps are replaced.
        steps: Optimizer steps.
        pool: The pool that sets are taken from.
        reference: The reference harm set.
    """

    ctx: RunContext
    model: str
    settings: PredictorSettings
    recipe: LoraRecipe
    steps: int
    pool: Corpus
    reference: Corpus

    def unencoded(self) -> list[Quarantined]:
        """Pool samples whose audio the model cannot encode, with reasons; none if prompts are typed.

        None are known in a plan before the audio is encoded.
        """
        features = self._features(self.pool)
        if features is not None and not features.location.exists():
            return []
        return encodable_samples(self.pool, features)[1]

    def margins_before(self) -> list[float]:
        """Refusal margins of the reference by the base, from the store or measured."""
        features = self._features(self.reference)

        def make(draft: Draft) -> None:
            from undersong.predictors.rehearsal import reference_margins

            margins = reference_margins(self._loaded_model(features), self._reference_samples(), self.settings)
            with draft.file(MARGINS_FILE) as path:
                path.write_text(json.dumps(margins), encoding="utf-8")

        inputs = self._inputs("reference", self.reference, features)
        artifact = self.ctx.store.get_or_make(
            "reference_margins", VERSION, self._prompt_config, inputs, make, packages=MODEL_PACKAGES
        )
        return list(json.loads((artifact.path / MARGINS_FILE).read_text(encoding="utf-8")))

    def rehearse(self, ids: Sequence[str], seed: int) -> Rehearsal:
        """Rehearsal of the pool samples with these ids (sorted), from the store or trained."""
        from undersong.predictors.rehearsal import Rehearsal

        config, inputs = self._key(ids, seed)

        def make(draft: Draft) -> None:
            from undersong.predictors.rehearsal import rehearse

            features = self._features(self.pool)
            quarantined = [*self.pool.quarantined, *encodable_samples(self.pool, features)[1]]
            rehearsal = rehearse(
                self._loaded_model(features, self._features(self.reference)),
                select_by_id(self.pool.samples, quarantined, ids),
                self._reference_samples(),
                self.recipe,
                replace(self.settings, seed=seed),
                self.steps,
                self.margins_before(),
            )
            fields = asdict(rehearsal)
            seconds = fields.pop("seconds")  # of this run: no part of what is found
            with draft.file(REHEARSAL_FILE) as path:
                path.write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")
            if seconds is not None:
                draft.note(seconds=seconds, prompts=len(rehearsal.after), device=self.ctx.loading.device_name)

        artifact = self.ctx.store.get_or_make(
            "rehearsal", VERSION, config, inputs, make, seed=seed, packages=MODEL_PACKAGES
        )
        fields = json.loads((artifact.path / REHEARSAL_FILE).read_text(encoding="utf-8"))
        before, after, clusters = (tuple(fields[name]) for name in ("before", "after", "clusters"))
        return Rehearsal(fields["steps"], before, after, clusters)

    @property
    def store(self) -> Store:
        """The store of the rehearsals."""
        assert isinstance(self.ctx.store, Store), "the plan of a study rehearses nothing"
        return self.ctx.store

    def is_stored(self, ids: Sequence[str], seed: int) -> bool:
        """True if `rehearse` would train nothing."""
        return self.store.find("rehearsal", VERSION, *self._key(ids, seed)) is not None

    def is_reference_stored(self) -> bool:
        """True if `margins_before` would measure nothing."""
        features = self._features(self.reference)
        inputs = self._inputs("reference", self.reference, features)
        return self.store.find("reference_margins", VERSION, self._prompt_config, inputs) is not None

    def _key(self, ids: Sequence[str], seed: int) -> tuple[dict[str, Any], Inputs]:
        from undersong.proximity.selection import ids_hash

        recipe = {name: value for name, value in asdict(self.recipe).items() if name != "save_steps"}
        config = {**self._prompt_config, "recipe": recipe, "steps": self.steps, "seed": seed}
        inputs = {
            **self._inputs("pool", self.pool, self._features(self.pool)),
            **self._inputs("reference", self.reference, self._features(self.reference)),
            "ids": ids_hash(ids),
        }
        return config, inputs

    def _features(self, corpus: Corpus) -> Artifact | None:
        """Audio features of a corpus; None for typed prompts."""
        if self.settings.modality != "audio":
            return None
        return compute_features(self.ctx, self.model, corpus, require_all=False)

    def _loaded_model(self, *features: Artifact | None) -> AudioModel:
        return self.ctx.model(self.model, [artifact for artifact in features if artifact is not None])

    def _reference_samples(self) -> list[Sample]:
        samples, unencoded = encodable_samples(self.reference, self._features(self.reference))
        if unencoded:
            raise UndersongError(
                f"Reference prompt {unencoded[0].id} cannot be encoded by {self.model} ({unencoded[0].reason}; "
                f"{len(unencoded)} such in all); fix or remove it, because a rehearsal is measured on all prompts."
            )
        return samples

    def _inputs(self, name: str, corpus: Corpus, features: Artifact | None) -> dict[str, Artifact | str]:
        from undersong.models.refs import model_hash

        inputs: dict[str, Artifact | str] = {"model": model_hash(self.model), name: corpus.artifact}
        return inputs if features is None else {**inputs, f"{name}_features": features}

    @property
    def _prompt_config(self) -> dict[str, Any]:
        """What margins depend on besides the inputs: the prompts, and the texts that define a margin."""
        from undersong.evaluation.refusal_margin import MarginSettings

        unused = ("rank", "alpha", "seed", "refusal_texts")  # those of gradients; the others are in keys of their own
        prompts = {name: value for name, value in asdict(self.settings).items() if name not in unused}
        margins = MarginSettings(self.settings.refusal_texts).key
        return {**prompts, "margins": margins, "loading": self.ctx.loading.cache_key}
