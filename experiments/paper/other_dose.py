"""The section on the exploratory design `demo-dose`: distance at the learning rate of the demo, on the same bases."""

from __future__ import annotations

from pathlib import Path

from experiments.paper.agreement import NOTHING
from experiments.paper.claims import DISTANT, ORGANISMS
from experiments.paper.designs import DEMO_DOSE, MANY_BASES
from experiments.paper.evidence import Contrast, Evidence, Side
from experiments.paper.tables import interval_text, value_text
from undersong.report import formatting, markdown_table

CONTRASTS = {
    "closest data": (Contrast(None, Side(DISTANT, "closest")), "rate"),
    "random data": (Contrast(None, Side(DISTANT, "random")), "rate"),
    "distant data": (Contrast(None, Side(DISTANT, "distant")), "rate"),
    "closest data, semantic axis": (Contrast(None, Side(DISTANT, "closest", ("semantic",))), "rate"),
    "distant data, semantic axis": (Contrast(None, Side(DISTANT, "distant", ("semantic",))), "rate"),
    "closest minus random": (
        Contrast(Side(DISTANT, "random", step="mean"), Side(DISTANT, "closest", step="mean")),
        "points",
    ),
    "closest minus distant": (
        Contrast(Side(DISTANT, "distant", step="mean"), Side(DISTANT, "closest", step="mean")),
        "points",
    ),
    "closest minus random, semantic axis": (
        Contrast(Side(DISTANT, "random", step="mean"), Side(DISTANT, "closest", ("semantic",), step="mean")),
        "points",
    ),
    "closest minus distant, semantic axis": (
        Contrast(
            Side(DISTANT, "distant", ("semantic",), step="mean"), Side(DISTANT, "closest", ("semantic",), step="mean")
        ),
        "points",
    ),
}


def other_dose_lines(folder: Path, demo_folder: Path) -> list[str]:
    """Rates and contrasts at both doses: results of the design `bases`, and of `demo-dose` as far as it was run."""
    designs = (MANY_BASES, folder), (DEMO_DOSE, demo_folder)
    rows = []
    for organism in ORGANISMS:
        for design, results in designs:
            evidence, rate = Evidence(results), design.learning_rates[organism]
            found = [contrast.estimate(evidence, organism, NOTHING) for contrast, _ in CONTRASTS.values()]
            cells = [
                formatting.MISSING if one is None else f"{value_text(one, unit)} {interval_text(one, unit)}".strip()
                for one, (_, unit) in zip(found, CONTRASTS.values(), strict=True)
            ]
            units = next((one.units for one in found if one is not None), 0)
            rows.append((organism, f"{rate:g}", str(units), *cells))
    return [
        "## Does it depend on the dose?",
        "",
        "This section is exploratory: we planned it after we had seen the results above, and its intervals are not corrected. "
        "It compares the learning rate of this page with that of the demo, on the same bases. Rates are after 40 steps, and "
        "differences are means over both saved steps, all over four axes unless one is named.",
        "",
        *markdown_table(("organism", "learning rate", "bases", *CONTRASTS), rows),
    ]
