"""The section on the design `confirmation`: whether closeness in words matters, on new bases that no earlier choice used."""

from __future__ import annotations

from pathlib import Path

from experiments.paper.agreement import LEVEL
from experiments.paper.designs import CONFIRMATION
from experiments.paper.evidence import Evidence
from experiments.paper.other_dose import DIFFERENCES, RATES, contrast_cells
from experiments.paper.provenance import made_of
from experiments.paper.stratified import StratifiedMean, mean_over
from undersong.pages import formatting
from undersong.pages.markdown_table import markdown_table
from undersong.statistics.multiple_testing import holm

RUNS = CONFIRMATION.runs_per_base
PRIMARY = {  # the order of the registration
    "closest minus distant": DIFFERENCES["closest minus distant, semantic axis"],
    "closest minus random": DIFFERENCES["closest minus random, semantic axis"],
}
ARMS = {
    "closest": RATES["closest, semantic axis"],
    "random": RATES["random data"],
    "distant": RATES["distant, semantic axis"],
}


def primary_results(evidence: Evidence) -> dict[str, tuple[StratifiedMean, float]]:
    """Means over the architectures by the registered questions, with p values corrected by Holm's method."""
    means = {name: mean_over(contrast, evidence, CONFIRMATION.architectures) for name, contrast in PRIMARY.items()}
    found = {name: mean for name, mean in means.items() if mean is not None}
    adjusted = holm([mean.p for mean in found.values()])
    return {name: (mean, mean.p if p is None else p) for (name, mean), p in zip(found.items(), adjusted)}


def confirmation_lines(folder: Path) -> list[str]:
    """The registered test and the architectures by themselves.

    Args:
        folder: Results of the design; without any the section is left out.
    """
    evidence = Evidence(folder)
    if not any(folder.glob("*/results.json")):
        return []
    made = made_of(CONFIRMATION, folder)
    registered = sum(source.registered for source in made.sources)
    results = primary_results(evidence)
    return [
        "## On new bases: does closeness in words matter?",
        "",
        f"The section above is exploratory. So we trained {made.done} further bases, wrote down the two questions below, and only then ran "
        f"the studies ({registered} of {made.done} ran as they were registered). The learning rate is the demo's, 0.002. Each arm was trained "
        f"{RUNS} times on each base. A base gives the mean of its runs, over steps 20 and 40; the mean over architectures gives each the "
        "same weight. Its interval comes from the spread of the bases within the architectures (Welch and Satterthwaite).",
        "",
        *(f"- **{_sentence(name, *found)}**" for name, found in results.items()),
        "",
        "### JSR on the new bases after 40 steps",
        "Spoken requests, in percent, by the distance in words.",
        "",
        *markdown_table(
            ("organism", "bases", *ARMS),
            [(name, *contrast_cells(name, evidence, ARMS, "rate")) for name in CONFIRMATION.architectures],
        ),
        "",
        "### Differences on the new bases",
        "In points, as means over steps 20 and 40. The rows of single architectures are exploratory.",
        "",
        *markdown_table(
            ("organism", "bases", *PRIMARY, "p (Holm)"),
            [
                *(
                    (name, *contrast_cells(name, evidence, PRIMARY, "points"), "")
                    for name in CONFIRMATION.architectures
                ),
                *_mean_row(results),
            ],
        ),
    ]


def _sentence(name: str, mean: StratifiedMean, p: float) -> str:
    _, _, other = name.partition(" minus ")
    size = mean.text.replace(" ", " points ", 1)
    verdict = "significant" if p <= LEVEL else "not significant"
    return (
        f"Training on the speech closest in words rather than on {_data(other)} changed the JSR by {size}; {verdict} after correction "
        f"(corrected p {formatting.p_value_relation(p)})."
    )


def _data(kind: str) -> str:
    return {"distant": "the most distant speech", "random": "random speech"}[kind]


def _mean_row(results: dict[str, tuple[StratifiedMean, float]]) -> list[tuple[str, ...]]:
    if len(results) < len(PRIMARY):
        return []
    cells = [mean.text for mean, _ in results.values()]
    p_values = " and ".join(formatting.p_value(p) for _, p in results.values())
    return [("all three", str(max(mean.units for mean, _ in results.values())), *cells, p_values)]
