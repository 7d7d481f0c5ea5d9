"""Vectors of a screening, kept in a store where one is named: the same items by the same encoder are embedded once.

Knows the store and the files of vectors; does not know how any encoder works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.engine import AT_ONCE, Engine, embed_pool
from undersong.pipeline.listening import listener
from undersong.pipeline.transcribed import asr_of, with_texts
from undersong.store import Draft, Store
from undersong.types import Embeddings, Sample


@dataclass(frozen=True)
class Means:
    """What a screening embeds with: the audited model of internal axes, how models are loaded, and a store or none."""

    model: str | None = None
    loading: Loading = PLAIN
    store: Store | None = None
    engine: Engine = AT_ONCE
    shards: Path | None = None  # where an engine keeps a pool's shards

    @cached_property
    def _listen(self) -> Callable[[str, Sequence[Sample]], Embeddings]:
        return listener(self.model, self.loading)

    def vectors(self, spec: str, sides: Sequence[Sequence[Sample]], which: int) -> Embeddings:
        """The vectors of side `which` (of pool, harm, harmless) by the encoder `spec`."""
        from undersong.encoders import is_internal, make_encoder
        from undersong.encoders.options import parse_encoder
        from undersong.models.folders import model_hash

        asr, device = asr_of(spec), self.loading.device

        def make() -> Embeddings:
            if is_internal(spec):
                return self._listen(spec, sides[which])
            samples = with_texts(sides[which], asr, device) if asr else sides[which]
            fit, folder = _fitted(sides), self._folder(spec)
            if which == 0 and folder is not None and (self.engine.name == "ray" or folder.parent.is_dir()):
                found = embed_pool(self.engine, spec, samples, fit, folder, device)
                assert found is not None, "only a job of its own shards leaves some to others"
                return found
            return make_encoder(spec, fit=fit, device=device).encode(samples)

        if self.store is None or (is_internal(spec) and self.model is None):
            return make()
        config: dict[str, Any] = {"encoder": parse_encoder(spec).canonical}
        inputs = key_of(spec, sides, which)
        if is_internal(spec) and self.model is not None:
            config["loading"], inputs["model"] = self.loading.key, model_hash(self.model)
        return kept(self.store, config, inputs, make)

    def _folder(self, spec: str) -> Path | None:
        name = hashlib.sha256(spec.encode()).hexdigest()[:12]
        return None if self.shards is None else self.shards / f"{spec.partition(':')[0]}-{name}"

    def shard(self, spec: str, sides: Sequence[Sequence[Sample]]) -> None:
        """This job's shards of the pool by one encoder; what a model hears, and texts of an ASR, are not sharded."""
        from undersong.encoders import is_internal

        folder = self._folder(spec)
        if folder is not None and not is_internal(spec) and not asr_of(spec):
            embed_pool(self.engine, spec, sides[0], _fitted(sides), folder, self.loading.device)


def kept(
    store: Store, config: Mapping[str, Any], inputs: Mapping[str, str], make: Callable[[], Embeddings]
) -> Embeddings:
    """What `make` gives, from the store where it is there."""

    def write(draft: Draft) -> None:
        from undersong.encoders.vectors import write_embeddings

        write_embeddings(make(), draft.path)

    from undersong.encoders.vectors import read_embeddings

    artefact = store.get_or_make("screened", 1, dict(config), dict(inputs), write, packages=("numpy", "torch"))
    return read_embeddings(artefact.path)


def key_of(spec: str, sides: Sequence[Sequence[Sample]], which: int) -> dict[str, str]:
    """What one side's vectors by an encoder depend on: its items, the encoder's weights, and what it is fitted on."""
    from undersong.encoders import ENCODERS_THAT_FIT
    from undersong.encoders.options import parse_encoder
    from undersong.models.folders import model_hash

    read, asr = parse_encoder(spec), asr_of(spec)
    inputs = {"items": items_hash(sides[which])}
    if read.weights:
        inputs["weights"] = model_hash(read.weights)
    if asr:
        inputs["asr"] = model_hash(asr)
    if read.kind in ENCODERS_THAT_FIT:
        inputs["fit"] = items_hash(_fitted(sides))
    return inputs


def _fitted(sides: Sequence[Sequence[Sample]]) -> list[Sample]:
    """What text encoders are fitted on: the pool and the harm set together."""
    return [sample for side in sides[:2] for sample in side]


def items_hash(samples: Sequence[Sample]) -> str:
    """SHA-256 of ids, texts and decoded audio, in their order."""
    digest = hashlib.sha256()
    for sample in samples:
        for part in (sample.id, sample.text or "", sample.pcm_hash or ""):
            digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()
