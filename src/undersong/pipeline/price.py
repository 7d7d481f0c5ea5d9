"""What a plan can say of GPU hours and disk for models that do not ship: by a GPU's assumed speed, and by a config.

Knows ledgers, sizes of corpora and shapes; loads no model, and guesses nothing: what is not known is called unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from undersong.pipeline.ledger import Ledger
from undersong.pipeline.speakers import trained
from undersong.study import Study
from undersong.types import UndersongError

HOUR = 3600
GB = 10**9
ORGANISM, PRESET = "organism:", "preset:"


@dataclass(frozen=True)
class Speed:
    """Of a GPU, as assumed: samples trained and tokens generated a second, of all that is in its batch."""

    train: float | None = None
    tokens: float | None = None


UNKNOWN = Speed()


def absent_lines(study: Study) -> list[str]:
    """The corpora that are not here, in one line."""
    from undersong.corpora import is_here

    absent = [ref for ref in study.corpora if not is_here(ref)]
    return [f"Not here, so not read: {', '.join(absent)}."] if absent else []


def price_lines(study: Study, ledger: Ledger, speed: Speed) -> list[str]:
    """GPU hours and disk of what is to be made."""
    return [_hours(study, ledger, speed), *_disk(study, ledger)] if trained(study) else []


def _hours(study: Study, ledger: Ledger, speed: Speed) -> str:
    todo = [one for one in ledger.asked.values() if one.found is None]
    samples = sum(one.work for one in todo if one.stage == "adapter")
    asked = Counter(question for one in todo for question in one.questions)
    sizes = {name: items_of(study, name) for name, _ in asked}
    uncounted = sorted({study.sets[name].corpus for name, size in sizes.items() if size is None})
    tokens = sum(times * limit * (sizes[name] or 0) for (name, limit), times in asked.items())
    without = f" without {', '.join(uncounted)}, whose prompts cannot be counted here" if uncounted else ""
    work = f"{samples:,} samples to train on, at most {tokens:,} new tokens{without}"
    if speed.train is None or speed.tokens is None:
        return (
            f"GPU hours: unknown for {work}; give --train-rate and --token-rate, as a short run of yours measured them."
        )
    train, said = samples / speed.train / HOUR, tokens / speed.tokens / HOUR
    return (
        f"GPU hours: at most {train:.1f} of training and {said:.1f} of replies ({work}), assumed that a GPU trains "
        f"{speed.train:g} samples and says {speed.tokens:g} tokens a second and that every reply is as long as its "
        "limit. Hearing, embedding, judging and mechanism come on top."
    )


def items_of(study: Study, name: str) -> int | None:
    """How many prompts a set has, by its manifest or its preset; None: nobody here knows."""
    from undersong.corpora import is_here, open_corpus, preset, select

    asked = study.sets[name]
    if is_here(asked.corpus):
        return len(select(open_corpus(asked.corpus, study.columns.get(asked.corpus)).samples, asked.where))
    if asked.corpus.startswith(PRESET) and not asked.where:
        return preset(asked.corpus.removeprefix(PRESET).partition("=")[0]).items
    return None


def _disk(study: Study, ledger: Ledger) -> Iterator[str]:
    """One line a base that does not ship: its adapters, by the shapes in its config."""
    from undersong.models.folders import model_hash
    from undersong.models.identify import identify
    from undersong.models.memory import weights_of

    todo = Counter(one.kind[1] for one in ledger.asked.values() if one.stage == "adapter" and one.found is None)
    for ref in trained(study):
        if ref.startswith(ORGANISM):
            continue
        kept = todo[model_hash(ref)] * len(study.tuning.steps)
        if not kept:
            continue
        what = f"Disk, {ref}: {kept} adapters of rank {study.tuning.rank}"
        if study.tuning.method != "lora":
            yield f"Disk, {ref}: {kept} decoders, as large as the model's own."
            continue
        try:
            source, options, family = identify(ref)
            size = weights_of(source, family, options).adapter_bytes(study.tuning.rank)
        except UndersongError:  # a plan is told without a network too
            yield f"{what}; how large is unknown, because its config cannot be read here."
            continue
        yield (
            f"{what}, {size / GB:.2f} GB each, {kept * size / GB:.1f} GB together; what is heard of clips, and the "
            "weights, come on top."
        )
