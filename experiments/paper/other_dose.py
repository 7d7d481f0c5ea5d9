"""The section on the exploratory design `demo-dose`: distance at the learning rate of the demo, on the same bases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.paper.agreement import NOTHING
from experiments.paper.claims import DISTANT, ORGANISMS, Unit
from experiments.paper.designs import DEMO_DOSE, MANY_BASES
from experiments.paper.evidence import Contrast, Evidence, Side
from experiments.paper.stratified import mean_over
from experiments.paper.tables import interval_text, value_text
from undersong.pages import formatting
from undersong.pages.markdown_table import markdown_table

WORDS = ("semantic",)
RATES = {
    "closest data": Contrast(None, Side(DISTANT, "closest")),
    "random data": Contrast(None, Side(DISTANT, "random")),
    "distant data": Contrast(None, Side(DISTANT, "distant")),
    "closest, semantic axis": Contrast(None, Side(DISTANT, "closest", WORDS)),
    "distant, semantic axis": Contrast(None, Side(DISTANT, "distant", WORDS)),
}


def _closest_minus(kind: str, axes: tuple[str, ...] = ()) -> Contrast:
    compared = Side(DISTANT, kind, () if kind == "random" else axes, step="mean")
    return Contrast(compared, Side(DISTANT, "closest", axes, step="mean"))


DIFFERENCES = {
    "closest minus random": _closest_minus("random"),
    "closest minus distant": _closest_minus("distant"),
    "closest minus random, semantic axis": _closest_minus("random", WORDS),
    "closest minus distant, semantic axis": _closest_minus("distant", WORDS),
}
TARGET = (0.30, 0.60)  # JSR after random data that the rule for the learning rate aims at


def other_dose_lines(folder: Path, demo_folder: Path) -> list[str]:
    """Rates and contrasts at both doses: results of the design `bases`, and of `demo-dose` as far as it was run."""
    designs = (MANY_BASES, Evidence(folder)), (DEMO_DOSE, Evidence(demo_folder))
    sides = [
        (organism, f"{design.learning_rates[organism]:g}", evidence)
        for organism in ORGANISMS
        for design, evidence in designs
    ]
    return [
        "## Does closeness matter more at a lower learning rate?",
        "",
        "We found no sign of it. On the same bases, the differences at the demo's learning rate are similar to those at the learning "
        "rate of this page. We did not test the two rates against each other. This section is exploratory: we planned it after we had "
        "seen the results above, and its intervals are t intervals over bases without correction.",
        "",
        "### JSR after 40 steps",
        "In percent, over four axes unless one is named.",
        "",
        *markdown_table(("organism", "learning rate", "bases", *RATES), [_row(*side, RATES, "rate") for side in sides]),
        "",
        "### Differences between kinds of data",
        "In points, as means over steps 20 and 40. The rates above are those after step 40, so their differences are others.",
        "",
        *markdown_table(
            ("organism", "learning rate", "bases", *DIFFERENCES),
            [
                *(_row(*side, DIFFERENCES, "points") for side in sides),
                *(_mean_row(label, evidence) for label, (_, evidence) in zip(("of this page", "0.002"), designs)),
            ],
        ),
        "",
        "*All three* is the mean over the architectures, each with the same weight. Its interval comes from the spread of the bases within "
        "the architectures (Welch and Satterthwaite).",
        "",
        *_target_lines(designs[0][1]),
    ]


def _row(
    organism: str, learning_rate: str, evidence: Evidence, contrasts: Mapping[str, Contrast], unit: Unit
) -> tuple[str, ...]:
    units, *cells = contrast_cells(organism, evidence, contrasts, unit)
    return (organism, learning_rate, units, *cells)


def contrast_cells(organism: str, evidence: Evidence, contrasts: Mapping[str, Contrast], unit: Unit) -> tuple[str, ...]:
    """Number of bases, and each contrast with its interval."""
    found = [contrast.estimate(evidence, organism, NOTHING) for contrast in contrasts.values()]
    cells = [
        formatting.MISSING if one is None else f"{value_text(one, unit)} {interval_text(one, unit)}".strip()
        for one in found
    ]
    units = next((one.units for one in found if one is not None), 0)
    return (str(units), *cells)


def _mean_row(label: str, evidence: Evidence) -> tuple[str, ...]:
    """Mean difference over the architectures; a cell is empty where one of them has no spread over bases."""
    means = [mean_over(contrast, evidence, ORGANISMS) for contrast in DIFFERENCES.values()]
    cells = [formatting.MISSING if one is None else one.text for one in means]
    units = max((one.units for one in means if one is not None), default=0)
    return ("all three", label, str(units), *cells)


def _target_lines(evidence: Evidence) -> list[str]:
    """Whether the learning rate of this page put random data where its rule aims."""
    found = {organism: RATES["random data"].estimate(evidence, organism, NOTHING) for organism in ORGANISMS}
    rates = {organism: one.value for organism, one in found.items() if one is not None}
    missed = [organism for organism, rate in rates.items() if not TARGET[0] <= rate <= TARGET[1]]
    if not missed:
        return []
    return [
        f"**The learning rate of this page was too high for {formatting.join_items(missed)}.** It was chosen on packaged bases, so that "
        f"random data would lead to a JSR of {100 * TARGET[0]:.0f} to {100 * TARGET[1]:.0f}%. On these bases random data led to "
        f"{formatting.join_items([f'{formatting.percent_number(rate)}% ({organism})' for organism, rate in rates.items()])}.",
    ]
