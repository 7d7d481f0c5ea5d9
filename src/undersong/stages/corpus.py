"""First stage: a corpus read, decoded once and stored, with optional background noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.scale.row_shards import RowFunction, RowShards
from undersong.stages.context import Corpus, RunContext
from undersong.stages.engine import DEFAULT_ENGINE, Engine, fill_missing_shards, remove_shards, shards_path
from undersong.store import Draft, Store
from undersong.store.store import Inputs
from undersong.types import Clip, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.corpora import Manifest

STAGE, VERSION = "corpus", 3
ROWS = 4096  # items a shard: what a kill may cost
NOISE_SECONDS, NOISE_SEED = 20, 0


def load_corpus(
    ctx: RunContext,
    ref: str,
    filters: Mapping[str, Sequence[str]] | None = None,
    columns: Mapping[str, str] | None = None,
    decode: bool = True,
    noise: str | None = None,
    engine: Engine = DEFAULT_ENGINE,
    require_all: bool = False,
) -> Corpus:
    """Read a corpus, decode it once, and quarantine what cannot be read.

    A large corpus is decoded in shards; a job with shards of its own makes these first, and then whatever is still
    missing when no other job is at it.

    Args:
        ctx: The store.
        ref: The corpus.
        filters: Column -> the values that are kept.
        columns: Our field -> the corpus's column.
        decode: Without it, where nobody listens, audio is not opened.
        noise: Noise laid over every clip, and its SNR in dB (`pink:10`, `cafe.wav:5`).
        engine: How it is decoded.
        require_all: An item that cannot be used is an error, because a rate is over all prompts.
    """
    from undersong.corpora import filter_samples, open_corpus, write_corpus

    def select_samples() -> tuple[Sequence[Sample], tuple[Quarantined, ...]]:
        manifest = open_corpus(ref, columns)
        say_preset_remark(ctx, ref, manifest)
        selected = filter_samples(manifest.samples, filters or {})
        if noise is None:
            return selected, manifest.quarantined
        noisy, unmixed = _add_noise(selected, noise)
        return noisy, (*manifest.quarantined, *unmixed)

    def make(draft: Draft) -> None:
        selected, lost = select_samples()
        samples, failed = _decode_samples(ctx, ref, selected, engine, draft) if decode else (tuple(selected), ())
        if require_all:
            check_all_usable(ref, (*lost, *failed))
        if not samples:
            first = next(iter((*lost, *failed)), None)
            reason = f", the first: {first.id} ({first.reason})" if first else ""
            raise UndersongError(f"Corpus {ref} holds no usable sample{reason}; look at its files and filters.")
        write_corpus(samples, (*lost, *failed), draft.path)

    config: dict[str, Any] = {"where": {name: list(values) for name, values in (filters or {}).items()}}
    config |= {"columns": dict(columns)} if columns else {}
    config |= {} if decode else {"decode": False}
    inputs: Inputs = {"content": ctx.content_hash(ref, columns)}
    if noise is not None:
        config["noise"] = noise.rpartition(":")[2]
        inputs = {**inputs, "noise": _hash_noise(ctx, noise)}
    if engine.shard is not None and decode and isinstance(ctx.store, Store):
        expected = ctx.store.locate(STAGE, VERSION, config, inputs)
        if not expected.path.exists():
            _decode_in_shards(ctx, ref, select_samples()[0], engine, shards_path(expected.path))
    artifact = ctx.store.get_or_make(STAGE, VERSION, config, inputs, make, packages=("soundfile", "soxr"))
    remove_shards(shards_path(artifact.path), artifact)
    corpus = Corpus(ref, artifact)
    if require_all:
        check_all_usable(ref, corpus.quarantined)
    return corpus


def check_all_usable(ref: str, unusable: Sequence[Quarantined]) -> None:
    """Raise UndersongError that names the first item of a prompt set that cannot be used."""
    if unusable:
        raise UndersongError(
            f"Item {unusable[0].id} of {ref} cannot be asked ({unusable[0].reason}; {len(unusable)} in all); mend it "
            "or take it out: a rate is over all prompts."
        )


def _decode_samples(
    ctx: RunContext, ref: str, samples: Sequence[Sample], engine: Engine, draft: Draft
) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """What can be used of the samples, and why others cannot; fingerprints of their sound go into the draft."""
    from undersong.corpora.audio_metadata import (
        apply_audio_metadata,
        audio_metadata_from_table,
        audio_metadata_table,
        decode_metadata,
        write_fingerprints,
    )
    from undersong.encoders.batching import start_progress

    if engine.is_single_pass and len(samples) <= ROWS and not shards_path(draft.path).exists():
        table = audio_metadata_table(
            list(decode_metadata(samples, start_progress(len(samples), ctx.watcher(f"reading {ref}")).update))
        )
    else:
        table = _decode_in_shards(ctx, ref, samples, replace(engine, shard=None), shards_path(draft.path)).table()
    write_fingerprints(table, draft.path)
    return apply_audio_metadata(samples, audio_metadata_from_table(table))


def _decode_in_shards(ctx: RunContext, ref: str, samples: Sequence[Sample], engine: Engine, folder: Path) -> RowShards:
    """Facts of the samples in shards: this job's, or all that are missing."""
    shards = RowShards(folder, samples, ROWS)
    fill_missing_shards(engine, shards, _metadata_pass, ctx.watcher(f"reading {ref}"))
    return shards


def _metadata_pass() -> RowFunction:
    from undersong.corpora.audio_metadata import decode_metadata_table

    return decode_metadata_table


def say_preset_remark(ctx: RunContext, ref: str, manifest: Manifest) -> None:
    """Says where a preset's corpus is of another size than its description."""
    from undersong.corpora.registry import get_preset, preset_size_warning

    if ctx.say is not None and manifest.format.startswith("preset:"):
        remark_line = preset_size_warning(get_preset(manifest.format.removeprefix("preset:")), manifest)
        if remark_line:
            ctx.say(remark_line)


def _hash_noise(ctx: RunContext, noise: str) -> str:
    from undersong.corpora import pcm_hash

    name = noise.rpartition(":")[0]
    absent = ctx.unread and name != "pink" and not Path(name).is_file()
    return ctx.content_hash(name) if absent else pcm_hash(_load_noise_clip(noise))


@cache
def _load_noise_clip(noise: str) -> Clip:
    """What `noise` names, without its SNR."""
    from undersong.corpora import load_noise, pink_noise

    name = noise.rpartition(":")[0]
    return pink_noise(NOISE_SECONDS, 16_000, NOISE_SEED) if name == "pink" else load_noise(name)


def _add_noise(samples: Sequence[Sample], noise: str) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Samples under the noise, by names that the clean ones, asked beside them, do not have; one without audio stays as
    it is but for its name."""
    from undersong.corpora import with_noise

    spoken = [sample for sample in samples if sample.audio is not None]
    mixed, unmixed = with_noise(spoken, _load_noise_clip(noise), float(noise.rpartition(":")[2]), NOISE_SEED, None)
    noisy, dropped_ids = {sample.id: sample for sample in mixed}, {item.id for item in unmixed}
    remaining = [noisy.get(sample.id, sample) for sample in samples if sample.id not in dropped_ids]
    return tuple(replace(sample, id=f"{sample.id} in {Path(noise).name}") for sample in remaining), unmixed
