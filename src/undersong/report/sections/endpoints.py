"""Tables of the endpoints beside the JSR: comparisons of the refusal margin, and steps to half of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from undersong.pages import formatting
from undersong.pages.tables import NumberCell, Table, number_cell
from undersong.report.sections.comparisons import mixed_model_sentence
from undersong.report.summary import arm_summaries, rate_name
from undersong.results.schema import Results
from undersong.results.schema_comparisons import ArmComparison, DoseEndpoint, DoseRecord, MarginComparisonRecord


def build_margin_comparisons(results: Results) -> Table | None:
    """Build the table of comparisons by the refusal margin; None if the results contain none."""
    rows = tuple(
        _comparison_row(comparison, comparison.model or "", "nats") for comparison in results.margin_comparisons
    )
    return Table("Comparisons of the refusal margin", _comparison_head("nats"), rows, names=3) if rows else None


def build_dose_table(results: Results) -> Table | None:
    """Build the table of steps to half of the margin and to half of the requests; None if there is no curve."""
    labels = {arm.name: arm.label for arm in arm_summaries(results)}
    endpoints = _endpoint_labels(results)
    rows: list[tuple[str | NumberCell, ...]] = [
        (
            labels.get(dose.arm, dose.arm),
            endpoints[dose.endpoint],
            f"{dose.prompt_set} · {formatting.modality_label(dose.modality)}",
            f"{dose.n_reached} of {dose.n}",
            _median_cell(dose),
            number_cell(dose.mean_until_last.value, dose.mean_until_last.low, dose.mean_until_last.high, 1),
        )
        for dose in results.dose_response
    ]
    head = ("Arm", "Endpoint", "Prompts", "runs that reach it", "median step [95 %]", "mean step, to the last [95 %]")
    return Table("Training steps to each endpoint", head, tuple(rows), names=3) if rows else None


def build_dose_comparisons(results: Results) -> Table | None:
    """Build the table of comparisons of arms by their steps to an endpoint; None if the results contain none."""
    endpoints = _endpoint_labels(results)
    rows = tuple(
        _comparison_row(comparison, endpoints[comparison.metric], "steps") for comparison in results.dose_comparisons
    )
    return Table("Comparisons of the steps to each endpoint", _comparison_head("steps"), rows, 3) if rows else None


def _comparison_head(unit: str) -> tuple[str, ...]:
    return "Question", "what", "scope", "n", f"B − A, {unit} [95 %]", "p", "adjusted p"


def _endpoint_labels(results: Results) -> Mapping[DoseEndpoint, str]:
    return {"steps_to_half_margin": "half of the base’s margin", "steps_to_half_jsr": f"{rate_name(results)} of 50 %"}


def _comparison_row(comparison: ArmComparison, detail: str, unit: str) -> tuple[str | NumberCell, ...]:
    comparison = comparison.with_minuend("b")
    what = (
        f"{comparison.b.label} − {comparison.a.label}",
        comparison.prompt_set,
        formatting.modality_label(comparison.modality),
        detail,
        comparison.note or "",
        "" if comparison.mixed_model is None else mixed_model_sentence(comparison.mixed_model, "nats"),
    )
    return (
        comparison.question,
        " · ".join(filter(None, what)),
        f"{comparison.scope}, {comparison.family}" if comparison.scope == "recipe" else comparison.scope,
        str(comparison.n),
        _difference_cell(comparison, 2 if unit == "nats" else 1),
        formatting.p_value(comparison.p),
        formatting.p_value(comparison.p_adjusted),
    )


def _difference_cell(comparison: ArmComparison, decimals: int) -> NumberCell:
    """'−3.10 [−4.02, −2.18]'."""
    low, high = (formatting.decimal(end, decimals) for end in (comparison.low, comparison.high))
    interval = f"[{low},{formatting.NBSP}{high}]" if comparison.low is not None else ""
    text = " ".join(filter(None, (formatting.signed(comparison.difference, decimals), interval)))
    return NumberCell(text, comparison.difference, comparison.low, comparison.high)


def build_shared_margins(studies: Sequence[tuple[str, Results]]) -> Table | None:
    """Build the table of margin comparisons that at least two studies make, side by side; None if there are none.

    Args:
        studies: Name and results of each study.
    """
    by_id: dict[str, dict[str, MarginComparisonRecord]] = {}
    for name, results in studies:
        for comparison in results.margin_comparisons:
            if comparison.scope == "recipe":  # a claim about one run's weights has no counterpart
                by_id.setdefault(comparison.id, {})[name] = comparison.with_minuend("b")
    names = [name for name, _ in studies]
    rows: list[tuple[str | NumberCell, ...]] = []
    for by_study in by_id.values():
        if len(by_study) > 1:
            first = next(iter(by_study.values()))
            cells = [_difference_cell(by_study[name], 2) if name in by_study else number_cell(None) for name in names]
            rows.append((first.question, f"{first.prompt_set} · {formatting.modality_label(first.modality)}", *cells))
    head = ("Question", "prompts", *names)
    caption = "Refusal margin: differences in nats, B − A, with 95 % intervals over runs"
    return Table(caption, head, tuple(rows), names=2) if rows else None


def _median_cell(dose: DoseRecord) -> NumberCell:
    """'12.4 [8.0, > 40]'; a step beyond the last one is '> 40'."""
    interval = f"[{_step(dose.low, dose)},{formatting.NBSP}{_step(dose.high, dose)}]" if dose.has_interval else ""
    return NumberCell(" ".join(filter(None, (_step(dose.median, dose), interval))), dose.median)


def _step(step: float | None, dose: DoseRecord) -> str:
    return f">{formatting.NBSP}{dose.last_step}" if step is None else formatting.decimal(step, 1)
