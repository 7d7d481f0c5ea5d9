"""The vectors of a corpus by an encoder: one artefact for studies and screenings, made in shards where it is large.

Knows the store, engines and files of vectors; does not know how any encoder works, or distances.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.pipeline.engine import AT_ONCE, Engine, clear, embed_pool, in_shards
from undersong.pipeline.stages.heard import hearable
from undersong.pipeline.stages.transcribed import asr_of, transcripts
from undersong.pipeline.workshop import Corpus, Workshop
from undersong.store import Artefact, Draft, Store
from undersong.types import Embeddings, Encoder, Quarantined, Sample

if TYPE_CHECKING:
    from undersong.encoders.progress import Watcher
    from undersong.models.adapter import AudioModel
    from undersong.models.loading import Loading

STAGE, VERSION = "embeddings", 2
PACKAGES = ("numpy", "scikit-learn", "torch", "transformers")


@dataclass(frozen=True)
class View:
    """Whose vectors: the encoder `spec` on a corpus, fitted on `fit` together where it is a text encoder that fits.

    `model`: whose ears an internal encoder is.  They are taken from `heard`, the features that a study keeps of the
    corpus; with None each clip is heard and pooled at once, because features of a large pool would fill a disk.
    """

    spec: str
    corpus: Corpus
    fit: Sequence[Corpus]
    model: str | None = None
    heard: Artefact | None = None
    engine: Engine = AT_ONCE

    @property
    def internal(self) -> bool:
        """Whether the vectors are of what an audited model hears, so that `model` is needed."""
        from undersong.encoders import is_internal

        return is_internal(self.spec)


def embeddings(shop: Workshop, view: View) -> Artefact:
    """One vector a sample, and what could not be embedded."""
    config, inputs = _question(shop, view)

    def make(draft: Draft) -> None:
        from undersong.encoders.vectors import write_embeddings

        samples, unheard = _samples(shop, view)
        engine = view.engine
        folder = _shards(draft.path)
        if view.heard is not None and view.internal:
            made = _encoder(shop, view, samples)().encode(samples)
            write_embeddings(replace(made, quarantined=(*unheard, *made.quarantined)), draft.path)
        elif in_shards(engine, len(samples), folder):
            embed_pool(engine, view.spec, samples, folder, _encoder(shop, view, samples), _watcher(shop, view))
            _take(folder, draft)
        else:
            encoder = _encoder(shop, view, samples, _watcher(shop, view))()
            write_embeddings(encoder.encode(samples), draft.path)

    made = shop.store.get_or_make(STAGE, VERSION, config, inputs, make, packages=PACKAGES)
    clear(_shards(made.path), made)
    return made


def embed_shard(shop: Workshop, view: View, store: Store) -> None:
    """This job's shards (`view.engine.shard`): of its transcripts, where it wants some, and of its vectors."""
    config, inputs = _question(shop, view)
    if store.find(STAGE, VERSION, config, inputs) is None:
        folder = _shards(store.place(STAGE, VERSION, config, inputs).path)
        samples, _ = _samples(shop, view)
        embed_pool(view.engine, view.spec, samples, folder, _encoder(shop, view, samples), _watcher(shop, view))


def _question(shop: Workshop, view: View) -> tuple[dict[str, Any], dict[str, Artefact | str]]:
    """Config and inputs: the encoder's options, and all that its vectors depend on."""
    from undersong.encoders import ENCODERS_THAT_FIT
    from undersong.encoders.options import parse_encoder
    from undersong.encoders.weights import encoder_weights_hash
    from undersong.models.folders import model_hash
    from undersong.store.code import code_hash

    read, asr = parse_encoder(view.spec), asr_of(view.spec)
    config: dict[str, Any] = {"encoder": read.canonical}
    inputs: dict[str, Artefact | str] = {"corpus": view.corpus.artefact}
    if view.internal and view.model is not None:
        inputs["model"] = model_hash(view.model)
        if view.heard is None:
            config["loading"] = shop.loading.key
        else:
            inputs["heard"] = view.heard
    if weights := encoder_weights_hash(read, shop.unread):
        inputs["weights"] = weights
    if read.code:
        inputs["code"] = code_hash(read.code)
    if asr:
        inputs["transcripts"] = transcripts(shop, asr, view.corpus, view.engine)
    if read.kind in ENCODERS_THAT_FIT:
        inputs |= {f"fit{i}": other.artefact for i, other in enumerate(view.fit)}
    return config, inputs


