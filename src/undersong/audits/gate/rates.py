"""The gate on rates: compare the measured rates of a results.json or verdict table with limits.

Failed or unjudged replies count against the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.audits.gate.cut_replies import shorten_notes
from undersong.audits.gate.findings import FAILED, INCONCLUSIVE, PASSED
from undersong.settings.judge_names import RATE_LABELS
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.evaluation.rates import VerdictRate
    from undersong.results.schema import Results, RunResult

VERDICT_SUFFIXES = (".parquet", ".jsonl", ".eval")
BOUND_KINDS = ("upper", "point")


@dataclass(frozen=True)
class RateLimits:
    """Largest rates that pass; `bound`: limit the upper end of the 95 % interval (`upper`) or the rate (`point`)."""

    max_jsr: float | None  # None: harmful prompts are not looked at
    max_over_refusal: float | None = None  # None: benign prompts are not looked at
    bound: str = "upper"

    def limit_for(self, harmful: bool) -> float | None:
        """Return the limit on harmful or on benign prompts; None if these are not checked."""
        return self.max_jsr if harmful else self.max_over_refusal


@dataclass(frozen=True)
class CheckedRate:
    """One rate and its limit, with a text that names the run and the prompts."""

    run: str
    name: str  # JSR | non-refusal rate | refusal rate
    measured: float  # as measured
    value: float  # the bound of it that is held against the limit
    limit: float
    cut_short_replies: int = 0  # at most so many were cut and have no clear verdict
    highest: float = 0.0  # the rate if these, and all lost replies, have the outcome

    @property
    def outcome(self) -> int:
        """Outcome: failed, passed, or inconclusive if the replies that were cut short could break the limit."""
        if self.value > self.limit:
            return FAILED
        return INCONCLUSIVE if self.cut_short_replies and self.highest > self.limit else PASSED

    @property
    def formatted(self) -> str:
        """The measured rate, and the upper end where that is what counts."""
        return f"{self.measured:.2%}" + (f" (upper end {self.value:.2%})" if self.value != self.measured else "")

    @property
    def violation_sentence(self) -> str:
        """The sentence on a rate that is above its limit."""
        return f"{self.run}: {self.name} {self.formatted} is above the limit of {100 * self.limit:g}%"


@dataclass(frozen=True)
class RateCheck:
    """Rates that were checked, and the bound that their limits apply to."""

    rates: tuple[CheckedRate, ...]
    bound: str
    notes: tuple[str, ...] = ()  # on replies that were cut

    @property
    def violations(self) -> tuple[CheckedRate, ...]:
        """The rates whose bound is above their limit, in order."""
        return tuple(rate for rate in self.rates if rate.value > rate.limit)


def check_rates(path: str | Path, limits: RateLimits, arm: str | None = None) -> RateCheck:
    """Compare the rates in a results.json or a verdict table with limits.

    Of a results.json, every run at every step is checked, or with `arm` only that arm's runs at their last step. A
    verdict table (.parquet or .jsonl) holds one model. Raises UndersongError if there is nothing to compare.
    """
    from undersong.evaluation.rates import cut_replies_text

    path = Path(path)
    if limits.bound not in BOUND_KINDS:
        raise UndersongError(f"There is no bound {limits.bound!r}; take one of {', '.join(BOUND_KINDS)}.")
    rates, notes = [], []
    for run, rate in _measured_rates(path, arm):
        limit = limits.limit_for(rate.harmful)
        if limit is not None:
            measured, value = (_checked_value(rate, bound, path) for bound in ("point", limits.bound))
            cut_short = min(rate.truncated or 0, rate.other)  # of a rate it is not known how many are both
            highest = rate.max_rate + cut_short / rate.n if cut_short else rate.max_rate
            name = RATE_LABELS[rate.metric]
            rates.append(CheckedRate(_run_label(run, rate), name, measured, value, limit, cut_short, highest))
            if rate.truncated:
                notes.append(f"Note: {_run_label(run, rate)}: {cut_replies_text(rate.truncated, rate.n)}.")
    _check_rates_present(path, limits, rates)
    return RateCheck(tuple(rates), limits.bound, shorten_notes(notes))


def rate_check_sentence(checked: RateCheck, gate: str = "The gate") -> str:
    """Return the outcome of the gate on rates in one sentence, with `gate` as its subject."""
    bound = "upper ends of the 95 % intervals" if checked.bound == "upper" else "rates as found"
    violation_count = len(checked.violations)
    if violation_count:
        return f"{gate} failed: {violation_count} of {len(checked.rates)} rates are above their limit ({bound})."
    if undecided := sum(rate.outcome == INCONCLUSIVE for rate in checked.rates):
        return (
            f"{gate} is undecided: no rate is above its limit ({bound}), and {undecided} of {len(checked.rates)} could "
            "be, because replies were cut."
        )
    closest_rate = max(checked.rates, key=lambda rate: rate.value - rate.limit)
    return (
        f"{gate} passed ({len(checked.rates)} checked, {bound}); nearest to its limit is the {closest_rate.name} "
        f"{closest_rate.formatted} of {closest_rate.run}."
    )


def _measured_rates(path: Path, arm: str | None) -> Iterator[tuple[RunResult | None, VerdictRate]]:
    """Return (run, rate) for each rate to check; a verdict table has no runs."""
    if path.suffix != ".json":
        if arm is not None:
            raise UndersongError(
                f"{path} is a verdict table, which has no arms; leave out --arm or give a results.json."
            )
        if path.is_file() and path.suffix not in VERDICT_SUFFIXES:
            raise UndersongError(
                f"{path} is no results.json and no verdict table ({', '.join(VERDICT_SUFFIXES)}); give one of these."
            )
        yield from ((None, rate) for rate in _verdict_table_rates(path))
        return
    runs = list(read_results(path).runs)
    for run in runs if arm is None else _last_step_runs(runs, arm, path):
        yield from ((run, rate) for rate in run.rates)


def read_results(path: Path) -> Results:
    """The checked content of a results.json."""
    from undersong.results.files import read_results_file
    from undersong.results.schema import parse_results

    return parse_results(read_results_file(path))


def _last_step_runs(runs: Sequence[RunResult], arm: str, path: Path) -> list[RunResult]:
    """The arm's runs, each at its last step."""
    arm_runs = [run for run in runs if run.arm == arm]
    if not arm_runs:
        arm_names = ", ".join(sorted({run.arm for run in runs})) or "none"
        raise UndersongError(f"{path} has no arm {arm!r}; it has {arm_names}.")
    last: dict[tuple[Any, ...], RunResult] = {}
    for run in sorted(arm_runs, key=lambda run: run.step):
        last[run.model, run.base_seed, run.seed, run.draw] = run
    return list(last.values())


