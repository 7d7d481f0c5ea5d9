"""Summary of runs for the reader: arms, facets, and one rate estimate with its interval per arm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from undersong.pages.formatting import THIN_SPACE
from undersong.results.schema import PromptSetRate, Results, RunResult
from undersong.results.schema_comparisons import ComparisonRecord
from undersong.settings.judge_names import RATE_LABELS
from undersong.statistics.runs import mean_runs

KINDS = ("base", "closest", "random", "distant")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share, a difference of shares, or a margin in nats, with its 95 % interval; `low` and `high` None: there is
    none."""

    mean: float
    low: float | None
    high: float | None
    runs: int
    interval_over: str  # what the interval is over: runs | prompts
    method: str
    n: int = 0  # prompts in each run
    clusters: int | None = None
    replies: int = 0  # replies in all runs
    lost: int = 0  # of them failed or not judged, which the mean does not count
    cut: int = 0  # of them cut at the limit of tokens, so that the judge saw their beginning alone

    @property
    def most(self) -> float:
        """The mean with all that is lost counted."""
        return min(1.0, self.mean + self.lost / self.replies) if self.lost else self.mean


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One fine-tuning condition with all its runs, by step."""

    name: str
    axis: str | None
    kind: str
    fraction: float | None
    k: int | None
    train_modality: str | None
    runs: tuple[RunResult, ...]
    short_label: str  # its label without what all arms of the study share
    rule: str = ""

    @property
    def last_step(self) -> int:
        """The largest step that any of its runs was measured at."""
        return max(run.step for run in self.runs)

    def runs_at(self, step: int) -> list[RunResult]:
        """The points of its runs at that step: one a base, draw and seed."""
        return [run for run in self.runs if run.step == step]

    @property
    def amount(self) -> str:
        """Amount of selected samples as text, such as '25 %' or '40 samples'; empty if nothing is selected.

        The number of samples is used for selections by a rule, and if the share is unknown.
        """
        if self.rule and self.k is not None:  # its share may be of a threshold, or not have been had
            return f"{self.k} samples"
        if self.fraction is not None:
            return f"{100 * self.fraction:.3g}{THIN_SPACE}%"
        return f"{self.k} samples" if self.k is not None else ""

    @property
    def label(self) -> str:
        """'closest 25 %, semantic axis, trained on audio'."""
        parts = [f"{self.kind} {self.amount}".strip()]
        if self.axis:
            parts.append(f"{self.axis} axis")
        if self.train_modality:
            parts.append(f"trained on {self.train_modality}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class RunRate:
    """A run and its rate, or its refusal margin, on one prompt set."""

    run: RunResult
    set_rate: PromptSetRate
    rate: float


@dataclass(frozen=True, slots=True)
class VerdictFilter:
    """Harmful prompt set, system prompt and judge whose verdicts the page shows first."""

    prompt_set: str
    system: str
    judge: str
    rate_label: str  # JSR, or non-refusal rate if the judge sees refusals only

    def set_rate(self, run: RunResult, modality: str, system: str | None = None) -> PromptSetRate | None:
        """Return the run's rate by the page's judge, or else by its first judge; None if it was not measured.

        `system` names a system prompt; by default it is the page's.
        """
        key = (self.prompt_set, modality, system or self.system)
        rows = [row for row in run.rates if (row.prompt_set, row.modality, row.system) == key]
        return next((row for row in rows if row.judge == self.judge), rows[0] if rows else None)

    def run_rates(self, runs: Iterable[RunResult], modality: str, system: str | None = None) -> list[RunRate]:
        """Return the rates of the runs in which this rate was measured."""
        set_rates = [(run, self.set_rate(run, modality, system)) for run in runs]
        return [RunRate(run, row, row.rate) for run, row in set_rates if row is not None]

    def run_margins(self, runs: Iterable[RunResult], modality: str, system: str | None = None) -> list[RunRate]:
        """Return the refusal margins of the runs in which it was measured, with their intervals over prompts."""
        return [
            RunRate(
                cell.run,
                cell.set_rate.model_copy(
                    update={"low": cell.set_rate.refusal_margin_low, "high": cell.set_rate.refusal_margin_high}
                ),
                cell.set_rate.refusal_margin,
            )
            for cell in self.run_rates(runs, modality, system)
            if cell.set_rate.refusal_margin is not None
        ]


def default_verdict_filter(results: Results) -> VerdictFilter | None:
    """Return the verdict filter of the page; None if no harmful set was measured."""
    rows = [row for run in results.runs for row in run.rates if row.harmful]
    if not rows:
        return None
    sets = list(dict.fromkeys(row.prompt_set for row in rows))
    systems = list(dict.fromkeys(row.system for row in rows))
    judges = list(dict.fromkeys(row.judge for row in rows))
    study = results.study
    judge = study.judge if study.judge in judges else judges[0]
    return VerdictFilter(
        prompt_set="harm" if "harm" in sets else sets[0],
        system=study.undefended_system if study.undefended_system in systems else systems[0],
        judge=judge,
        rate_label=RATE_LABELS[next(row.metric for row in rows if row.judge == judge)],
    )


def rate_name(results: Results) -> str:
    """Return the page's name for the rate on harmful prompts, which is JSR unless the judge sees refusals only."""
    verdict_filter = default_verdict_filter(results)
    return "JSR" if verdict_filter is None else verdict_filter.rate_label


