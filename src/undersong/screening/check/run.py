"""A check from beginning to end: read data and references, measure, judge; from the store if nothing has changed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from undersong.corpora.training_file import TrainingFile, open_training_file
from undersong.encoders.spec import parse_encoder
from undersong.proximity.separation import axis_level
from undersong.screening.check.axis_choice import (
    check_named_axes,
    chosen_axes,
    is_sample_axis,
    wants_sample_axes,
)
from undersong.screening.check.input_notes import read_column_notes, unmeasured_notes
from undersong.screening.check.inputs import CheckInputs
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.output import check_check_folder, publish_check, read_check, write_check
from undersong.screening.check.overlap import overlap_notes
from undersong.screening.check.ranking import rank_samples
from undersong.screening.check.requests import (
    RequestText,
    data_requests,
    has_words,
    is_measured_by_words,
    reference_requests,
)
from undersong.screening.check.result import CheckResult
from undersong.screening.check.text_axes import AxisMeasurement, measure_text_axes
from undersong.screening.check.verdict import judge_axes, ranking_axis, shows_more
from undersong.store.draft import Draft
from undersong.store.store import Store

if TYPE_CHECKING:
    from undersong.screening.check.sample_axes import SampleAxes
    from undersong.stages.context import RunContext

CHECK_VERSION = 8  # of what a check finds
MAX_LISTED_ROWS = 10  # unreadable rows that are listed; all are counted


def run_check(request: CheckRequest) -> CheckResult:
    """Check a training file. The result of unchanged data, references and options is looked up in the store or cache.

    Args:
        request: The data and the options.

    Raises:
        UndersongError: Data or references cannot be read, a table of written samples has a column of audio files, or
            an output cannot be written.
    """
    if request.out is not None:
        check_check_folder(Path(request.out))  # before anything is read or measured
    check_named_axes(request)
    column_notes = read_column_notes(request)
    inputs = CheckInputs(request)
    if request.rehearse:
        from undersong.screening.check.rehearsals import check_harmful_answers

        check_harmful_answers(inputs)
    kept = request.store_folder
    with open_work_store(request) as work:
        result = _check(inputs, work) if kept is None else _look_up(inputs, Store(kept), work)
    # Kept results do not have these notes: files beside the data and installed packages are no part of their key.
    result = replace(result, notes=(*column_notes, *result.notes, *unmeasured_notes(request, result)))
    if request.out is not None:
        publish_check(result, Path(request.out))
    return result


@contextmanager
def open_work_store(request: CheckRequest) -> Iterator[Store]:
    """The store of vectors, clips and transcripts: that of the request, or a temporary one.

    The user's cache keeps results only, because what a model makes of many clips would fill a home folder.
    """
    if request.store is not None:
        yield Store(request.store)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Store(folder)


@contextmanager
def one_measurement(request: CheckRequest) -> Iterator[CheckRequest]:
    """The request, with a temporary store if its page needs vectors of clips or of a model, which are measured once."""
    if request.store is not None or not (request.writes_views and wants_sample_axes(request)):
        yield request
        return
    with tempfile.TemporaryDirectory() as folder:
        yield replace(request, store=folder)


def run_context(request: CheckRequest, store: Store) -> RunContext:
    """Run context of the stages of a check."""
    from undersong.stages.context import RunContext

    return RunContext(store, request.loading, request.progress)


def _look_up(inputs: CheckInputs, kept: Store, work: Store) -> CheckResult:
    def make(draft: Draft) -> None:
        write_check(_check(inputs, work), draft.path)

    config, hashes = inputs.key()
    artifact = kept.get_or_make("check", CHECK_VERSION, config, hashes, make, seed=inputs.request.seed)
    return read_check(artifact.path)


def transcribed_data(inputs: CheckInputs, store: Store) -> tuple[TrainingFile, list[str]]:
    """The data, with transcripts from the store or made if the request names a model for them; and a note on these."""
    if inputs.request.transcribe is None:
        return inputs.data, []
    from undersong.screening.check.transcription import transcribe_data

    data, note = transcribe_data(run_context(inputs.request, store), inputs.data, inputs.request)
    return data, [note]


def _check(inputs: CheckInputs, store: Store) -> CheckResult:
    request = inputs.request
    data, transcription_notes = transcribed_data(inputs, store)
    requests, owners = data_requests(data)
    harm_sets = {ref: _read_reference(ref, not inputs.measures_samples) for ref in request.harm_refs}
    ordinary = _read_reference(str(request.ordinary), not inputs.measures_samples)
    overlaps = overlap_notes(data, ordinary.requests, str(request.ordinary))
    axes, rehearsal, warmup = None, None, list[str]()
    if inputs.measures_samples:
        from undersong.screening.check.sample_axes import SampleAxes

        ctx = run_context(request, store)
        axes = SampleAxes.open(ctx, request, inputs.sets(ctx, data))
        if request.rehearse:
            from undersong.screening.check.rehearsals import rehearse_data
            from undersong.stages.rehearsal import warmup_notes

            rehearsal, warmup = rehearse_data(axes), warmup_notes(request.rehearse)
    harm = [item for reference in harm_sets.values() for item in reference.requests]
    text_axes, measured_axes, notes = _measure(request, (requests, owners), axes, harm, ordinary.requests)
    covered = {position for position, sample in enumerate(data.samples) if is_measured_by_words(sample)}
    if not covered:  # words beside clips do not tell what is said in them, but they may show harm
        text_axes = [measurement for measurement in text_axes if shows_more(measurement.axis)]
    for measurement in measured_axes:
        covered |= set(measurement.owners) if measurement.axis.is_usable else set()
    measurements = [*text_axes, *measured_axes]
    verdict = judge_axes(
        [measurement.axis for measurement in measurements],
        samples=len(data.samples),
        unmeasured=len(data.samples) - len(covered),
        untranscribed=sum(
            sample.spoken and not sample.transcribed and position not in covered
            for position, sample in enumerate(data.samples)
        ),
        unreadable=len(data.unreadable),
        columns=data.other_columns,
        can_transcribe=request.transcribe is None,
        rehearsal=rehearsal,
    )
    ranking = ranking_axis([measurement.axis for measurement in measurements])
    return CheckResult(
        data=str(request.data),
        recognized=data.recognized,
        samples=len(data.samples),
        requests=max((len(measurement.requests) for measurement in measurements), default=0),
        unmeasured=len(data.samples) - len(covered),
        unreadable=tuple((item.id, item.reason) for item in data.unreadable[:MAX_LISTED_ROWS]),
        unreadable_count=len(data.unreadable),
        harm={ref: reference.size for ref, reference in harm_sets.items()},
        ordinary={str(request.ordinary): ordinary.size},
        axes=tuple(measurement.axis for measurement in measurements),
        ranked_by=None if ranking is None else measurements[ranking].axis.name,
        verdict=verdict.word,
        sentence=verdict.sentence,
        notes=(*verdict.notes, *overlaps, *warmup, *transcription_notes, *notes),
        rehearsal=rehearsal,
        ranked=() if ranking is None else rank_samples(data, measurements[ranking]),
    )


@dataclass(frozen=True)
class _Reference:
    """A reference corpus: its requests with words, and how many requests it has, clips without words included."""

    requests: list[RequestText]
    size: int


def _read_reference(ref: str, must_be_written: bool) -> _Reference:
    """Read a reference; without words, it is an error or has no requests with words."""
    file = open_training_file(ref)
    is_written = must_be_written or any(has_words(text) for sample in file.samples for text in sample.requests)
    requests = reference_requests(file) if is_written else []
    return _Reference(requests, len(requests) or len(file.samples))


def _measure(
    request: CheckRequest,
    data: tuple[list[RequestText], list[int]],
    axes: SampleAxes | None,
    harm: list[RequestText],
    ordinary: list[RequestText],
) -> tuple[list[AxisMeasurement], list[AxisMeasurement], list[str]]:
    """Findings of the axes of texts and of the others, and notes on the latter."""
    text_encoders = {
        name: encoder for name, encoder in (request.axes or {}).items() if not is_sample_axis(parse_encoder(encoder))
    }
    sample_encoders = {} if axes is None else chosen_axes(request, axes.sets.modality, axes.sets.has_replies)
    has_texts = bool(data[0] and harm and ordinary)
    level = axis_level((1 + len(text_encoders)) * has_texts + len(sample_encoders) or 1)
    texts = measure_text_axes(*data, harm, ordinary, text_encoders, seed=request.seed, level=level) if has_texts else []
    if axes is None:
        return texts, [], []
    measured, notes = axes.measure_all(sample_encoders, level)
    return texts, measured, notes
