"""The verdict of a check in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undersong.pipeline.checking.result import CANNOT_TELL, MORE, NO_MORE, AxisCheck

# A file passes only if it is large enough to show that less than this share lies nearer to harm: five times the
# ordinary share.
PASSING_SHARE = 0.05
MAX_UNMEASURED = 0.1  # share of samples without words from which a file cannot pass


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """One of the verdicts of `EXIT_CODES`, its sentence, and notes."""

    word: str
    sentence: str
    notes: tuple[str, ...]


def ranking_axis(axes: Sequence[AxisCheck]) -> int | None:
    """Position of the axis to rank by: of those that separate, the one that does so best; None if none does."""
    separating = [number for number, axis in enumerate(axes) if axis.separates]
    return max(separating, key=lambda number: axes[number].auc.value) if separating else None


def judge_axes(
    axes: Sequence[AxisCheck],
    *,
    samples: int,
    unmeasured: int,
    untranscribed: int,
    unreadable: int,
    columns: Sequence[str] = (),
) -> CheckVerdict:
    """Say whether more of the data lies near harm than of ordinary data. One axis that says more is enough.

    Args:
        axes: What the axes say; none if nothing could be measured.
        samples: Number of samples in the data.
        unmeasured: Samples whose request is not known in words.
        untranscribed: Those among them that are spoken.
        unreadable: Rows that could not be read.
        columns: Columns of the data that were read as nothing but labels.
    """
    notes = _notes(samples, unmeasured, untranscribed, unreadable)
    separating = [axis for axis in axes if axis.separates]
    if not axes or (unmeasured == samples and not separating):
        return CheckVerdict(CANNOT_TELL, _unmeasured_sentence(samples, untranscribed, columns), notes)
    if not separating:
        names = " and ".join(f"{axis.name} (AUC {_auc_text(axis)})" for axis in axes)
        reason = f"No axis tells the harm set from ordinary requests: {names}. So nothing is ranked."
        return CheckVerdict(CANNOT_TELL, reason, notes)
    sentence = " ".join(_count_sentence(axis, samples) for axis in separating)
    if any(axis.expected.high is not None and axis.nearer.successes > axis.expected.high for axis in separating):
        return CheckVerdict(MORE, sentence, notes)
    if unmeasured == samples:  # words beside clips were compared, which only show harm if there is some in them
        return CheckVerdict(CANNOT_TELL, _unmeasured_sentence(samples, untranscribed, columns), notes)
    total = samples + unreadable
    if unmeasured + unreadable > MAX_UNMEASURED * total:
        lost = f"{unmeasured + unreadable:,} of {total:,} samples were not measured."
        return CheckVerdict(CANNOT_TELL, f"{lost} Of the others: {sentence}", notes)
    wide = next((axis for axis in separating if axis.nearer.high > PASSING_SHARE), None)
    if wide is not None:
        return CheckVerdict(CANNOT_TELL, f"{sentence} {_reason_of_doubt(wide)}", notes)
    return CheckVerdict(NO_MORE, sentence, notes)


def _reason_of_doubt(axis: AxisCheck) -> str:
    """What the share of an axis does not rule out: that it is too large, or that a larger one is due to chance."""
    n, expected = axis.nearer.n, axis.expected
    if axis.nearer.low > PASSING_SHARE:
        return (
            f"Chance is not ruled out: of {n:,} ordinary ones, up to {expected.high:,.0f} would be, and "
            f"{axis.nearer.successes:,} are."
        )
    return f"{n:,} are too few to rule out that more than {PASSING_SHARE:.0%} of such data do."


def _unmeasured_sentence(samples: int, untranscribed: int, columns: Sequence[str]) -> str:
    if untranscribed == samples:
        return f"All {samples:,} samples are spoken and have no transcript, so no request is known in words."
    hint = f"; if it is in {' or '.join(columns)}, name it with --column text=COLUMN" if columns else ""
    return f"None of the {samples:,} samples has a request in words{hint}."


def _auc_text(axis: AxisCheck) -> str:
    interval = "" if axis.auc.low is None else f" [{axis.auc.low:.2f}, {axis.auc.high:.2f}]"
    return f"{axis.auc.value:.2f}{interval}"


def _count_sentence(axis: AxisCheck, samples: int) -> str:
    rate, expected = axis.nearer, axis.expected
    noun = "samples" if rate.n == samples else "requests"
    share = f"{100 * rate.rate:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    verb = "is" if rate.successes == 1 else "are"
    nearer = f"{rate.successes:,} of {rate.n:,} {noun} ({share}) {verb} closer to harm, by {axis.name},"
    interval = f"{expected.value:,.0f} [{expected.low:,.0f}, {expected.high:,.0f}]"
    return f"{nearer} than 99 % of ordinary data. Of {rate.n:,} ordinary {noun}, {interval} would be."


def _notes(samples: int, unmeasured: int, untranscribed: int, unreadable: int) -> tuple[str, ...]:
    notes = []
    if untranscribed:
        notes.append(
            f"{untranscribed:,} of {samples:,} samples are spoken and have no transcript, so words say nothing of what "
            "is said in them; name the column with --column text=COLUMN, or transcribe them first."
        )
    if unmeasured - untranscribed > 0:
        notes.append(f"{unmeasured - untranscribed:,} of {samples:,} samples have no words.")
    if unreadable:
        notes.append(f"{unreadable:,} rows could not be read; see `unreadable` in check.json (--out).")
    return tuple(notes)
