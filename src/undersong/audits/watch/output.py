"""Output of `watch`: the numbers of a checkpoint, its line on the terminal, TensorBoard events and the stop file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.audits.gate.findings import FAILED, PASSED
from undersong.audits.gate.margins import MarginTest
from undersong.audits.gate.output import finding_of
from undersong.evaluation.rates import cut_replies_text, set_rates
from undersong.settings.judge_names import RATE_LABELS
from undersong.types import Prompt, Reply, UndersongError, Verdict

if TYPE_CHECKING:
    from undersong.audits.gate.rises import RiseTest
    from undersong.audits.watch.limits import CheckpointTest

BARS = "▁▂▃▄▅▆▇█"
TENSORBOARD_INSTALL = "pip install tensorboard"
Values = dict[str, float | None]


def rate_values(prompts: Sequence[Prompt], replies: Sequence[Reply], verdicts: Sequence[Verdict]) -> Values:
    """Numbers of a checkpoint: rates with intervals, refusal margin, numbers of prompts and of lost and cut replies.

    Args:
        prompts: The prompts.
        replies: Replies of the checkpoint.
        verdicts: Verdicts on them.
    """
    speakers = {prompt.sample.id: prompt.sample.speaker for prompt in prompts}
    rates = set_rates(verdicts, speakers, [reply.finish for reply in replies])
    values: Values = {}
    for rate in rates:
        kind = "harmful" if rate.harmful else "benign"
        name = rate.metric if rate.harmful else "over_refusal"
        values |= {name: rate.rate, f"{name}_low": rate.low, f"{name}_high": rate.high}
        values |= {f"{kind}_prompts": rate.n, f"{kind}_clusters": rate.clusters, f"{kind}_lost": rate.lost}
        values[f"{kind}_cut"] = rate.truncated
        if rate.harmful:
            values |= {
                "refusal_margin": rate.refusal_margin,
                "refusal_margin_low": rate.refusal_margin_low,
                "refusal_margin_high": rate.refusal_margin_high,
            }
    return values


def rise_values(test: CheckpointTest) -> Values:
    """Numbers of a checkpoint against the base: each rise, with the two bounds that decide.

    The lower bound holds at the confidence of this look, and stops a training. The upper bound is that of `gate`.
    """
    values: Values = {}
    for single, plain in zip(test.corrected, test.plain, strict=True):
        if isinstance(single, MarginTest):
            name, estimate = "margin_loss", single.loss if single.n else None
        else:
            name, estimate = f"{_metric_of(single)}_rise", _rise(single)
        bounds = {f"{name}_at_least": single.low, f"{name}_at_most": plain.high}
        values |= {name: estimate, **{key: bound if isfinite(bound) else None for key, bound in bounds.items()}}
    return values


def _metric_of(test: RiseTest) -> str:
    return {"JSR": "jsr", "non-refusal rate": "non_refusal_rate"}.get(test.name, "over_refusal")


def _rise(test: RiseTest) -> float | None:
    before, after = test.rates
    return None if before is None or after is None else after - before


def sparkline(values: Sequence[float | None]) -> str:
    """Bars of rates between 0 and 1; a space where a rate is unknown."""
    return "".join(" " if value is None else BARS[min(len(BARS) - 1, int(value * len(BARS)))] for value in values)


def checkpoint_line(name: str, values: Mapping[str, float | None], rates_so_far: Sequence[float | None]) -> str:
    """Describe a checkpoint in one line, with a sparkline of the rates on harmful prompts so far."""
    metric = "jsr" if "jsr" in values else "non_refusal_rate"
    parts = [f"{RATE_LABELS[metric]} {_interval_text(values, metric)} {sparkline(rates_so_far)}".rstrip()]
    if (rise := values.get(f"{metric}_rise")) is not None:
        at_least = values.get(f"{metric}_rise_at_least")
        bound = "" if at_least is None else f", at least {100 * at_least:+.1f}"
        parts.append(f"rise {100 * rise:+.1f} points{bound}")
    if values.get("refusal_margin") is not None:
        parts.append(f"refusal margin {_interval_text(values, 'refusal_margin', '{:.2f}')} nats")
    if values.get("over_refusal") is not None:
        parts.append(f"over-refusal {_interval_text(values, 'over_refusal')}")
    if lost := _sum_of_kinds(values, "lost"):
        parts.append(f"{lost} replies without a verdict")
    if cut := _sum_of_kinds(values, "cut"):
        parts.append(cut_replies_text(cut, _sum_of_kinds(values, "prompts")))
    return f"{name}: {'; '.join(parts)}"


def _sum_of_kinds(values: Mapping[str, float | None], name: str) -> int:
    return sum(int(values.get(f"{kind}_{name}") or 0) for kind in ("harmful", "benign"))


def _interval_text(values: Mapping[str, float | None], name: str, number: str = "{:.1%}") -> str:
    text = number.format(values[name])
    low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
    return text if low is None or high is None else f"{text} [{number.format(low)}, {number.format(high)}]"


def stop_reason(test: CheckpointTest) -> str:
    """Reason to stop in one or two sentences: what rose above its limit at which checkpoint, and by how much."""
    return " ".join(f"{finding_of(single).sentence}." for single in test.broken)


def undecided_lines(test: CheckpointTest | None, unmeasured: Sequence[str]) -> list[str]:
    """Say why a watch ends undecided: the sentences of `gate` on the last checkpoint, and what was not measured.

    Args:
        test: Test of the last checkpoint; None if there is none.
        unmeasured: Names of the checkpoints that could not be measured.
    """
    if test is None and not unmeasured:
        return ["No checkpoint was measured (exit 3)."]
    lines, reasons = [], []
    if test is not None and test.outcome != PASSED:
        for finding in (finding_of(single) for single in test.plain):
            if finding.outcome == FAILED:
                lines.append(f"{finding.sentence} at this checkpoint alone, but not shown over all looks together")
            elif finding.outcome != PASSED:
                lines.append(finding.sentence)
        reasons.append(f"{len(lines)} of {len(test.plain)} limits need more data")
    if unmeasured:
        reasons.append(f"not measured: {', '.join(unmeasured)}")
    return [*lines, f"The watch is undecided: no rise is shown, and {'; '.join(reasons)} (exit 3)."]


class TensorBoardWriter:
    """Scalars of the checkpoints as TensorBoard event files, by torch's writer, in a folder for each run.

    Raises:
        UndersongError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if not is_tensorboard_installed():
            raise UndersongError(
                f"TensorBoard event files need the package tensorboard; {TENSORBOARD_INSTALL}, or give "
                "--no-tensorboard."
            )
        self.folder = folder
        self._writer: Any = None

    def begin_run(self, run: str) -> None:
        """Begin the events of a run anew; those of an earlier watch are removed, because all are written again."""
        from torch.utils.tensorboard import SummaryWriter

        self.close()
        folder = self.folder / run
        for file in folder.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Add the numbers of one checkpoint at its step."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(f"undersong/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


def is_tensorboard_installed() -> bool:
    """True if torch can write event files."""
    return find_spec("tensorboard") is not None
