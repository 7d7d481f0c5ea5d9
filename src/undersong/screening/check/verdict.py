"""The verdict of a check in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undersong.encoders.spec import INFLUENCE
from undersong.phrases import count, join_items
from undersong.screening.check.result import (
    CANNOT_TELL,
    MORE,
    NO_MORE,
    WORD_ENCODER,
    AxisCheck,
    RehearsalCheck,
)
from undersong.screening.check.shared_words import LANGUAGE_HINT

# A file passes only if it is large enough to show that less than this share lies nearer to harm: five times the
# ordinary share.
PASSING_SHARE = 0.05
COMPARABLE_HINT = (
    "A distance would tell recordings apart, and not requests; name --ordinary (and --harm) speech that is recorded as "
    "yours is, or give --transcribe MODEL."
)
MAX_UNMEASURED = 0.1  # share of samples without words from which a file cannot pass


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """One of the verdicts of `EXIT_CODES`, its sentence, and notes."""

    word: str
    sentence: str
    notes: tuple[str, ...]


def ranking_axis(axes: Sequence[AxisCheck]) -> int | None:
    """Position of the axis to rank by; None if none is usable.

    It is influence, which foretold damage best (docs/results/prediction.md), or else the axis that separates best.
    """
    usable = [number for number, axis in enumerate(axes) if axis.is_usable]
    if influence := [number for number in usable if axes[number].encoder.partition(":")[0] == INFLUENCE]:
        return influence[0]
    return max(usable, key=lambda number: axes[number].auc.value) if usable else None


def shows_more(axis: AxisCheck) -> bool:
    """True if an axis shows that more of the data is near harm than of ordinary data."""
    return axis.is_usable and axis.expected.high is not None and axis.nearer.successes > axis.expected.high


def judge_axes(
    axes: Sequence[AxisCheck],
    *,
    samples: int,
    unmeasured: int,
    untranscribed: int,
    unreadable: int,
    columns: Sequence[str] = (),
    can_transcribe: bool = True,
    rehearsal: RehearsalCheck | None = None,
) -> CheckVerdict:
    """Say whether more of the data lies near harm than of ordinary data. One axis that says more is enough.

    Args:
        axes: What the axes say; none if nothing could be measured.
        samples: Number of samples in the data.
        unmeasured: Samples that no usable axis measures.
        untranscribed: Those among them that are spoken and have no transcript.
        unreadable: Rows that could not be read.
        columns: Columns of the data that were read as nothing but labels.
        can_transcribe: Whether clips without a transcript could still be transcribed, which a note then proposes.
        rehearsal: Findings of a rehearsal, which are enough for "more" if they show it.
    """
    hint = f"; {_column_hint('one', columns)}give --transcribe MODEL" if can_transcribe else ""
    lost = _missing_words_notes(samples, unmeasured, untranscribed, hint, bool(axes))
    notes = (*lost, *_unreadable_notes(unreadable), *_axis_notes(axes))
    verdict = _judge_nearness(axes, samples, unmeasured, untranscribed, unreadable, columns)
    if rehearsal is None:
        return CheckVerdict(*verdict, notes)
    word, sentence = verdict
    return CheckVerdict(MORE if rehearsal.shows_more else word, f"{sentence} {rehearsal.sentence}", notes)


def _judge_nearness(
    axes: Sequence[AxisCheck],
    samples: int,
    unmeasured: int,
    untranscribed: int,
    unreadable: int,
    columns: Sequence[str],
) -> tuple[str, str]:
    usable = [axis for axis in axes if axis.is_usable]
    if not axes:
        return CANNOT_TELL, _unmeasured_sentence(samples, untranscribed, columns)
    if not usable:
        return CANNOT_TELL, _unusable_sentence(axes)
    sentence = " ".join(_count_sentence(axis, samples) for axis in usable)
    if any(map(shows_more, usable)):
        return MORE, sentence
    total = samples + unreadable
    if unmeasured + unreadable > MAX_UNMEASURED * total:
        missed = unmeasured + unreadable
        verb = "was" if missed == 1 else "were"
        return CANNOT_TELL, f"{missed:,} of {count(total, 'sample')} {verb} not measured. Of the others: {sentence}"
    wide = next((axis for axis in usable if axis.nearer.high > PASSING_SHARE), None)
    if wide is not None:
        return CANNOT_TELL, f"{sentence} {_reason_of_doubt(wide)}"
    return NO_MORE, sentence


def _unusable_sentence(axes: Sequence[AxisCheck]) -> str:
    """Why no axis is usable: none separates, or those that do cannot compare the data."""
    words, clips = (
        dict.fromkeys(
            axis.obstacle
            for axis in axes
            if axis.separates and axis.obstacle and (axis.encoder == WORD_ENCODER) is is_words
        )
        for is_words in (True, False)
    )
    sentences = [f"Words cannot compare the data: {reason}; {LANGUAGE_HINT}." for reason in words]
    if clips:
        sentences.append(f"The clips cannot be compared: {'; '.join(filter(None, clips))}. {COMPARABLE_HINT}")
    if sentences:
        return " ".join(sentences)
    names = " and ".join(f"{axis.name} (AUC {_auc_text(axis)})" for axis in axes)
    return f"No axis tells the harm set from ordinary requests: {names}. So nothing is ranked."


def _axis_notes(axes: Sequence[AxisCheck]) -> list[str]:
    """A note on axes that cannot compare the data, where others can."""
    if not any(axis.is_usable for axis in axes):
        return []
    names: dict[str, list[str]] = {}
    for axis in axes:
        if axis.separates and axis.obstacle:
            hint = f"; {LANGUAGE_HINT}." if axis.encoder == WORD_ENCODER else f". {COMPARABLE_HINT}"
            names.setdefault(f"{axis.obstacle}{hint}", []).append(axis.name)
    return [f"Not compared by {', '.join(those)}: {reason}" for reason, those in names.items()]


def _reason_of_doubt(axis: AxisCheck) -> str:
    """What the share of an axis does not rule out: that it is too large, or that a larger one is due to chance."""
    n, expected = axis.nearer.n, axis.expected
    if axis.nearer.low > PASSING_SHARE:
        return (
            f"Chance is not ruled out: of {n:,} ordinary ones, up to {expected.high:,.0f} would be, and "
            f"{axis.nearer.successes:,} {'is' if axis.nearer.successes == 1 else 'are'}."
        )
    return f"{n:,} {'is' if n == 1 else 'are'} too few to rule out that more than {PASSING_SHARE:.0%} of such data do."


def _unmeasured_sentence(samples: int, untranscribed: int, columns: Sequence[str]) -> str:
    if untranscribed == samples:
        subject = "The only sample is" if samples == 1 else f"All {samples:,} samples are"
        hint = _column_hint("a transcript", columns)
        return (
            f"{subject} spoken without a transcript, so no request is known in words; {hint}give --transcribe MODEL to "
            "transcribe them, or --model MODEL to compare the clips themselves."
        )
    hint = f"; if it is in {join_items(columns, 'or')}, name it with --column text=COLUMN" if columns else ""
    subject = "The only sample has no" if samples == 1 else f"None of the {samples:,} samples has a"
    return f"{subject} request in words{hint}."


def _auc_text(axis: AxisCheck) -> str:
    interval = "" if axis.auc.low is None else f" [{axis.auc.low:.2f}, {axis.auc.high:.2f}]"
    return f"{axis.auc.value:.2f}{interval}"


def _count_sentence(axis: AxisCheck, samples: int) -> str:
    rate, expected = axis.nearer, axis.expected
    noun = f"{'sample' if rate.n == samples else 'request'}{'s' * (rate.n != 1)}"
    share = f"{100 * rate.rate:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    verb = "is" if rate.successes == 1 else "are"
    nearer = f"{rate.successes:,} of {rate.n:,} {noun} ({share}) {verb} nearer to harm, by {axis.name},"
    interval = f"{expected.value:,.0f} [{expected.low:,.0f}, {expected.high:,.0f}]"
    return f"{nearer} than 99 % of ordinary data. Of {rate.n:,} ordinary {noun}, {interval} would be."


def _column_hint(subject: str, columns: Sequence[str]) -> str:
    """What to do if a column of the data has what is missing; nothing if there is no such column."""
    if not columns:
        return ""
    return f"if {join_items(columns, 'or')} has {subject}, name it with --column text=COLUMN, or "


def _missing_words_notes(samples: int, unmeasured: int, untranscribed: int, hint: str, has_axes: bool) -> list[str]:
    """Notes on samples without words. Without axes, the verdict says it where one of the two kinds is all.

    Args:
        samples: Number of samples in the data.
        unmeasured: Samples that no usable axis measures.
        untranscribed: Those among them that are spoken and have no transcript.
        hint: What to do about the untranscribed ones.
        has_axes: Whether an axis measured anything.
    """
    silent = unmeasured - untranscribed
    notes = []
    if untranscribed and (has_axes or untranscribed < samples):
        verb, pronoun = ("is", "it") if untranscribed == 1 else ("are", "them")
        notes.append(
            f"{untranscribed:,} of {count(samples, 'sample')} {verb} spoken without a transcript, so words say nothing "
            f"of what is said in {pronoun}{hint}."
        )
    if silent > 0 and (has_axes or silent < samples):
        verb = "has" if silent == 1 else "have"
        notes.append(f"{silent:,} of {count(samples, 'sample')} {verb} no words.")
    return notes


def _unreadable_notes(unreadable: int) -> list[str]:
    if not unreadable:
        return []
    return [f"{count(unreadable, 'row')} could not be read; see `unreadable` in check.json (--out)."]
