"""Vectors of a corpus: embeddings by an encoder, in shards for a large corpus, and projected LoRA gradients of the
model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from undersong.stages.context import Corpus, RunContext
from undersong.stages.engine import DEFAULT_ENGINE, Engine, fill_missing_shards, remove_shards, shards_path, uses_shards
from undersong.stages.features import MODEL_PACKAGES, encodable_samples
from undersong.stages.transcripts import asr_model, transcribe_corpus
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Inputs, Store
from undersong.types import Embeddings, Encoder, Quarantined, Sample

if TYPE_CHECKING:
    from undersong.encoders.batching import ProgressCallback
    from undersong.models.audio_lm import AudioModel
    from undersong.models.load_options import LoadOptions
    from undersong.scale.row_shards import RowShards


STAGE, VERSION = "embeddings", 2
SPARSE_VERSION = 3  # of encoders that are fitted on texts, whose vectors are sparse
PACKAGES = ("numpy", "scikit-learn", "torch", "transformers")


@dataclass(frozen=True)
class EmbeddingRequest:
    """Request for embeddings of a corpus.

    Attributes:
        spec: The encoder.
        corpus: The corpus.
        fit_corpora: Corpora that a text encoder is fitted on together, if it needs fitting.
        model: Model whose audio encoder an internal encoder is.
        features: Cached audio features of the corpus. With None each clip is encoded and pooled at once, because
            features of a large pool would fill a disk.
        engine: Engine that embeds.
    """

    spec: str
    corpus: Corpus
    fit_corpora: Sequence[Corpus]
    model: str | None = None
    features: Artifact | None = None
    engine: Engine = DEFAULT_ENGINE

    @property
    def is_internal_encoder(self) -> bool:
        """True if the vectors come from an audited model's audio encoder, so that `model` is needed."""
        from undersong.encoders.registry import is_internal

        return is_internal(self.spec)


def embed_corpus(ctx: RunContext, request: EmbeddingRequest) -> Artifact:
    """Artifact with one vector per sample, and the samples that could not be embedded."""
    config, inputs = _cache_key(ctx, request)

    def make(draft: Draft) -> None:
        from undersong.encoders.embeddings import write_embeddings
        from undersong.scale import embedding_shards

        samples, unencoded = _encoder_inputs(ctx, request)
        if request.features is not None and request.is_internal_encoder:
            vectors = _encoder_factory(ctx, request, samples)().encode(samples)
            write_embeddings(replace(vectors, quarantined=(*unencoded, *vectors.quarantined)), draft.path)
        elif uses_shards(request.engine, len(samples), embedding_shards.SHARD_ROWS, shards_path(draft.path)):
            engine = replace(request.engine, shard=None)
            shards = _embed_in_shards(ctx, request, samples, engine, shards_path(draft.path))
            embedding_shards.write_sharded_embeddings(shards, draft.path)
        else:
            encoder = _encoder_factory(ctx, request, samples, _progress_watcher(ctx, request))()
            write_embeddings(encoder.encode(samples), draft.path)

    artifact = ctx.store.get_or_make(STAGE, _version(request), config, inputs, make, packages=PACKAGES)
    remove_shards(artifact)
    return artifact


def embed_shard(ctx: RunContext, request: EmbeddingRequest, store: Store) -> None:
    """Make this job's shards (`request.engine.shard`) of vectors, and of transcripts if the encoder needs them."""
    config, inputs = _cache_key(ctx, request)
    version = _version(request)
    if store.find(STAGE, version, config, inputs) is None:
        folder = shards_path(store.locate(STAGE, version, config, inputs).location)
        _embed_in_shards(ctx, request, _encoder_inputs(ctx, request)[0], request.engine, folder)


def _version(request: EmbeddingRequest) -> int:
    from undersong.encoders.registry import ENCODERS_THAT_FIT
    from undersong.encoders.spec import parse_encoder

    return SPARSE_VERSION if parse_encoder(request.spec).kind in ENCODERS_THAT_FIT else VERSION


