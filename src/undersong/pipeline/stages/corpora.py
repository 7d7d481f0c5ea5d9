"""The first stage: a corpus read, decoded once and kept.  Knows manifests; does not know models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.pipeline.engine import AT_ONCE, Engine, clear, pass_over, portions_of
from undersong.pipeline.workshop import Corpus, Inputs, Workshop
from undersong.scale.portions import Pass, Portions
from undersong.store import Draft, Store
from undersong.types import Clip, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.corpora import Manifest

STAGE, VERSION = "corpus", 3
ROWS = 4096  # items a shard: what a kill may cost
NOISE_SECONDS, NOISE_SEED = 20, 0


def corpus(
    shop: Workshop,
    ref: str,
    where: Mapping[str, Sequence[str]] | None = None,
    columns: Mapping[str, str] | None = None,
    decode: bool = True,
    noise: str | None = None,
    engine: Engine = AT_ONCE,
) -> Corpus:
    """Read, decode once, quarantine what cannot be read (DESIGN rule 2).  `columns`: our field -> the corpus's column.

    Without `decode`, where nobody listens, audio is not opened.  `noise`: what is laid over every clip, and its SNR in
    dB (`pink:10`, `cafe.wav:5`).  A large corpus is decoded in shards, by `engine`; a job with shards of its own makes
    these first, and then whatever is still missing when no other job is at it.
    """
    from undersong.corpora import open_corpus, select, write_corpus

    def read() -> tuple[Sequence[Sample], tuple[Quarantined, ...]]:
        manifest = open_corpus(ref, columns)
        tell_remark(shop, ref, manifest)
        chosen = select(manifest.samples, where or {})
        if noise is None:
            return chosen, manifest.quarantined
        noisy, silent = _under(chosen, noise)
        return noisy, (*manifest.quarantined, *silent)

    def make(draft: Draft) -> None:
        chosen, lost = read()
        samples, failed = _listened(shop, ref, chosen, engine, draft) if decode else (tuple(chosen), ())
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
    if engine.shard is not None and decode and isinstance(shop.store, Store):
        place = shop.store.place(STAGE, VERSION, config, inputs)
        if not place.path.exists():
            _decode(shop, ref, read()[0], engine, portions_of(place.path))
    made = shop.store.get_or_make(STAGE, VERSION, config, inputs, make, packages=("soundfile", "soxr"))
    clear(portions_of(made.path), made)
    return Corpus(ref, made)


def _listened(
    shop: Workshop, ref: str, samples: Sequence[Sample], engine: Engine, draft: Draft
) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """What can be used of the samples, and why others cannot; fingerprints of their sound go into the draft."""
    from undersong.corpora.forms.facts import facts_of_table, facts_table, write_prints
    from undersong.corpora.sound.facts import all_facts, examined
    from undersong.encoders.progress import watch

    if engine.plain and len(samples) <= ROWS and not portions_of(draft.path).exists():
        table = facts_table(list(all_facts(samples, watch(len(samples), shop.watcher(f"reading {ref}")).at)))
    else:
        table = _decode(shop, ref, samples, replace(engine, shard=None), portions_of(draft.path)).table()
    write_prints(table, draft.path)
    return examined(samples, facts_of_table(table))


def _decode(shop: Workshop, ref: str, samples: Sequence[Sample], engine: Engine, folder: Path) -> Portions:
    """Facts of the samples in shards: this job's, or all that are missing."""
    portions = Portions(folder, samples, ROWS)
    pass_over(engine, portions, _facts_pass, shop.watcher(f"reading {ref}"))
    return portions


def _facts_pass() -> Pass:
    from undersong.corpora.forms.facts import facts_rows

    return facts_rows


def tell_remark(shop: Workshop, ref: str, manifest: Manifest) -> None:
    """Says where a preset's corpus is of another size than its description."""
    from undersong.corpora.presets import preset, remark

    if shop.say is not None and manifest.form.startswith("preset:"):
        said = remark(preset(manifest.form.removeprefix("preset:")), manifest)
        if said:
            shop.say(said)


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
