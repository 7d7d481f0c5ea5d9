"""Corpus stage: a corpus read, decoded once and stored, with optional background noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.scale.row_shards import RowFunction, RowShards
from undersong.stages.context import Corpus, RunContext
from undersong.stages.engine import DEFAULT_ENGINE, Engine, fill_missing_shards, remove_shards, shards_path, uses_shards
from undersong.store.draft import Draft
from undersong.store.store import Inputs, Store
from undersong.types import Clip, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.corpora.manifest import Manifest

STAGE, VERSION = "corpus", 3
ROWS = 4096  # items per shard, the most work that a kill can lose
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
    column_advice: str | None = None,
) -> Corpus:
    """Read a corpus, decode its audio once, and quarantine what cannot be read (rule 2 in docs/contributing/rules.md).

    A large corpus is decoded in shards. A job with its own shards (`engine.shard`) makes these first, and then whatever
    is missing if no other job is working on it.

    Args:
        ctx: The run context.
        ref: The corpus.
        filters: Allowed values of columns.
        columns: Column of the corpus for each of our fields.
        decode: Decode the audio; False if no stage needs it.
        noise: Noise to add to every clip, and its SNR in dB (`pink:10`, `cafe.wav:5`).
        engine: Engine that decodes.
        require_all: Raise for an item that cannot be used, because a rate is over all prompts.
        column_advice: What to do if no column is audio or text; by default to rename one.

    Raises:
        UndersongError: No sample can be used; with `require_all`, one cannot.
    """
    from undersong.corpora.column_names import RENAME_ADVICE, check_audio_or_text
    from undersong.corpora.manifest import filter_samples, write_corpus
    from undersong.corpora.registry import corpus_columns, is_local_corpus, open_corpus

    if not ctx.unread or is_local_corpus(ref):
        reading = corpus_columns(ref, columns)
        columns = reading.columns
        for note in reading.notes:
            ctx.announce_once(note)

    def select_samples() -> tuple[Sequence[Sample], tuple[Quarantined, ...]]:
        manifest = open_corpus(ref, columns)
        say_preset_remark(ctx, ref, manifest)
        for note in manifest.notes:
            ctx.announce_once(note)
        check_audio_or_text(ref, manifest.samples, column_advice or RENAME_ADVICE)
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
            raise UndersongError(f"Corpus {ref} has no usable sample{reason}; check its files and filters.")
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
        if not expected.location.exists():
            _decode_in_shards(ctx, ref, select_samples()[0], engine, shards_path(expected.location))
    artifact = ctx.store.get_or_make(STAGE, VERSION, config, inputs, make, packages=("soundfile", "soxr"))
    remove_shards(artifact)
    corpus = Corpus(ref, artifact)
    if require_all:
        check_all_usable(ref, corpus.quarantined)
    return corpus


def check_all_usable(ref: str, unusable: Sequence[Quarantined]) -> None:
    """Check that every item of a prompt set can be used; UndersongError names the first that cannot."""
    if unusable:
        raise UndersongError(
            f"Item {unusable[0].id} of {ref} cannot be a prompt ({unusable[0].reason}; {len(unusable)} in all); "
            "fix or remove it: a rate is over all prompts."
        )


def _decode_samples(
    ctx: RunContext, ref: str, samples: Sequence[Sample], engine: Engine, draft: Draft
) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Usable samples, and the quarantined ones; audio fingerprints are written to the draft."""
    from undersong.corpora.audio_metadata import (
        apply_audio_metadata,
        audio_metadata_from_table,
        audio_metadata_table,
        decode_metadata,
        write_fingerprints,
    )
    from undersong.encoders.batching import start_progress

    if uses_shards(engine, len(samples), ROWS, shards_path(draft.path)):
        table = _decode_in_shards(ctx, ref, samples, replace(engine, shard=None), shards_path(draft.path)).table()
    else:
        progress = start_progress(len(samples), ctx.watcher(f"reading {ref}"))
        table = audio_metadata_table(list(decode_metadata(samples, progress.update)))
    write_fingerprints(table, draft.path)
    return apply_audio_metadata(samples, audio_metadata_from_table(table))


def _decode_in_shards(ctx: RunContext, ref: str, samples: Sequence[Sample], engine: Engine, folder: Path) -> RowShards:
    """Decode metadata of the samples in shards: this job's shards, or all that are missing."""
    shards = RowShards(folder, samples, ROWS)
    fill_missing_shards(engine, shards, _metadata_pass, ctx.watcher(f"reading {ref}"))
    return shards


def _metadata_pass() -> RowFunction:
    from undersong.corpora.audio_metadata import decode_metadata_table

    return decode_metadata_table


def say_preset_remark(ctx: RunContext, ref: str, manifest: Manifest) -> None:
    """Report if a preset's corpus has another size than its description says."""
    from undersong.corpora.registry import get_preset, preset_size_warning

    if ctx.say is not None and manifest.format.startswith("preset:"):
        remark_line = preset_size_warning(get_preset(manifest.format.removeprefix("preset:")), manifest)
        if remark_line:
            ctx.say(remark_line)


def _hash_noise(ctx: RunContext, noise: str) -> str:
    from undersong.corpora.decode import pcm_hash

    name = noise.rpartition(":")[0]
    absent = ctx.unread and name != "pink" and not Path(name).is_file()
    return ctx.content_hash(name) if absent else pcm_hash(_load_noise_clip(noise))


@cache
def _load_noise_clip(noise: str) -> Clip:
    """Noise clip that `noise` names, without its SNR."""
    from undersong.corpora.noise import load_noise, pink_noise

    name = noise.rpartition(":")[0]
    return pink_noise(NOISE_SECONDS, 16_000, NOISE_SEED) if name == "pink" else load_noise(name)


def _add_noise(samples: Sequence[Sample], noise: str) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Samples with noise, with ids that differ from those of the clean samples; a sample without audio only gets the
    id."""
    from undersong.corpora.noise import with_noise

    spoken = [sample for sample in samples if sample.audio is not None]
    mixed, unmixed = with_noise(spoken, _load_noise_clip(noise), float(noise.rpartition(":")[2]), NOISE_SEED, None)
    noisy, dropped_ids = {sample.id: sample for sample in mixed}, {item.id for item in unmixed}
    remaining = [noisy.get(sample.id, sample) for sample in samples if sample.id not in dropped_ids]
    return tuple(replace(sample, id=f"{sample.id} in {Path(noise).name}") for sample in remaining), unmixed
