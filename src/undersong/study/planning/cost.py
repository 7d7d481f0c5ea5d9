"""GPU hours and disk space of a plan for models that do not ship with the package, from an assumed throughput and the
model's config. Unknown values are reported as unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from undersong.stages.black_box_models import trainable_models
from undersong.study.planning.planning_store import PlanningStore
from undersong.study.schema import Study
from undersong.types import UndersongError

HOUR = 3600
GB = 10**9
ORGANISM, PRESET = "organism:", "preset:"


@dataclass(frozen=True)
class GpuThroughput:
    """Assumed throughput of a GPU: training samples and generated tokens per second, over the whole batch."""

    samples_per_second: float | None = None
    tokens_per_second: float | None = None


UNKNOWN_THROUGHPUT = GpuThroughput()


def absent_corpora_lines(study: Study) -> list[str]:
    """Line about corpora that are not on this machine, if there are any."""
    from undersong.corpora.registry import is_local_corpus

    absent = [ref for ref in study.corpora if not is_local_corpus(ref)]
    return [f"Not here, so not read: {', '.join(absent)}."] if absent else []


def gpu_cost_lines(study: Study, planning_store: PlanningStore, throughput: GpuThroughput) -> list[str]:
    """Lines about GPU hours and disk space of artifacts still to be made."""
    return (
        [_gpu_hours_line(study, planning_store, throughput), *_disk_lines(study, planning_store)]
        if trainable_models(study.models)
        else []
    )


def _gpu_hours_line(study: Study, planning_store: PlanningStore, throughput: GpuThroughput) -> str:
    missing_artifacts = [artifact for artifact in planning_store.planned.values() if artifact.existing is None]
    samples = sum(artifact.work for artifact in missing_artifacts if artifact.stage == "adapter")
    batch_counts = Counter(reply_batch for artifact in missing_artifacts for reply_batch in artifact.reply_batches)
    sizes = {name: count_set_prompts(study, name) for name, _ in batch_counts}
    uncounted = sorted({study.prompt_sets[name].corpus for name, size in sizes.items() if size is None})
    tokens = sum(count * limit * (sizes[name] or 0) for (name, limit), count in batch_counts.items())
    uncounted_text = f" without {', '.join(uncounted)}, whose prompts cannot be counted here" if uncounted else ""
    work = f"{samples:,} samples to train on, at most {tokens:,} new tokens{uncounted_text}"
    if throughput.samples_per_second is None or throughput.tokens_per_second is None:
        return (
            f"GPU hours: unknown for {work}; give --train-samples-per-second and --tokens-per-second, as a short run "
            "of yours measured them."
        )
    train_hours, reply_hours = (
        samples / throughput.samples_per_second / HOUR,
        tokens / throughput.tokens_per_second / HOUR,
    )
    return (
        f"GPU hours: at most {train_hours:.1f} of training and {reply_hours:.1f} of replies ({work}), if a GPU trains "
        f"{throughput.samples_per_second:g} samples and generates {throughput.tokens_per_second:g} tokens per second "
        "and every reply is as long as its limit. Audio features, embedding, judging and mechanism come on top."
    )


def count_set_prompts(study: Study, name: str) -> int | None:
    """Number of prompts in a set, by its manifest or its preset; None if it is unknown on this machine."""
    from undersong.corpora.manifest import filter_samples
    from undersong.corpora.registry import get_preset, is_local_corpus, open_corpus

    prompt_set = study.prompt_sets[name]
    if is_local_corpus(prompt_set.corpus):
        return len(
            filter_samples(
                open_corpus(prompt_set.corpus, study.columns.get(prompt_set.corpus)).samples, prompt_set.filters
            )
        )
    if prompt_set.corpus.startswith(PRESET) and not prompt_set.filters:
        return get_preset(prompt_set.corpus.removeprefix(PRESET).partition("=")[0]).items
    return None


def _disk_lines(study: Study, planning_store: PlanningStore) -> Iterator[str]:
    """Yield one line per base that does not ship, about its adapters, by the shapes in its config."""
    from undersong.models.memory import count_parameters
    from undersong.models.refs import model_hash, resolve_model

    missing_adapters = Counter(
        artifact.cost_class[1]
        for artifact in planning_store.planned.values()
        if artifact.stage == "adapter" and artifact.existing is None
    )
    for ref in trainable_models(study.models):
        if ref.startswith(ORGANISM):
            continue
        adapter_count = missing_adapters[model_hash(ref)] * len(study.tuning.save_steps)
        if not adapter_count:
            continue
        prefix = f"Disk, {ref}: {adapter_count} adapters of rank {study.tuning.lora_rank}"
        if study.tuning.method != "lora":
            yield f"Disk, {ref}: {adapter_count} decoders, as large as the model's own."
            continue
        try:
            source, options, family = resolve_model(ref)
            adapter_bytes = count_parameters(source, family, options).adapter_bytes(study.tuning.lora_rank)
        except UndersongError:  # a plan works without a network too
            yield f"{prefix}; their size is unknown, because the config cannot be read here."
            continue
        yield (
            f"{prefix}, {adapter_bytes / GB:.2f} GB each, {adapter_count * adapter_bytes / GB:.1f} GB together; "
            "audio features and the weights come on top."
        )
