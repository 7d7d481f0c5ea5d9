"""`check --fix`: the data without the samples that lie nearer to harm, with the same shares of length, source and
speaker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from undersong.corpora.training_file import DATASET_INFO, TrainingFile, TrainingSample, open_training_file
from undersong.corpora.training_writer import check_writable, listed_files, new_entry, write_without
from undersong.phrases import count, join_items
from undersong.proximity.strata import (
    DEFAULT_BINS,
    combine_strata,
    quantile_bins,
    sorted_label_codes,
    stratum_quotas,
    take_within_limits,
)
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.result import CheckResult
from undersong.screening.marked_samples import check_known_ids, read_marked_ids
from undersong.types import UndersongError

MATCHED = ("length", "source", "speaker")
MIN_STRATUM = 50  # smaller strata are matched together: the share of a few samples means nothing
MAX_COST = 3  # samples dropped for each nearer one before a column is matched no more
MAX_EXTRA = 0.5  # and share of the samples that are not nearer


@dataclass(frozen=True, slots=True)
class Removal:
    """Rows to leave out, how many of them lie nearer to harm, and the columns whose shares stay as they are, or do
    not."""

    rows: tuple[int, ...]
    flagged: int
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FixedData:
    """Written file, and its account in a sentence."""

    path: Path
    removal: Removal
    sentence: str


def check_fix(request: CheckRequest) -> None:
    """Raise UndersongError, before anything is measured, if `fix_data` could not write its file or use its list."""
    assert request.fix is not None
    data = open_training_file(str(request.data), request.columns)
    check_writable(data, Path(request.fix))
    if request.drop is not None:
        check_known_ids(read_marked_ids(request.drop), [sample.id for sample in data.samples], request.drop, data.ref)


def fix_data(request: CheckRequest, result: CheckResult) -> FixedData:
    """Write the data of a check without the samples that lie nearer to harm.

    Args:
        request: The request; `fix` names the file to write.
        result: What the check found.

    Raises:
        UndersongError: The axis does not rank the data, nothing would be left, the format cannot be written, or the
            list of `drop` names samples that the data does not have.
    """
    assert request.fix is not None
    out = Path(request.fix)
    data = open_training_file(str(request.data), request.columns)
    check_writable(data, out)
    if request.drop is not None:
        return _fix_by_list(data, request.drop, out)
    if not result.ranked:
        raise UndersongError(f"{request.data} could not be ranked, so nothing is known to leave out; leave --fix out.")
    removal = choose_removal(data.samples, result)
    if len(removal.rows) >= len(data.samples):
        raise UndersongError(
            f"All samples of {request.data} lie nearer to harm, so none would be left; leave --fix out."
        )
    info = write_without(data, removal.rows, out)
    return FixedData(out, removal, _cost_sentence(removal, len(data.samples), out) + _entry_sentence(data, out, info))


def _fix_by_list(data: TrainingFile, file: Path | str, out: Path) -> FixedData:
    """Write the data without the samples of a list, and no others."""
    ids = read_marked_ids(file)
    check_known_ids(ids, [sample.id for sample in data.samples], file, data.ref)
    named = set(ids)
    rows = tuple(sample.row for sample in data.samples if sample.id in named)
    if len(rows) >= len(data.samples):
        raise UndersongError(f"The list {file} names all samples of {data.ref}, so none would be left; shorten it.")
    info = write_without(data, rows, out)
    sentence = (
        f"{_left_out_clause(len(rows), len(data.samples), out)}: {'that' if len(rows) == 1 else 'those'} of {file}."
    )
    if len(rows) > len(ids):
        sentence += f" Several samples share an id: {len(ids):,} ids stand for {len(rows):,} samples."
    return FixedData(out, Removal(rows, 0, (), ()), sentence + _entry_sentence(data, out, info))


def _entry_sentence(data: TrainingFile, out: Path, written: Path | None) -> str:
    """What was written to LLaMA-Factory's list of data sets beside the file, or what to add to one that exists."""
    entry = new_entry(data, out)
    if entry is None:
        return ""
    name = next(iter(entry))
    if written is not None:
        return f" {written}, which lists it as {name} for LLaMA-Factory, is written too."
    if listed_files(out.parent / DATASET_INFO).get(name) == out.name:
        return ""  # by an earlier run
    return f" Add to {out.parent / DATASET_INFO}: {json.dumps(entry, ensure_ascii=False)[1:-1]}"


