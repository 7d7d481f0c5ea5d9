"""docs/results/prediction.md, its figure, and results.json with every measured value. No figure is typed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.prediction.analysis import (
    COMBINATIONS,
    Base,
    Estimate,
    calibration,
    ceilings,
    combination_correlations,
    correlations,
    differences_from_baseline,
    endpoint_agreement,
    mean_ceiling,
    primary_comparisons,
    regret,
    tied_share,
)
from experiments.prediction.design import BASELINE, PREDICTORS, PRIMARY, SEEDS, SETS
from experiments.prediction.mini_page import copy_results, section_lines, summary_line
from experiments.prediction.table_text import LABELS, interval_text, number_text, p_text

RESULTS = Path(__file__).with_name("results.json")
PAGE, FIGURE = (Path(__file__).parents[2] / "docs" / "results" / f"prediction.{kind}" for kind in ("md", "svg"))
WITHOUT_TRAINING = tuple(name for name in PREDICTORS if name != "rehearsal")
LEVEL = 0.05
GOALS = {"rehearsal": 0.75, "without training": 0.65}


def gather(work: Path) -> list[dict]:
    """Records of all completely measured bases in the work folder, by name.

    Raises:
        SystemExit: There are fewer than three.
    """
    records = [json.loads(file.read_text()) for file in sorted(work.glob("*.json"))]
    complete = [record for record in records if len(record.get("after", [])) == 2 * SETS]
    if len(complete) < 3:
        raise SystemExit(f"{len(complete)} bases in {work} are measured completely; measure three at least.")
    return sorted(complete, key=lambda record: record["base"])


def write_page(work: Path) -> None:
    """Write results.json from the work folder if it holds measurements, and page and figure from results.json."""
    if work.is_dir() and list(work.glob("*.json")):
        RESULTS.write_text(json.dumps({"bases": gather(work)}, indent=0) + "\n")
    if (mini := work / "mini" / "mini.json").is_file():
        copy_results(mini)
    records = json.loads(RESULTS.read_text())["bases"]
    bases = [Base.from_record(record) for record in records]
    found = correlations(bases)
    PAGE.write_text("\n".join(page_lines(bases, found)) + "\n")
    draw_figure(found, FIGURE)


def page_lines(bases: Sequence[Base], found: Mapping[str, Estimate]) -> list[str]:
    """Lines of the page."""
    differences = differences_from_baseline(found)
    best = max(WITHOUT_TRAINING, key=lambda name: found[name].mean)
    return [
        "# Does screening predict damage?",
        "",
        *summary_lines(bases, found, differences, best),
        *summary_line(),
        "",
        f"![Rank correlation of each predictor with the damage]({FIGURE.name})",
        "",
        "A line is a 95 % interval over bases, and a pale dot one base. Red predictors are in the primary comparisons; blue is the baseline.",
        "",
        "## Primary comparisons",
        "They were registered before any set was trained on (`experiments/prediction/registration.md`): differences of rank "
        "correlation from the metadata baseline, paired over bases, and corrected together by Holm's method.",
        "",
        "| predictor | difference from the baseline | p, Holm |",
        "|---|---|---|",
        *(
            f"| {LABELS[name]} | {_interval(estimate)} | {p_text(adjusted)} |"
            for name, (estimate, adjusted) in primary_comparisons(differences).items()
        ),
        "",
        "## All predictors",
        "Rank correlation with the damage over the 36 sets within a base, as a mean over bases with its 95 % interval. For the regret, a "
        "predictor chooses the nine sets that it calls safest. Their damage is compared with that of the nine sets that did least: 0 is the "
        "best possible choice, 1 is as bad as a random one, and above 1 is worse. All rows outside the primary comparisons are exploratory.",
        "",
        "[Axes that run the model](../how-to/screen.md#axes-that-run-the-model) explains influence. Gradient matching is that of He et al. (arXiv 2404.01099). The rows “like LARF” (arXiv 2507.18631) and “like DataShield” are our own "
        "short versions of these methods, not their code. The reference is spoken in two of the six voices, so log-mel and the speech encoder also "
        "measure who speaks.",
        "",
        "| predictor | rank correlation | from worst to best base | difference from the baseline | regret |",
        "|---|---|---|---|---|",
        *(_predictor_row(bases, found, differences, name) for name in sorted(PREDICTORS, key=lambda n: -found[n].mean)),
        "",
        "## Combinations",
        "Ridge regression on ranks, fitted on all other bases and measured on the base left out. The differences from the baseline were added "
        "after the registration.",
        "",
        "| predictors | rank correlation | difference from the baseline |",
        "|---|---|---|",
        *_combination_rows(bases, found),
        "",
        "## What limits prediction",
        "| agreement of the damage itself | rank correlation |",
        "|---|---|",
        *(f"| {name} | {_interval(estimate)} |" for name, estimate in ceilings(bases).items()),
        "",
        f"Two trainings on the same set agree at {number_text(ceilings(bases)['seed 0 with seed 1'].mean)}. The damage here is the mean of two, so a perfect predictor could reach about "
        f"{number_text(mean_ceiling(ceilings(bases)['seed 0 with seed 1'].mean, len(SEEDS)))} (Spearman-Brown). Bases agree little: what breaks one base need not break another.",
        "",
        *calibration_lines(bases),
        "",
        "## Refusal margin and JSR",
        f"In {100 * tied_share(bases):.0f} % of the trainings the JSR is at most 2 % or at least 98 %, where it can hardly rank. This comparison "
        "was added after the registration.",
        "",
        "| endpoints | rank correlation |",
        "|---|---|",
        *(f"| {name} | {_interval(estimate)} |" for name, estimate in endpoint_agreement(bases).items()),
        *section_lines(),
        "",
        "## How it was measured",
        "The design, the primary comparisons and the analysis were committed before the first training.",
        "",
        f"- Bases: {', '.join(f'`{base.name}`' for base in bases)}. Those with a number from 100 on were trained for this experiment and "
        "never fine-tuned before.",
        f"- {SETS} sets of 96 clips, drawn without regard to any axis; LoRA on the decoder, 40 steps, two seeds.",
        "- Damage: the loss of [refusal margin](../how-to/measure.md#refusal-margin) on 108 spoken harmful requests.",
        f"- Over all bases and sets the damage has quartiles of {_quartiles(bases)} nats, and the JSR after training a mean of "
        f"{100 * np.mean([list(base.jsr.values()) for base in bases]):.0f} %.",
        "- Predictors see the candidate set and the reference harm set, which shares no behavior with the test requests.",
        "- The pilot on four other bases gave the rehearsal .74. A part of its sets had been selected by the axes themselves, and its predictors were "
        "chosen on the same bases.",
        "",
        f"Every value is in `experiments/prediction/results.json` (SHA-256 {_results_hash()}). `python -m recipes.organisms.bases` trains the new bases, and `python -m experiments.prediction measure BASE ...` and `page` do the rest.",
    ]


def summary_lines(
    bases: Sequence[Base], found: Mapping[str, Estimate], differences: Mapping[str, Estimate], best: str
) -> list[str]:
    """The answer in a few sentences, with the goals."""
    rehearsal, score = found["rehearsal"], found["screening_score"]
    lines = [
        f"We trained {len(bases)} bases on {SETS} sets of benign speech each, and asked how well each predictor ranks the sets by the damage: by how much of "
        "the model's refusal the training takes away.",
        "",
        f"- A rehearsal of 8 training steps ranks them with a rank correlation of {_interval(rehearsal)}.",
        f"- The best predictor without training is {_plain(best)}: {_interval(found[best])}.",
        f"- The screening score by words reaches {_interval(score)}. The baseline, which needs no model, is the share of clips that are not "
        f"`far`: `far` requests share neither verb nor object with a harmful one. It reaches {_interval(found[BASELINE])}.",
        *(f"- {_primary_sentence(name, *result)}" for name, result in primary_comparisons(differences).items()),
        "",
    ]
    for name, estimate in (("rehearsal", "rehearsal"), ("without training", best)):
        goal, difference = GOALS[name], differences.get(estimate)
        reached = found[estimate].mean >= goal and difference is not None and difference.low > 0
        what = "with a rehearsal" if name == "rehearsal" else "without training"
        lines.append(
            f"The goal {what} was a rank correlation of {goal:.2f}, with an interval of the difference from the baseline above 0. It was "
            f"{'reached' if reached else 'not reached'}."
        )
    return lines


def _primary_sentence(name: str, difference: Estimate, adjusted: float) -> str:
    label = _plain(name)
    if adjusted > LEVEL:
        return f"We found no significant difference between the {label} and the baseline (corrected p = {p_text(adjusted)})."
    direction = "better" if difference.mean > 0 else "worse"
    return f"{label.capitalize()} ranks significantly {direction} than the baseline (corrected p = {p_text(adjusted)})."


def calibration_lines(bases: Sequence[Base]) -> list[str]:
    """How far the damage is from what the rehearsal predicts, in nats."""
    rows = calibration(bases)
    errors = [float(np.sqrt(np.mean((predicted - damage) ** 2))) for _, predicted, damage in rows]
    spread = [float(np.std(damage)) for _, _, damage in rows]
    return [
        f"The rehearsal does {'' if np.mean(errors) < np.mean(spread) else 'not '}forecast the damage in nats. A line fitted on all other bases "
        f"misses a set's damage by {np.mean(errors):.1f} nats (root mean square, mean over bases). The mean damage of the base's own sets would "
        f"miss it by {np.mean(spread):.1f}. Bases differ in how much the same rehearsal means.",
    ]


def _predictor_row(
    bases: Sequence[Base], found: Mapping[str, Estimate], differences: Mapping[str, Estimate], name: str
) -> str:
    estimate = found[name]
    share = regret(bases, name)[1]
    difference = _interval(differences[name]) if name in differences else ""
    extremes = f"{number_text(min(estimate.by_base))} to {number_text(max(estimate.by_base))}"
    return f"| {LABELS[name]} | {_interval(estimate)} | {extremes} | {difference} | {share.mean:.2f} |"


def _combination_rows(bases: Sequence[Base], found: Mapping[str, Estimate]) -> list[str]:
    combined = {name: combination_correlations(bases, names) for name, names in COMBINATIONS.items()}
    differences = differences_from_baseline({**combined, BASELINE: found[BASELINE]})
    return [f"| {name} | {_interval(one)} | {_interval(differences[name])} |" for name, one in combined.items()]


def _interval(estimate: Estimate) -> str:
    return interval_text(estimate.mean, estimate.low, estimate.high)


def _plain(name: str) -> str:
    return LABELS[name].partition(": ")[2] or LABELS[name]


def _quartiles(bases: Sequence[Base]) -> str:
    low, middle, high = np.percentile(np.concatenate([base.damage for base in bases]), [25, 50, 75])
    return f"{low:.1f}, {middle:.1f} and {high:.1f}"


def _results_hash() -> str:
    return hashlib.sha256(RESULTS.read_bytes()).hexdigest()[:16]


def draw_figure(found: Mapping[str, Estimate], file: Path) -> None:
    """Dots of the bases, and mean with interval, for each predictor from best to worst."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted(PREDICTORS, key=lambda name: found[name].mean)
    with plt.rc_context({"svg.hashsalt": "prediction", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7.2, 5.4), layout="constrained")
        for row, name in enumerate(names):
            estimate = found[name]
            color = "#b3261e" if name in PRIMARY else "#1f4e79" if name == BASELINE else "#555555"
            axes.plot(estimate.by_base, [row] * len(estimate.by_base), "o", color=color, alpha=0.25, markersize=4)
            axes.plot([estimate.low, estimate.high], [row, row], color=color, linewidth=2)
            axes.plot([estimate.mean], [row], "o", color=color, markersize=6)
        axes.set_yticks(range(len(names)), [LABELS[name].replace("`", "") for name in names])
        axes.axvline(0, color="black", linewidth=0.8)
        axes.axvline(found[BASELINE].mean, color="#1f4e79", linewidth=0.8, linestyle=":")
        axes.set_xlabel("rank correlation with the damage")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(file, metadata={"Date": None})
        plt.close(figure)
