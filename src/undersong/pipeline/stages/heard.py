"""The first stage of a model: what it hears of a corpus, kept for everything after, and what it cannot hear.

Knows the feature cache; does not know arms or axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.store import Artefact, Draft
from undersong.types import Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.encoders.progress import Watch

MODEL_PACKAGES = ("torch", "transformers", "peft", "numpy")


def features(
    shop: Workshop, model_ref: str, corpus: Corpus, whole: bool = True, known: Sequence[Artefact] = ()
) -> Artefact:
    """What the model's decoder hears of every clip, once for all arms of a base; in shards, so that a kill loses one.

    `whole`: every clip must be heard, because a rate is over all prompts; else those that cannot be are left out, with
    their reasons (DESIGN rule 2).  `known`: features of other corpora, whose clips are not heard again.
    """
    from undersong.models.folders import model_hash

    def make(draft: Draft) -> None:
        from undersong.encoders.progress import watch
        from undersong.models.features import SHARD, listen, read_notes, save_heard

        model, parts = shop.model(model_ref, known), []
        clock = watch(len(corpus.samples), shop.watcher(f"{model_ref} hears {corpus.ref}"))
        for number, start in enumerate(range(0, max(1, len(corpus.samples)), SHARD)):
            name = f"heard-{number:05d}.safetensors"
            if not draft.has(name):
                part = corpus.samples[start : start + SHARD]
                heard, failed, passes = listen(model, part, partial(_at, clock, start))
                if failed and whole:
                    raise UndersongError(
                        f"Clip {failed[0].id} of {corpus.ref} cannot be asked of {model_ref} ({failed[0].reason}); "
                        "mend it or take it out: a rate is over all prompts."
                    )
                with draft.file(name) as path:
                    save_heard(heard, path, failed, passes)
            parts.append(read_notes(draft.path / name))
        passes, clips = (sum(part[key] for part in parts) for key in ("passes", "clips"))
        draft.note(clips=clips, encoder_passes=passes, device=shop.loading.device, **model.facts)

    config = {"loading": shop.loading.key, "whole": whole}
    inputs: Inputs = {"model": model_hash(model_ref), "corpus": corpus.artefact}
    return shop.store.get_or_make("features", 3, config, inputs, make, packages=MODEL_PACKAGES)


def _at(clock: Watch, start: int, done: int) -> None:
    clock.at(start + done)


def hearable(corpus: Corpus, heard: Artefact | None) -> tuple[list[Sample], list[Quarantined]]:
    """The samples that the model heard, or that it need not hear; and those it cannot hear, with reasons.  Without
    `heard` nobody listens."""
    if heard is None:
        return list(corpus.samples), []
    from undersong.models.features import read_notes

    unheard = [item for file in sorted(heard.path.glob("heard-*")) for item in read_notes(file)["unheard"]]
    lost = {item.id for item in unheard}
    return [sample for sample in corpus.samples if sample.id not in lost], unheard
