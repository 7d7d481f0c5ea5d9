"""Every arm at its last step compared with the base: the table of rates and the dot-and-interval chart below the
verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import LinearScale, interval_strip, percent_axis
from undersong.pages.tables import NumberCell, Table, number_cell
from undersong.report.arm_comparisons import (
    ArmMeasurement,
    HeadlineData,
    headline_data_by_modality,
    headline_data_by_model,
)
from undersong.report.sections.cut_replies import cut_phrase
from undersong.report.summary import Estimate
from undersong.results.schema import Results, model_names

RELATION_TO_BASE = {"higher": ", above the base", "lower": ", below the base", "same": "", "unknown": ""}


def build_arm_table(results: Results) -> Table | None:
    """Build the table with a row per arm and a column per prompt modality; None without harmful prompts.

    Several models have rows of their own each, and no mean.
    """
    headlines = sorted(headline_data_by_modality(results), key=lambda headline: headline.modality)
    by_model = [data for headline in headlines for data in headline_data_by_model(results, headline.modality)]
    by_model.sort(key=lambda data: model_names(results).index(data.model))
    estimates_by_arm: dict[
        str, dict[str, tuple[Estimate, str]]
    ] = {}  # arm -> modality -> the rate there, how it is to the base
    margins: dict[tuple[str, str], Estimate] = {}  # (arm, modality) -> refusal margin
    for headline in by_model or headlines:
        for arm_name, estimate, relation_text, margin in _arm_estimates(headline):
            name = f"{headline.model}: {arm_name}" if by_model else arm_name
            estimates_by_arm.setdefault(name, {})[headline.modality] = estimate, relation_text
            if margin is not None:
                margins[name, headline.modality] = margin
    if not estimates_by_arm:
        return None
    modalities, rate = (
        [headline.modality for headline in headlines],
        formatting.capitalize_first(headlines[0].verdict_filter.rate_label),
    )
    rows: list[tuple[str | NumberCell, ...]] = []
    for name, by_modality in estimates_by_arm.items():
        cells = [
            _estimate_cell(*by_modality[modality]) if modality in by_modality else NumberCell(formatting.MISSING, None)
            for modality in modalities
        ]
        runs, sizes = (
            dict.fromkeys(format_cell(estimate) for estimate, _ in by_modality.values())
            for format_cell in (_run_count, _prompt_count)
        )
        margin_cells = [_margin_cell(margins.get((name, modality))) for modality in modalities if margins]
        rows.append((name, *cells, *margin_cells, ", ".join(runs), ", ".join(sizes)))
    head = (
        "Arm",
        *(f"{rate}, {formatting.modality_label(modality)}" for modality in modalities),
        *(f"refusal margin, {formatting.modality_label(modality)}, nats" for modality in modalities if margins),
        "runs",
        "n, prompts a run",
    )
    caption = (
        f"{rate} of every arm at its last step, with 95 % intervals; “above the base”, “below the base”: significantly "
        "so over runs, or over prompts in every trained model of the arm"
    )
    return Table(caption, head, tuple(rows))


def _arm_estimates(headline: HeadlineData) -> Iterator[tuple[str, Estimate, str, Estimate | None]]:
    if headline.base is not None:
        yield "base", headline.base, "", headline.base_margin
    for item in headline.measurements:
        state = headline.relation_to_base(item)
        yield item.arm.label, item.estimate, RELATION_TO_BASE[state], item.margin


def _margin_cell(margin: Estimate | None) -> NumberCell:
    return number_cell(None) if margin is None else number_cell(margin.mean, margin.low, margin.high, 2)


def _estimate_cell(estimate: Estimate, relation_text: str) -> NumberCell:
    interval = formatting.bracket(estimate.low, estimate.high) or "no interval"
    failure_text = f" (failures counted: {formatting.percent(estimate.most)})" if estimate.lost else ""
    failure_text += f" ({cut_phrase(estimate)})" if estimate.cut else ""
    ends = (None if end is None else 100 * end for end in (estimate.low, estimate.high))
    return NumberCell(
        f"{formatting.percent(estimate.mean)} {interval}{failure_text}{relation_text}", 100 * estimate.mean, *ends
    )


def _run_count(estimate: Estimate) -> str:
    return str(estimate.runs)


def _prompt_count(estimate: Estimate) -> str:
    return (
        f"{estimate.n:,} in {formatting.count(estimate.clusters, 'cluster')}"
        if estimate.clusters
        else f"{estimate.n:,}"
    )


MAX_ARMS_SHOWN = 12  # arms that are all shown at once; of more, the highest are
TOP_ARMS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One condition in the picture under the headline."""

    label: str
    note: str
    kind: str
    hollow: bool
    estimate: Estimate
    flag: str = ""  # that it is the worst
    against: str = ""  # comparison with the base, and with the worst arm


DrawnRows = tuple[tuple[ArmRow, Markup], ...]


@dataclass(frozen=True, slots=True)
class ArmChart:
    """Chart of the arms. `folded_rows` are arms that are folded away; `axis` holds (percent of the width, label)."""

    rows: DrawnRows
    folded_rows: DrawnRows
    axis: tuple[tuple[float, str], ...]


