"""Notes on what a check takes and leaves out: columns of the data and the references, audio, and meaning."""

from __future__ import annotations

from undersong.corpora.column_names import columns_clause
from undersong.corpora.training_file import training_columns
from undersong.extras import is_installed
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.result import CheckResult
from undersong.screening.check.text_axes import WORDS
from undersong.types import UndersongError


def read_column_notes(request: CheckRequest) -> tuple[str, ...]:
    """Notes on the columns of the data, then of the references.

    Raises:
        UndersongError: A table of written samples has a column that names audio files. In a trainer's layout this is a
            note, because the trainer does not read such a column either.
    """
    data = str(request.data)
    reading = training_columns(data, request.columns)
    if reading.unused_audio is not None:
        raise UndersongError(
            f"Column {reading.unused_audio!r} of {data} names audio files and would not be used; give --column "
            f"audio={reading.unused_audio}, and a text column is taken as the transcript, or remove the column."
        )
    references = dict.fromkeys([*request.harm_refs, str(request.ordinary)])
    return (*reading.notes, *(note for ref in references for note in _reference_notes(ref)))


def unmeasured_notes(request: CheckRequest, result: CheckResult) -> tuple[str, ...]:
    """A note on the axis of meaning, if it could be measured and words alone were.

    Args:
        request: The request.
        result: What the check found.
    """
    only_words = request.axes is None and request.model is None and [axis.name for axis in result.axes] == [WORDS]
    if not only_words or not is_installed("sentence_transformers"):
        return ()
    return ("Meaning was not measured; add --axis meaning=text.",)


def _reference_notes(ref: str) -> list[str]:
    """Notes on the columns of a reference, for which no column map can be given."""
    reading = training_columns(ref)
    notes = []
    if reading.columns:
        notes.append(f"{ref}: {columns_clause(reading.columns)}; a column named audio or text comes first.")
    if reading.unused_audio is not None:
        notes.append(f"{ref}: column {reading.unused_audio!r} names audio files and is not used; rename it to audio.")
    return notes
