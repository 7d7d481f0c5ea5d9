"""Vectors of a screening, kept in a store where one is named: the same items by the same encoder are embedded once.

Knows the store and the files of vectors; does not know how any encoder works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from undersong.models.loading import PLAIN, Loading
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
            fit = [sample for side in sides[:2] for sample in side]
            return make_encoder(spec, fit=fit, device=device).encode(samples)

        if self.store is None or (is_internal(spec) and self.model is None):
            return make()
        config: dict[str, Any] = {"encoder": parse_encoder(spec).canonical}
        inputs = key_of(spec, sides, which)
        if is_internal(spec) and self.model is not None:
            config["loading"], inputs["model"] = self.loading.key, model_hash(self.model)
        return kept(self.store, config, inputs, make)


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

    read = parse_encoder(spec)
    inputs = {"items": items_hash(sides[which])}
    if read.kind in ("whisper", "speech", "text"):
        inputs["weights"] = model_hash(read.ref)
        if read.kind == "text" and read.option("asr"):
            inputs["asr"] = model_hash(read.option("asr"))
    if read.kind in ENCODERS_THAT_FIT:
        inputs["fit"] = items_hash([sample for side in sides[:2] for sample in side])
    return inputs


def items_hash(samples: Sequence[Sample]) -> str:
    """SHA-256 of ids, texts and decoded audio, in their order."""
    digest = hashlib.sha256()
    for sample in samples:
        for part in (sample.id, sample.text or "", sample.pcm_hash or ""):
            digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()