def build_arm_chart(headline: HeadlineData) -> ArmChart:
    """The base, every arm, and the worst one under other system texts."""
    rows, folded_rows = _arm_rows(headline)
    pictures, axis = _pictures([*rows, *folded_rows], headline.base)
    drawn_rows = tuple(zip([*rows, *folded_rows], pictures, strict=True))
    return ArmChart(drawn_rows[: len(rows)], drawn_rows[len(rows) :], axis)


def build_model_chart(headlines: Sequence[HeadlineData]) -> ArmChart:
    """The base and the worst arm of each of several models, one below the other; of many, the highest."""
    pairs = [
        [
            *([ArmRow(data.model, "before fine-tuning", "base", False, data.base)] if data.base else []),
            *([_model_row(data, data.worst)] if data.worst else []),
        ]
        for data in headlines
    ]
    folded_rows: list[ArmRow] = []
    if sum(map(len, pairs)) > MAX_ARMS_SHOWN:
        pairs.sort(key=lambda rows: -max((row.estimate.mean for row in rows), default=0.0))
        folded_rows = [row for rows in pairs[TOP_ARMS_SHOWN // 2 :] for row in rows]
        pairs = pairs[: TOP_ARMS_SHOWN // 2]
    rows = [row for pair in pairs for row in pair]
    pictures, axis = _pictures([*rows, *folded_rows], None)
    drawn_rows = tuple(zip([*rows, *folded_rows], pictures, strict=True))
    return ArmChart(drawn_rows[: len(rows)], drawn_rows[len(rows) :], axis)


def _model_row(headline: HeadlineData, worst: ArmMeasurement) -> ArmRow:
    against = RELATION_TO_BASE[headline.relation_to_base(worst)].removeprefix(", ")
    flag = "worst" if headline.n_arms > 1 and not headline.tied else ""
    return ArmRow(headline.model, worst.arm.label, worst.arm.kind, False, worst.estimate, flag, against)


def _arm_rows(headline: HeadlineData) -> tuple[list[ArmRow], list[ArmRow]]:
    """What is shown, and what is folded away."""
    base_rows = [ArmRow("Base", "before fine-tuning", "base", False, headline.base)] if headline.base else []
    measurements = list(headline.measurements)
    folded_rows: list[ArmRow] = []
    if len(measurements) > MAX_ARMS_SHOWN:
        measurements.sort(key=lambda item: -item.estimate.mean)
        folded_rows = [_arm_row(headline, item) for item in measurements[TOP_ARMS_SHOWN:]]
        measurements = measurements[:TOP_ARMS_SHOWN]
    system_rows = [
        ArmRow(
            f"System text “{item.system}”",
            item.arm.label,
            item.arm.kind,
            True,
            item.estimate,
            against=_difference_from_worst(headline, item),
        )
        for item in headline.system_variants
    ]
    # Arms that are trained as the worst is stand together, with the worst arm's system texts behind them.
    trained = headline.worst.arm.train_modality if headline.worst else None
    alike, others = (
        [_arm_row(headline, item) for item in measurements if (item.arm.train_modality == trained) == is_alike]
        for is_alike in (True, False)
    )
    return [*base_rows, *alike, *system_rows, *others], folded_rows


def _arm_row(headline: HeadlineData, item: ArmMeasurement) -> ArmRow:
    label, _, note = item.arm.label.partition(", ")
    state = headline.relation_to_base(item)
    is_worst = item is headline.worst and headline.n_arms > 1 and not headline.tied
    return ArmRow(
        label=formatting.capitalize_first(label),
        note=note,
        kind=item.arm.kind,
        hollow=False,
        estimate=item.estimate,
        flag="worst" if is_worst else "",
        against=", ".join(
            filter(None, (RELATION_TO_BASE[state].removeprefix(", "), _difference_from_worst(headline, item)))
        ),
    )


def _difference_from_worst(headline: HeadlineData, item: ArmMeasurement) -> str:
    """How far a counterpart of the worst arm is from it, with the interval over runs; empty for other arms."""
    comparison = headline.comparison_to(item, headline.worst) if headline.worst else None
    if comparison is None or comparison.difference is None or item is headline.worst:
        return ""
    interval = formatting.bracket(comparison.low, comparison.high)
    return f"{f'{formatting.points(comparison.difference)} {interval}'.rstrip()} from the worst"


def _pictures(rows: Sequence[ArmRow], base: Estimate | None) -> tuple[list[Markup], tuple[tuple[float, str], ...]]:
    estimates = [row.estimate for row in rows]
    top, tick_marks = percent_axis(
        max((max(estimate.mean, estimate.high or 0.0) for estimate in estimates), default=1.0)
    )
    x = LinearScale((0.0, top), (0.0, 100.0))
    reference = base.mean if base else None
    pictures = [
        interval_strip(
            row.estimate.mean, row.estimate.low, row.estimate.high, x, row.kind,
            "hollow" if row.hollow else "", reference, [value for value, _ in tick_marks],
        )
        for row in rows
    ]  # fmt: skip
    return pictures, tuple((x(value), label) for value, label in tick_marks)