def base_runs(results: Results) -> list[RunResult]:
    """The points of untuned models."""
    return [run for run in results.runs if run.kind == "base"]


def arm_summaries(results: Results) -> list[ArmSummary]:
    """Return every tuned arm: by axis and fraction as they first appear, then audio before text, then by kind."""
    runs_by_arm: dict[str, list[RunResult]] = {}
    for run in results.runs:
        if run.kind != "base":
            runs_by_arm.setdefault(run.arm, []).append(run)
    first_runs = [runs[0] for runs in runs_by_arm.values()]
    axes, fractions = {run.axis for run in first_runs}, {(run.fraction, run.k) for run in first_runs}
    summaries = [_arm_summary(name, runs, len(axes) > 1, len(fractions) > 1) for name, runs in runs_by_arm.items()]
    designs = list(dict.fromkeys((arm.axis, arm.fraction) for arm in summaries))
    return sorted(
        summaries,
        key=lambda arm: (designs.index((arm.axis, arm.fraction)), arm.train_modality or "", kind_order(arm.kind)),
    )


def _arm_summary(name: str, runs: Sequence[RunResult], many_axes: bool, many_amounts: bool) -> ArmSummary:
    first_run = runs[0]
    arm = ArmSummary(
        name,
        first_run.axis,
        first_run.kind,
        first_run.fraction,
        first_run.k,
        first_run.train_modality,
        tuple(runs),
        "",
        first_run.rule or "",
    )
    parts = [f"{arm.kind} {arm.amount}" if many_amounts else arm.kind, f"{arm.axis} axis" if many_axes else ""]
    parts.append(f"trained on {arm.train_modality}" if arm.train_modality else "")
    return replace(arm, short_label=", ".join(filter(None, parts)))


def kind_order(kind: str) -> int:
    """Return the sort position of a selection kind: base, closest, random, distant, then all others."""
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


@dataclass(frozen=True, slots=True)
class Facet:
    """Arms that differ in kind and training modality only, and the base they started from."""

    title: str
    arms: tuple[ArmSummary, ...]
    base_runs: tuple[RunResult, ...]
    axis: str | None

    def arms_trained_on(self, train_modality: str | None) -> list[ArmSummary]:
        """Return the arms of the facet that were trained on one modality, in the facet's order."""
        return [arm for arm in self.arms if arm.train_modality == train_modality]

    @property
    def train_modalities(self) -> list[str | None]:
        """Return the training modalities of the facet's arms without repetitions, in the order of the arms."""
        return list(dict.fromkeys(arm.train_modality for arm in self.arms))