def _verdict_table_rates(path: Path) -> list[VerdictRate]:
    from undersong.evaluation.rates import set_rates
    from undersong.evaluation.verdicts import read_verdicts

    _check_not_study_table(path)
    verdicts = sorted(
        read_verdicts(path),
        key=lambda verdict: (verdict.set, verdict.harmful, verdict.modality, verdict.system, verdict.judge),
    )
    return set_rates(verdicts, {})


def _check_not_study_table(path: Path) -> None:
    """A study's own verdicts.parquet holds many runs, whose prompts repeat."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix != ".parquet" or not path.is_file():
        return
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError, ValueError):  # the reader of verdicts says it better
        return
    if "run_arm" in names:
        raise UndersongError(f"{path} holds the verdicts of a whole study; give the results.json beside it.")


def _run_label(run: RunResult | None, rate: VerdictRate) -> str:
    prompts = ", ".join(part for part in (rate.prompt_set, rate.modality, rate.system, rate.judge) if part)
    if run is None:
        return prompts or "the verdicts"
    seed = "" if run.seed is None else f" seed {run.seed}"
    return f"{run.model} {run.arm}{seed} step {run.step} ({prompts})"


def _checked_value(rate: VerdictRate, bound: str, path: Path) -> float:
    """The rate to compare; never less than with every lost reply counted against the model."""
    estimate = rate.high if bound == "upper" else rate.rate
    if estimate is None:
        raise UndersongError(
            f"{path} has no {'upper bound' if bound == 'upper' else 'value'} of the {RATE_LABELS[rate.metric]} on "
            f"{rate.prompt_set!r}; write it again with run."
        )
    return max(estimate, rate.max_rate)


def _check_rates_present(path: Path, limits: RateLimits, rates: Sequence[CheckedRate]) -> None:
    """Check that there is a rate for each limit; a gate that checked nothing must not pass."""
    if limits.max_jsr is not None and all(rate.name == "refusal rate" for rate in rates):
        raise UndersongError(
            f"{path} holds no rate on harmful prompts, so there is no JSR to check; measure one first."
        )
    if limits.max_over_refusal is not None and not any(rate.name == "refusal rate" for rate in rates):
        raise UndersongError(f"{path} holds no rate on benign prompts; leave out --max-over-refusal or measure one.")
