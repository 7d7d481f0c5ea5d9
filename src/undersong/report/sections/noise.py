"""The run-noise floor: how far trainings on the same samples differ by their seed alone."""

from __future__ import annotations

from undersong.report import formatting
from undersong.report.tables import Table, training_label
from undersong.results.schema import Results
from undersong.results.schema_outcomes import RunNoiseRecord

RUN_NOISE_HEADINGS = (
    "Base",
    "trained",
    "asked",
    "runs in groups",
    "SD of one run, points",
    "95 % of pairs differ by less than",
)


def build_run_noise_table(results: Results) -> Table | None:
    """None where the results say nothing of it."""
    if not results.run_noise:
        return None
    rows = tuple(_run_noise_row(run_noise) for run_noise in results.run_noise)
    return Table("Run noise: same samples, other training seed", RUN_NOISE_HEADINGS, rows, 3)


def _run_noise_row(run_noise: RunNoiseRecord) -> tuple[str, ...]:
    prompt_label = " · ".join(
        filter(None, (run_noise.set, formatting.modality_label(run_noise.modality) if run_noise.modality else ""))
    )
    names = run_noise.model or formatting.MISSING, training_label(run_noise.train_modality), prompt_label
    if run_noise.sd is None:
        return (*names, formatting.MISSING, run_noise.note or "not estimated", formatting.MISSING)
    spread = " ".join(
        filter(None, (formatting.percent_number(run_noise.sd), formatting.bracket(run_noise.low, run_noise.high)))
    )
    max_difference = (
        formatting.MISSING if run_noise.reach is None else f"{formatting.percent_number(run_noise.reach)} points"
    )
    return (*names, f"{run_noise.runs} in {run_noise.groups}", spread, max_difference)