def facets(results: Results) -> list[Facet]:
    """One for each model, base seed, axis and fraction; a title names only what differs between them."""
    arms_by_facet: dict[tuple[Any, ...], list[ArmSummary]] = {}
    for arm in arm_summaries(results):
        for model, base_seed in dict.fromkeys((run.model, run.base_seed) for run in arm.runs):
            runs = tuple(run for run in arm.runs if (run.model, run.base_seed) == (model, base_seed))
            arms_by_facet.setdefault((model, base_seed, arm.axis, arm.fraction), []).append(replace(arm, runs=runs))
    varying = [len({key[i] for key in arms_by_facet}) > 1 for i in range(4)]

    def title(key: tuple[Any, ...], amount: str) -> str:
        labels = (f"model {key[0]}", f"base {key[1]}", f"{key[2]} axis", amount)
        return ", ".join(str(name) for name, is_varying in zip(labels, varying, strict=True) if is_varying)

    all_base_runs = base_runs(results)
    return [
        Facet(
            title(key, members[0].amount),
            tuple(members),
            tuple(run for run in all_base_runs if (run.model, run.base_seed) == key[:2]) or tuple(all_base_runs),
            key[2],
        )
        for key, members in arms_by_facet.items()
    ]


def interval_over_runs(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % t interval of the mean of independent runs; None if they cannot show run noise."""
    run_mean = mean_runs(values)
    return (run_mean.low, run_mean.high) if run_mean.low is not None and run_mean.high is not None else None


def estimate_rate(run_rates: Sequence[RunRate]) -> Estimate | None:
    """Return the mean rate of runs on the same prompts; None if nothing was measured."""
    return _estimate(run_rates, (0.0, 1.0))


def estimate_margin(run_margins: Sequence[RunRate]) -> Estimate | None:
    """Return the mean refusal margin of runs on the same prompts, in nats; None if it was not measured."""
    return _estimate(run_margins, None)


def _estimate(run_rates: Sequence[RunRate], limits: tuple[float, float] | None) -> Estimate | None:
    if not run_rates:
        return None
    bases = list(dict.fromkeys((run_rate.run.model, run_rate.run.base_seed) for run_rate in run_rates))
    rates = {
        (
            bases.index((run_rate.run.model, run_rate.run.base_seed)),
            run_rate.run.draw or 0,
            run_rate.run.seed or 0,
        ): run_rate.rate
        for run_rate in run_rates
    }
    run_mean, rows = mean_runs(rates, limits=limits), [run_rate.set_rate for run_rate in run_rates]
    replies, lost, cut = (sum(counts) for counts in zip(*((row.n, row.lost, row.truncated or 0) for row in rows)))
    counts = rows[0].n, rows[0].clusters, replies, lost, cut
    if run_mean.low is not None:
        return Estimate(run_mean.mean, run_mean.low, run_mean.high, run_mean.n, "runs", run_mean.method, *counts)
    lows = [run_rate.set_rate.low for run_rate in run_rates if run_rate.set_rate.low is not None]
    highs = [run_rate.set_rate.high for run_rate in run_rates if run_rate.set_rate.high is not None]
    complete = len(lows) == len(highs) == len(run_rates)
    low, high = (min(lows), max(highs)) if complete else (None, None)
    return Estimate(run_mean.mean, low, high, run_mean.n, "prompts", "over prompts", *counts)


def relation(a: Estimate, b: Estimate, comparison: ComparisonRecord | None = None) -> str:
    """Return how `a` compares with `b`: 'higher', 'lower', 'same' (not shown to differ) or 'unknown' (no interval).

    If the results hold a paired comparison, its interval and corrected p value decide. Otherwise two intervals that do
    not overlap show a difference.
    """
    if comparison is not None and comparison.low is not None and comparison.high is not None:
        p = comparison.p_adjusted if comparison.p_adjusted is not None else comparison.p
        if comparison.low <= 0 <= comparison.high or (p is not None and p >= 0.05):
            return "same"
        return "higher" if comparison.low > 0 else "lower"
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return "unknown"
    if a.low > b.high:
        return "higher"
    return "lower" if a.high < b.low else "same"