def choose_removal(samples: Sequence[TrainingSample], result: CheckResult) -> Removal:
    """Choose the rows to leave out: all that lie nearer to harm, and the nearest others that keep the shares.

    A stratum is one quarter of lengths, one source and one speaker. From each, the same share is left out, nearest
    first, and that share is as large as needed to leave out every nearer sample. If this costs more than MAX_COST
    samples for each nearer one, or more than MAX_EXTRA of the samples that are not nearer, the last column is not
    matched, then the one before. Samples that were not measured stay.

    Args:
        samples: Samples of the data.
        result: What the check found.
    """
    by_row = {sample.row: sample for sample in samples}
    ranked = [by_row[item.row] for item in result.ranked]
    flagged = np.array([item.nearer for item in result.ranked], bool)
    nearer = int(flagged.sum())
    present = tuple(name for name in MATCHED if len(set(_values(ranked, name))) > 1)
    if not nearer:
        return Removal((), 0, present, ())
    max_extra = min((MAX_COST - 1) * nearer, MAX_EXTRA * (len(ranked) - nearer))
    matched, kept = 0, np.flatnonzero(~flagged)
    for number in range(len(present), 0, -1):
        positions = _matched_positions(flagged, _strata(ranked, present[:number]))
        if 0 < len(positions) >= len(kept) - max_extra:
            matched, kept = number, positions
            break
    rows = np.delete(np.array([sample.row for sample in ranked]), kept)
    return Removal(tuple(sorted(rows.tolist())), nearer, present[:matched], present[matched:])


def _matched_positions(flagged: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Positions (k,) that stay if the same share of each stratum does, and nothing that is flagged (n,)."""
    sizes, kept_sizes = np.bincount(strata), np.bincount(strata[~flagged], minlength=strata.max() + 1)
    k = int(np.floor(len(strata) * (kept_sizes / sizes).min()))
    order = np.arange(len(strata))[::-1]  # most distant first
    # A quota may be rounded up to one more than a stratum has left; then one sample fewer is kept.
    quotas = np.minimum(stratum_quotas(strata[order], k), kept_sizes)
    return np.array(take_within_limits(order[~flagged[order]], k, [(strata, quotas)]), np.int64)


def _values(samples: Sequence[TrainingSample], column: str) -> list[int | str | None]:
    if column == "length":
        return [sum(map(len, sample.requests)) + len(sample.answer or "") for sample in samples]
    return [getattr(sample, column) for sample in samples]


def _strata(samples: Sequence[TrainingSample], columns: Sequence[str]) -> np.ndarray:
    """Stratum (n,) of each sample; those of fewer than MIN_STRATUM samples are one."""
    labels = [np.zeros(len(samples), np.int64)]
    for name in columns:
        values = _values(samples, name)
        is_length = name == "length"
        labels.append(quantile_bins(np.array(values, float), DEFAULT_BINS) if is_length else sorted_label_codes(values))
    codes = combine_strata(labels)
    small = np.bincount(codes)[codes] < MIN_STRATUM
    codes[small] = codes.max() + 1
    return np.unique(codes, return_inverse=True)[1].reshape(-1)


def _left_out_clause(dropped: int, total: int, out: Path) -> str:
    return f"{dropped:,} of {count(total, 'sample')} {'is' if dropped == 1 else 'are'} left out in {out}"


def _cost_sentence(removal: Removal, total: int, out: Path) -> str:
    extra = len(removal.rows) - removal.flagged
    verb = "lies" if removal.flagged == 1 else "lie"
    left_out = _left_out_clause(len(removal.rows), total, out)
    sentence = f"{left_out}: {removal.flagged:,} that {verb} nearer to harm"
    if removal.matched:
        sentence += f", and {extra:,} more so that the shares by {join_items(removal.matched)} stay as they are"
    if removal.unmatched:
        sentence += f"; shares by {join_items(removal.unmatched)} change, because keeping them would cost too many"
    return f"{sentence}."
