"""The first stage: a corpus read, decoded once and kept.  Knows manifests; does not know models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.store import Draft
from undersong.types import Clip, Quarantined, Sample, UndersongError

NOISE_SECONDS, NOISE_SEED = 20, 0


def corpus(
    shop: Workshop,
    ref: str,
    where: Mapping[str, Sequence[str]] | None = None,
    columns: Mapping[str, str] | None = None,
    decode: bool = True,
    noise: str | None = None,
) -> Corpus:
    """Read, decode once, quarantine what cannot be read (DESIGN rule 2).  `columns`: our field -> the corpus's column.

    Without `decode`, where nobody listens, audio is not opened.  `noise`: what is laid over every clip, and its SNR in
    dB (`pink:10`, `cafe.wav:5`).
    """
    from undersong.corpora import examine, open_corpus, select, write_corpus

    def make(draft: Draft) -> None:
        from undersong.encoders.progress import watch

        manifest = open_corpus(ref, columns)
        chosen = select(manifest.samples, where or {})
        lost: tuple[Quarantined, ...] = manifest.quarantined
        if noise is not None:
            chosen, silent = _under(chosen, noise)
            lost = (*lost, *silent)
        clock = watch(len(chosen), shop.watcher(f"reading {ref}"))
        samples, failed = examine(chosen, tell=clock.at) if decode else (chosen, ())
        if not samples:
            first = next(iter((*lost, *failed)), None)
            why = f", the first: {first.id} ({first.reason})" if first else ""
            raise UndersongError(f"Corpus {ref} holds no usable sample{why}; look at its files and filters.")
        write_corpus(samples, (*lost, *failed), draft.path)

    config: dict[str, Any] = {"where": {name: list(values) for name, values in (where or {}).items()}}
    config |= {"columns": dict(columns)} if columns else {}
    config |= {} if decode else {"decode": False}
    inputs: Inputs = {"content": shop.content(ref, columns)}
    if noise is not None:
        config["noise"] = noise.rpartition(":")[2]
        inputs = {**inputs, "noise": _noise_hash(shop, noise)}
    return Corpus(ref, shop.store.get_or_make("corpus", 2, config, inputs, make, packages=("soundfile", "soxr")))


def _noise_hash(shop: Workshop, noise: str) -> str:
    from undersong.corpora import pcm_hash

    name = noise.rpartition(":")[0]
    absent = shop.unread and name != "pink" and not Path(name).is_file()
    return shop.content(name) if absent else pcm_hash(_noise(noise))


@cache
def _noise(noise: str) -> Clip:
    """What `noise` names, without its SNR."""
    from undersong.corpora import load_noise, pink

    name = noise.rpartition(":")[0]
    return pink(NOISE_SECONDS, 16_000, NOISE_SEED) if name == "pink" else load_noise(name)


def _under(samples: Sequence[Sample], noise: str) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Samples under the noise, by names that the clean ones, asked beside them, do not have; one without audio stays as
    it is but for its name."""
    from undersong.corpora import with_noise

    spoken = [sample for sample in samples if sample.audio is not None]
    made, silent = with_noise(spoken, _noise(noise), float(noise.rpartition(":")[2]), NOISE_SEED, None)
    noisy, gone = {sample.id: sample for sample in made}, {item.id for item in silent}
    kept = [noisy.get(sample.id, sample) for sample in samples if sample.id not in gone]
    return tuple(replace(sample, id=f"{sample.id} in {Path(noise).name}") for sample in kept), silent