def _embed_in_shards(
    ctx: RunContext, request: EmbeddingRequest, samples: Sequence[Sample], engine: Engine, folder: Path
) -> RowShards:
    """Vectors of the samples in shards: this job's, or all that are missing."""
    from undersong.scale import embedding_shards
    from undersong.scale.row_shards import RowShards

    shards = RowShards(folder, samples, embedding_shards.SHARD_ROWS)
    make_pass = partial(embedding_shards.vector_pass, _encoder_factory(ctx, request, samples))
    fill_missing_shards(engine, shards, make_pass, _progress_watcher(ctx, request))
    return shards


def _cache_key(ctx: RunContext, request: EmbeddingRequest) -> tuple[dict[str, Any], dict[str, Artifact | str]]:
    """Config and inputs: the encoder's options, and all that its vectors depend on."""
    from undersong.encoders.registry import ENCODERS_THAT_FIT, encoder_weights_hash
    from undersong.encoders.spec import parse_encoder
    from undersong.models.refs import model_hash
    from undersong.store.user_code import code_hash

    encoder_spec, asr = parse_encoder(request.spec), asr_model(request.spec)
    config: dict[str, Any] = {"encoder": encoder_spec.canonical}
    inputs: dict[str, Artifact | str] = {"corpus": request.corpus.artifact}
    if request.is_internal_encoder and request.model is not None:
        inputs["model"] = model_hash(request.model)
        if request.features is None:
            config["loading"] = ctx.loading.cache_key
        else:
            inputs["features"] = request.features
    if weights := encoder_weights_hash(encoder_spec, ctx.unread):
        inputs["weights"] = weights
    if encoder_spec.code:
        inputs["code"] = code_hash(encoder_spec.code)
    if asr:
        inputs["transcripts"] = transcribe_corpus(ctx, asr, request.corpus, request.engine)
    if encoder_spec.kind in ENCODERS_THAT_FIT:
        inputs |= {f"fit{i}": fit_corpus.artifact for i, fit_corpus in enumerate(request.fit_corpora)}
    return config, inputs


def _encoder_inputs(ctx: RunContext, request: EmbeddingRequest) -> tuple[Sequence[Sample], Sequence[Quarantined]]:
    """Samples to embed, with transcripts if the encoder needs them, and those that the model could not encode."""
    from undersong.encoders.asr import read_transcripts, with_transcripts

    if request.is_internal_encoder and request.features is not None:
        return encodable_samples(request.corpus, request.features)
    if asr := asr_model(request.spec):
        texts = read_transcripts(transcribe_corpus(ctx, asr, request.corpus, request.engine).path)
        return with_transcripts(request.corpus.samples, texts), ()
    return request.corpus.samples, ()


def _progress_watcher(ctx: RunContext, request: EmbeddingRequest) -> ProgressCallback | None:
    return ctx.watcher(f"{request.spec} of {request.corpus.ref}")


def _encoder_factory(
    ctx: RunContext, request: EmbeddingRequest, samples: Sequence[Sample], progress: ProgressCallback | None = None
) -> Callable[[], Encoder]:
    """Factory of the encoder; nothing is loaded before it is called. With shards, the encoder does not report
    progress."""
    from undersong.encoders.registry import ENCODERS_THAT_FIT, internal_view, make_encoder
    from undersong.scale.embedding_shards import SHARD_ROWS, FittedOnce

    spec, model, features = request.spec, request.model, request.features
    if request.is_internal_encoder and model is not None and features is None:
        if request.engine.name == "ray":
            return partial(_worker_encoder, model, ctx.loading, spec)
        return lambda: OnTheFlyInternalEncoder(lambda: ctx.model(model), spec, len(samples) <= SHARD_ROWS, progress)
    if request.is_internal_encoder and model is not None and features is not None:
        return lambda: make_encoder(
            spec, fit=(), model=ctx.model(model, [features]).cached_audio(samples, internal_view(spec))
        )
    is_fitted = spec in ENCODERS_THAT_FIT
    fit_samples = [sample for corpus in request.fit_corpora for sample in corpus.samples] if is_fitted else ()
    # No function of our own: it may have to travel to a worker.
    make = partial(make_encoder, spec, fit=fit_samples, device=ctx.loading.device, progress=progress)
    return FittedOnce(make) if is_fitted else make