def _samples(shop: Workshop, view: View) -> tuple[Sequence[Sample], Sequence[Quarantined]]:
    """What is embedded, with transcripts where the encoder wants them; and what a study's model did not hear."""
    from undersong.encoders.written.transcripts import read_transcripts, with_transcripts

    if view.internal and view.heard is not None:
        return hearable(view.corpus, view.heard)
    if asr := asr_of(view.spec):
        texts = read_transcripts(transcripts(shop, asr, view.corpus, view.engine).path)
        return with_transcripts(view.corpus.samples, texts), ()
    return view.corpus.samples, ()


def _watcher(shop: Workshop, view: View) -> Watcher | None:
    return shop.watcher(f"{view.spec} of {view.corpus.ref}")


def _encoder(
    shop: Workshop, view: View, samples: Sequence[Sample], progress: Watcher | None = None
) -> Callable[[], Encoder]:
    """How the encoder is made; nothing is loaded before it is called.  In shards it is not the encoder that tells."""
    from undersong.encoders import ENCODERS_THAT_FIT, make_encoder, view_of
    from undersong.scale.work import ROWS

    spec, model, heard = view.spec, view.model, view.heard
    if view.internal and model is not None and heard is None:
        if view.engine.name == "ray":
            return partial(_alone, model, shop.loading, spec)
        return lambda: Listening(lambda: shop.model(model), spec, len(samples) <= ROWS, progress)
    if view.internal and model is not None and heard is not None:
        return lambda: make_encoder(spec, fit=(), model=shop.model(model, [heard]).ears(samples, view_of(spec)))
    fits = spec in ENCODERS_THAT_FIT
    every = [sample for one in view.fit for sample in one.samples] if fits else ()
    # No function of our own: it may have to travel to a worker.
    return partial(make_encoder, spec, fit=every, device=shop.loading.device, progress=progress)


def _alone(model: str, loading: Loading, spec: str) -> Listening:
    """In a process of its own, which holds the model for as long as it lives."""
    from undersong.models.load import load_model

    return Listening(cache(partial(load_model, model, loading)), spec, False, None)


@dataclass(frozen=True)
class Listening:
    """An Encoder of what a model hears now.  `keep`: other views may ask for it again; of a large pool only the vectors
    are kept, so each view hears it anew."""

    model: Callable[[], AudioModel]
    name: str
    keep: bool
    progress: Watcher | None

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Clips that cannot be heard whole are quarantined like any other item."""
        from undersong.encoders import make_encoder, view_of
        from undersong.encoders.progress import watch
        from undersong.models.features import listen

        model = self.model()
        known = set(model.heard)
        heard, failed, _ = listen(model, samples, watch(len(samples), self.progress).at)
        lost = {item.id for item in failed}
        usable = [sample for sample in samples if sample.id not in lost]
        made = make_encoder(self.name, fit=(), model=model.ears(usable, view_of(self.name))).encode(usable)
        for key in () if self.keep else heard.keys() - known:
            del model.heard[key]
        return replace(made, quarantined=(*failed, *made.quarantined))


def _shards(place: Path) -> Path:
    """Where the shards of an artefact lie until it is whole."""
    return place.with_suffix(".shards")


def _take(folder: Path, draft: Draft) -> None:
    """All files of finished shards into the draft: as links where the disk has them, so that nothing is copied."""
    for file in sorted(folder.glob("*.parquet")):
        if not draft.has(file.name):
            with draft.file(file.name) as path:
                try:
                    os.link(file, path)
                except OSError:
                    shutil.copyfile(file, path)
