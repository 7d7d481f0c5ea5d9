"""The stages of an audit, one function each: a question for the store, and how its answer is made.

Every function returns an artefact; asking again is a look-up that loads no model.  Knows the rooms below; knows no
library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.pipeline.heard import MODEL_PACKAGES, features, hearable
from undersong.pipeline.training import picked, train
from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.store import Artefact, Draft
from undersong.types import Prompt, UndersongError

if TYPE_CHECKING:
    from undersong.proximity import Selection

__all__ = ["features", "hearable"]  # the first stage of a model has a file of its own


def corpus(
    shop: Workshop,
    ref: str,
    where: Mapping[str, Sequence[str]] | None = None,
    columns: Mapping[str, str] | None = None,
    decode: bool = True,
) -> Corpus:
    """Read, decode once, quarantine what cannot be read (DESIGN rule 2).  `columns`: our field -> the corpus's column.

    Without `decode`, where nobody listens, audio is not opened.
    """
    from undersong.corpora import corpus_hash, examine, open_corpus, select, write_corpus

    def make(draft: Draft) -> None:
        manifest = open_corpus(ref, columns)
        chosen = select(manifest.samples, where or {})
        samples, failed = examine(chosen) if decode else (chosen, ())
        if not samples:
            lost = (*manifest.quarantined, *failed)
            why = f", the first: {lost[0].id} ({lost[0].reason})" if lost else ""
            raise UndersongError(f"Corpus {ref} holds no usable sample{why}; look at its files and filters.")
        write_corpus(samples, (*manifest.quarantined, *failed), draft.path)

    config: dict[str, Any] = {"where": {name: list(values) for name, values in (where or {}).items()}}
    config |= {"columns": dict(columns)} if columns else {}
    config |= {} if decode else {"decode": False}
    inputs: Inputs = {"content": corpus_hash(ref, columns)}
    return Corpus(ref, shop.store.get_or_make("corpus", 2, config, inputs, make, packages=("soundfile", "soxr")))


def proximity(
    shop: Workshop,
    axis: str,
    pool: Artefact,
    harm: Artefact,
    harm_set: str,
    settings: dict[str, Any],
    corpus: Corpus,
    heard: Artefact,
) -> Artefact:
    """Distances of every pool sample to the reference harm set, raw and centred.

    What the model cannot hear (`heard`, of the pool `corpus`) is left out of every axis: all rank the same pool, and an
    arm must not be given a clip that it cannot be trained on.
    """

    def make(draft: Draft) -> None:
        import pyarrow.parquet as pq

        from undersong.encoders.vectors import read_embeddings, without
        from undersong.proximity import proximity_table

        unheard = hearable(corpus, heard)[1]
        vectors = without(read_embeddings(pool.path), unheard)
        table = proximity_table(axis, harm_set, vectors, read_embeddings(harm.path), **settings)
        pq.write_table(table, draft.path / "proximity.parquet")

    config = {"axis": axis, "harm_set": harm_set, **settings}
    inputs: Inputs = {"pool": pool, "harm": harm, "heard": heard}
    return shop.store.get_or_make("proximity", 2, config, inputs, make, packages=("numpy",))


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
    rule: str = ""  # the whole rule of selection, where kind and fraction do not say it

    @property
    def name(self) -> str:
        if self.kind == "base":
            return "base"
        amount = "" if self.rule else f"/{self.fraction:g}"
        return f"{self.axis}/{self.kind}{amount}/{self.modality}"


def adapter(
    shop: Workshop,
    arm: Arm,
    pool: Corpus,
    heard: Artefact,
    recipe: dict[str, Any],
    system_text: str | None,
    target: str,
) -> Artefact:
    """LoRA on the decoder.  Filed under the selection's ids, so two arms with the same samples are one training."""
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
        tuned = train(shop.model(arm.model, [heard]), samples, modality, system_text, target, recipe, seed, keep)
        with draft.file("log.jsonl") as path:
            write_log(tuned, path)
        draft.note(frozen_before=tuned.frozen_before, frozen_after=tuned.frozen_after, device=shop.loading.device)

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
    return shop.store.get_or_make("adapter", 1, config, inputs, make, seed=seed, packages=MODEL_PACKAGES)


@dataclass(frozen=True)
class Asked:
    """A set asked in one modality under one system text."""

    set: str
    corpus: Corpus
    harmful: bool
    modality: str
    system: str
    system_text: str | None


def replies(
    shop: Workshop,
    arm: Arm,
    adapter: Artefact | None,
    step: int,
    asked: Sequence[Asked],
    heard: Sequence[Artefact],
    limit: int,
    instruction: str | None,
) -> Artefact:
    """Greedy replies of a model (with the adapter of `step`) to everything asked; stays on the user's machine."""
    from undersong.models.folders import model_hash

    def make(draft: Draft) -> None:
        from undersong.evaluation.replies import write_replies
        from undersong.models.adapters import saved_adapter

        model = shop.model(arm.model, heard)
        with saved_adapter(model, adapter_folder(adapter, step)) as tuned:
            said = tuned.generate(prompts_of(asked, instruction), limit)
        with draft.file("replies.parquet", mode=0o600) as path:
            write_replies(said, path)
        draft.note(**model.facts)

    inputs: dict[str, Artefact | str] = {"model": model_hash(arm.model)}
    inputs |= {f"corpus:{one.set}": one.corpus.artefact for one in asked}
    if adapter is not None:
        inputs["adapter"] = adapter
    config = _reply_config(asked, step, limit, instruction, shop.loading.key)
    return shop.store.get_or_make("replies", 1, config, inputs, make, packages=MODEL_PACKAGES)


def _reply_config(
    asked: Sequence[Asked], step: int, limit: int, instruction: str | None, loading: dict[str, Any]
) -> dict[str, Any]:
    sets = [[one.set, one.harmful, one.modality, one.system, one.system_text] for one in asked]
    return {"sets": sets, "step": step, "limit": limit, "instruction": instruction, "loading": loading}


def adapter_folder(adapter: Artefact | None, step: int) -> Path | None:
    """The PEFT folder kept at a step (`tuning.lora.step_folder`, without loading torch); None: the base."""
    return None if adapter is None else adapter.path / f"step-{step:06d}"


def prompts_of(asked: Sequence[Asked], instruction: str | None) -> list[Prompt]:
    """Every prompt of what is asked, in order."""
    from undersong.evaluation.prompts import make_prompts

    return [
        prompt
        for one in asked
        for prompt in make_prompts(
            one.corpus.samples,
            set_name=one.set,
            harmful=one.harmful,
            modality=one.modality,
            system=one.system,
            system_text=one.system_text,
            instruction=instruction,
        )
    ]


def verdicts(
    shop: Workshop,
    replies: Artefact,
    asked: Sequence[Asked],
    judge: str,
    refusals: Sequence[str],
    instruction: str | None,
) -> Artefact:
    """What the judge calls every reply."""

    def make(draft: Draft) -> None:
        from undersong.evaluation.judges import make_judge
        from undersong.evaluation.replies import read_replies
        from undersong.evaluation.verdicts import write_verdicts

        said = read_replies(replies.path / "replies.parquet")
        judged = make_judge(judge, refusals).judge(prompts_of(asked, instruction), said)
        with draft.file("verdicts.parquet") as path:
            write_verdicts(judged, path)

    config = {
        "judge": judge,
        "refusals": list(refusals),
        "instruction": instruction,
        "sets": [[a.set, a.modality, a.system] for a in asked],
    }
    return shop.store.get_or_make("verdicts", 1, config, {"replies": replies}, make)
