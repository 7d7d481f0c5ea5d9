"""Audio features of a corpus by a model's encoder, and the clips that cannot be encoded."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from undersong.stages.context import Corpus, RunContext
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Inputs
from undersong.types import Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.encoders.batching import ProgressTimer

MODEL_PACKAGES = ("torch", "transformers", "peft", "numpy")


def compute_features(
    ctx: RunContext, model_ref: str, corpus: Corpus, require_all: bool = True, adapter: Artifact | None = None
) -> Artifact:
    """Encode every clip to the decoder's audio inputs, once for all arms of a base; a kill loses one shard.

    The context remembers the features, and clips of other corpora that it knows are not encoded again.

    Args:
        ctx: Store, model and the features known so far.
        model_ref: Reference of the model.
        corpus: Corpus with the clips.
        require_all: True if every clip must be encoded, because a rate is over all prompts. Otherwise clips that cannot
            be encoded are left out, with their reasons.
        adapter: Imported adapter, which may change the encoder; None for the base.
    """
    from undersong.models.refs import model_hash

    known_features = ctx.features(model_ref, adapter)
    if corpus.artifact.hash in known_features:
        return known_features[corpus.artifact.hash]

    def make(draft: Draft) -> None:
        from undersong.encoders.batching import start_progress
        from undersong.models.feature_cache import (
            CLIPS_PER_FILE,
            cache_audio_features,
            read_feature_metadata,
            save_features,
        )

        shard_notes = []
        with ctx.model_with_audio(model_ref, None, adapter) as model:
            clock = start_progress(len(corpus.samples), ctx.watcher(f"{model_ref} encodes {corpus.ref}"))
            for number, start in enumerate(range(0, max(1, len(corpus.samples)), CLIPS_PER_FILE)):
                name = f"features-{number:05d}.safetensors"
                if not draft.has(name):
                    batch = corpus.samples[start : start + CLIPS_PER_FILE]
                    audio_features, failed, passes = cache_audio_features(
                        model, batch, partial(_advance_watch, clock, start)
                    )
                    if failed and require_all:
                        raise UndersongError(
                            f"Clip {failed[0].id} of {corpus.ref} cannot be encoded by {model_ref} "
                            f"({failed[0].reason}); fix or remove it, because a rate is over all prompts."
                        )
                    with draft.file(name) as path:
                        save_features(audio_features, path, failed, passes)
                shard_notes.append(read_feature_metadata(draft.path / name))
            passes, clips = (sum(shard_note[key] for shard_note in shard_notes) for key in ("passes", "clips"))
            draft.note(clips=clips, encoder_passes=passes, device=ctx.loading.device, **model.facts)

    config = {"loading": ctx.loading.cache_key, "whole": require_all}
    inputs: Inputs = {"model": model_hash(model_ref), "corpus": corpus.artifact}
    if adapter is not None:
        inputs = {**inputs, "adapter": adapter}
    artifact = ctx.store.get_or_make("features", 3, config, inputs, make, packages=MODEL_PACKAGES)
    known_features[corpus.artifact.hash] = artifact
    return artifact


def _advance_watch(watch: ProgressTimer, start: int, done: int) -> None:
    watch.update(start + done)


def encodable_samples(corpus: Corpus, features: Artifact | None) -> tuple[list[Sample], list[Quarantined]]:
    """Samples that the model could encode or need not encode, and the others with reasons.

    With `features` None no clip is encoded.
    """
    if features is None:
        return list(corpus.samples), []
    from undersong.models.feature_cache import read_feature_metadata

    unencoded = [
        item for file in sorted(features.path.glob("features-*")) for item in read_feature_metadata(file)["quarantined"]
    ]
    lost = {item.id for item in unencoded}
    return [sample for sample in corpus.samples if sample.id not in lost], unencoded
