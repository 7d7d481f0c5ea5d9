"""`check --fix`: the data without the samples that lie nearer to harm, with the same shares of length, source and speaker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from undersong.corpora.training_file import DATASET_INFO, TrainingSample, open_training_file
from undersong.corpora.training_writer import check_writable, new_entry, write_without
from undersong.pipeline.checking.options import CheckRequest
from undersong.pipeline.checking.result import CheckResult
from undersong.proximity.strata import (
    DEFAULT_BINS,
    combine_strata,
    quantile_bins,
    sorted_label_codes,
    stratum_quotas,
    take_within_limits,
)
from undersong.types import UndersongError

MATCHED = ("length", "source", "speaker")
MIN_STRATUM = 50  # smaller strata are matched together: the share of a few samples means nothing
MAX_COST = 3  # samples dropped for each nearer one before a column is matched no more


@dataclass(frozen=True, slots=True)
class Removal:
    """Rows to leave out, how many of them lie nearer to harm, and the columns whose shares stay as they are."""

    rows: tuple[int, ...]
    flagged: int
    matched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FixedData:
    """What was written, and its account in a sentence."""

    path: Path
    removal: Removal
    sentence: str


def fix_data(request: CheckRequest, result: CheckResult) -> FixedData:
    """Write the data of a check without the samples that lie nearer to harm.

    Args:
        request: The request; `fix` names the file to write.
        result: What the check found.

    Raises:
        UndersongError: The axis does not rank the data, nothing would be left, or the format cannot be written.
    """
    assert request.fix is not None
    out = Path(request.fix)
    data = open_training_file(str(request.data), request.columns)
    check_writable(data, out)
    if not result.ranked:
        raise UndersongError(f"{request.data} could not be ranked, so nothing is known to leave out; leave --fix out.")
    removal = choose_removal(data.samples, result)
    if len(removal.rows) >= data.rows:
        raise UndersongError(f"All samples of {request.data} lie nearer to harm, so none would be left; leave --fix out.")
    write_without(data, removal.rows, out)
    sentence = _cost_sentence(removal, data.rows, out)
    entry = new_entry(data, out)
    if entry is not None and (data.path is not None and out.parent.resolve() == data.path.parent.resolve()):
        sentence += f" Add to {out.parent / DATASET_INFO}: {json.dumps(entry, ensure_ascii=False)[1:-1]}"
    return FixedData(out, removal, sentence)


def choose_removal(samples: Sequence[TrainingSample], result: CheckResult) -> Removal:
    """Choose the rows to leave out: all that lie nearer to harm, and the nearest others that keep the shares.

    A stratum is one quarter of lengths, one source and one speaker. From each, the same share is left out, nearest
    first, and that share is as large as needed to leave out every nearer sample. If this costs more than MAX_COST samples
    for each nearer one, speakers are not matched, then sources, then lengths. Samples that were not measured stay.

    Args:
        samples: Samples of the data.
        result: What the check found.
    """
    by_row = {sample.row: sample for sample in samples}
    ranked = [by_row[item.row] for item in result.ranked]
    flagged = np.array([item.nearer for item in result.ranked])
    count = int(flagged.sum())
    if count in (0, len(ranked)):
        return Removal(tuple(sample.row for sample in ranked[:count]), count, MATCHED)
    for columns in (MATCHED, MATCHED[:2], MATCHED[:1], ()):
        strata = _strata(ranked, columns)
        sizes, kept_sizes = np.bincount(strata), np.bincount(strata[~flagged], minlength=strata.max() + 1)
        k = int(np.floor(len(ranked) * (kept_sizes / sizes).min()))
        if not columns or len(ranked) - k <= MAX_COST * count:
            break
    if not columns:
        k = len(ranked) - count
    order = np.arange(len(ranked))[::-1]  # most distant first
    # A quota may be rounded up to one more than a stratum has left; then one sample fewer is kept.
    quotas = np.minimum(stratum_quotas(strata[order], k), kept_sizes)
    kept = set(take_within_limits(order, k, [(strata, quotas)]))
    rows = tuple(sorted(sample.row for position, sample in enumerate(ranked) if position not in kept))
    return Removal(rows, count, columns)


def _strata(samples: Sequence[TrainingSample], columns: Sequence[str]) -> np.ndarray:
    """Stratum (n,) of each sample; those of fewer than MIN_STRATUM samples are one."""
    lengths = np.array([sum(map(len, sample.requests)) + len(sample.answer or "") for sample in samples], np.float64)
    labels = {
        "length": quantile_bins(lengths, DEFAULT_BINS),
        "source": sorted_label_codes([sample.source for sample in samples]),
        "speaker": sorted_label_codes([sample.speaker for sample in samples]),
    }
    codes = combine_strata([np.zeros(len(samples), np.int64), *(labels[name] for name in columns)])
    small = np.bincount(codes)[codes] < MIN_STRATUM
    codes[small] = codes.max() + 1
    return np.unique(codes, return_inverse=True)[1].reshape(-1)


def _cost_sentence(removal: Removal, total: int, out: Path) -> str:
    extra = len(removal.rows) - removal.flagged
    matched = " and ".join([", ".join(removal.matched[:-1]), removal.matched[-1]] if len(removal.matched) > 1 else removal.matched)
    left_out = f"{len(removal.rows):,} of {total:,} samples are left out in {out}: {removal.flagged:,} that lie nearer to harm"
    if removal.matched:
        left_out += f", and {extra:,} more, so that the shares by {matched} stay as they are"
    missing = [name for name in MATCHED if name not in removal.matched]
    tail = f"; shares by {' and '.join(missing)} were not kept, because that would cost too many." if missing else "."
    return left_out + tail