def _worker_encoder(model: str, loading: LoadOptions, spec: str) -> OnTheFlyInternalEncoder:
    """Encoder in a worker process, which keeps the model for its lifetime."""
    from undersong.models.load import load_model

    return OnTheFlyInternalEncoder(cache(partial(load_model, model, loading)), spec, False, None)


@dataclass(frozen=True)
class OnTheFlyInternalEncoder:
    """Internal encoder that encodes clips when they are embedded.

    With `keep_features`, audio features stay cached for other views. For a large pool only the vectors are kept, so
    each view encodes it anew.
    """

    model: Callable[[], AudioModel]
    name: str
    keep_features: bool
    progress: ProgressCallback | None

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Embed samples; clips that cannot be encoded whole are quarantined like any other item."""
        from undersong.encoders.batching import start_progress
        from undersong.encoders.registry import internal_view, make_encoder
        from undersong.models.feature_cache import cache_audio_features

        model = self.model()
        cached_before = set(model.audio_features)
        features, failed, _ = cache_audio_features(model, samples, start_progress(len(samples), self.progress).update)
        lost = {item.id for item in failed}
        usable = [sample for sample in samples if sample.id not in lost]
        vectors = make_encoder(self.name, fit=(), model=model.cached_audio(usable, internal_view(self.name))).encode(
            usable
        )
        for key in () if self.keep_features else features.keys() - cached_before:
            del model.audio_features[key]
        return replace(vectors, quarantined=(*failed, *vectors.quarantined))


def compute_gradients(
    ctx: RunContext,
    model_ref: str,
    corpus: Corpus,
    features: Artifact,
    harmful: bool,
    system_text: str | None,
    target: str,
    settings: dict[str, Any],
    instruction: Mapping[str, Any] = MappingProxyType({}),
) -> Artifact:
    """Artifact with projected LoRA gradients of the base on every sample, as audio.

    The harm set's replies must comply, as the organism's do. A sample without a reply is quarantined; if it is a harm
    item, the study stops.

    Args:
        ctx: The run context.
        model_ref: The base model.
        corpus: The corpus.
        features: Its audio features.
        harmful: True for a harm set.
        system_text: Text of the system prompt.
        target: Column with the replies.
        settings: dim, rank, alpha and seed.
        instruction: Instruction of the training prompts, as `training_instruction` gives it.
    """
    from undersong.models.refs import model_hash

    def make(draft: Draft) -> None:
        from undersong.encoders.embeddings import write_embeddings
        from undersong.evaluation.prompts import make_prompts
        from undersong.tuning.gradient_features import gradient_vectors

        samples, unencoded = encodable_samples(corpus, features)
        prompts = make_prompts(
            samples,
            set_name="gradients",
            harmful=harmful,
            modality="audio",
            system="train",
            system_text=system_text,
            **instruction,
        )
        replies = [sample.column(target) or "" for sample in samples]
        vectors = gradient_vectors(ctx.model(model_ref, [features]), prompts, replies, **settings)
        write_embeddings(replace(vectors, quarantined=(*unencoded, *vectors.quarantined)), draft.path)

    config = {"settings": settings, "system": system_text, "target": target, "loading": ctx.loading.cache_key}
    config |= instruction
    inputs: Inputs = {"model": model_hash(model_ref), "corpus": corpus.artifact, "features": features}
    return ctx.store.get_or_make("gradients", 1, config, inputs, make, seed=settings["seed"], packages=MODEL_PACKAGES)
