"""The verdict of a check in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from undersong.pipeline.checking.result import CANNOT_TELL, MORE, NO_MORE, AxisCheck

# A file passes only if it is large enough to show that less than this share lies nearer to harm: five times the
# ordinary share.
PASSING_SHARE = 0.05
MAX_UNMEASURED = 0.1  # share of samples without words from which a file cannot pass


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of the verdicts of `EXIT_CODES`, its sentence, and notes."""

    word: str
    sentence: str
    notes: tuple[str, ...]


def judge_axis(
    axis: AxisCheck | None, *, samples: int, unmeasured: int, untranscribed: int, unreadable: int
) -> Verdict:
    """Say whether more of the data lies near harm than of ordinary data.

    Args:
        axis: What words say; None if nothing could be measured.
        samples: Number of samples in the data.
        unmeasured: Samples whose request is not known in words.
        untranscribed: Those among them that are spoken.
        unreadable: Rows that could not be read.
    """
    notes = _notes(samples, unmeasured, untranscribed, unreadable)
    if axis is None:
        return Verdict(CANNOT_TELL, f"None of the {samples:,} samples has a request in words.", notes)
    auc = f"{axis.auc.value:.2f}" + ("" if axis.auc.low is None else f" [{axis.auc.low:.2f}, {axis.auc.high:.2f}]")
    if not axis.separates:
        reason = f"Words do not tell the harm set from ordinary requests (AUC {auc}), so nothing is ranked."
        return Verdict(CANNOT_TELL, reason, notes)
    sentence = _count_sentence(axis, samples)
    assert axis.expected.high is not None
    if axis.nearer.successes > axis.expected.high:
        return Verdict(MORE, sentence, notes)
    total = samples + unreadable
    if unmeasured + unreadable > MAX_UNMEASURED * total:
        lost = f"{unmeasured + unreadable:,} of {total:,} samples were not measured."
        return Verdict(CANNOT_TELL, f"{lost} Of the others: {sentence[:1].lower()}{sentence[1:]}", notes)
    if axis.nearer.high > PASSING_SHARE:
        reason = f" {axis.nearer.n:,} are too few to rule out that more than {PASSING_SHARE:.0%} of such data do."
        return Verdict(CANNOT_TELL, sentence + reason, notes)
    return Verdict(NO_MORE, sentence, notes)


def _count_sentence(axis: AxisCheck, samples: int) -> str:
    rate, expected = axis.nearer, axis.expected
    noun = "samples" if rate.n == samples else "requests"
    share = f"{100 * rate.rate:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    verb = "lies" if rate.successes == 1 else "lie"
    return (
        f"{rate.successes:,} of {rate.n:,} {noun} ({share}) {verb} nearer to harm, by words, than 99 % of ordinary "
        f"instruction data do; of {rate.n:,} ordinary {noun}, {expected.value:,.0f} [{expected.low:,.0f}, "
        f"{expected.high:,.0f}] would."
    )


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
