"""docs/results/sound_pathway.md from `results.json`: what was asked, how, every base, the figures, the answer, the limits.

Knows the record; runs nothing, and rounds nothing that it decides by.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.sound_pathway.bases import SPOKEN, TYPED
from experiments.sound_pathway.contrast import (
    AXIS,
    COMPARISONS,
    LEAST,
    MODALITY,
    WANTED,
    Comparison,
    Estimate,
    Run,
    bases_asked,
    can_detect,
    compare,
    compare_by_seed,
    difference_sd,
    estimate,
    within_base,
)
from experiments.sound_pathway.variants import VARIANTS

PAGE = Path("docs/results/sound_pathway.md")
TEXT = Path(__file__).parent / "page_text.md"
NOTHING = "*Not measured yet.*"
FACTS = ("voice_linear", "voice_curved", "right_audio", "knows_audio", "jsr_audio", "over_refusal_audio")


def page(data: Mapping[str, Any]) -> str:
    """The whole page."""
    runs, pilots = ([Run(**run) for run in data.get(part, ())] for part in ("runs", "pilot_runs"))
    axis, modality = (within_base(runs, contrast) for contrast in (AXIS, MODALITY))
    seeds = {(one["variant"], one["base"]): one["seed"] for one in data.get("bases", ()) if one["base"] is not None}
    return TEXT.read_text().format(
        probes=probe_table(data.get("bases", ())),
        sizing=sizing(within_base(pilots, AXIS), axis),
        pilots=estimate_table(within_base(pilots, AXIS)),
        axis=estimate_table(axis),
        axis_compared=comparison_table(compare(axis)),
        axis_answer=answer(axis, compare(axis)),
        modality=estimate_table(modality),
        modality_compared=comparison_table(compare(modality)),
        axis_by_seed=comparison_table(compare_by_seed(axis, seeds)),
        modality_by_seed=comparison_table(compare_by_seed(modality, seeds)),
        sides=side_table(runs),
        within=base_table(axis, modality, data.get("bases", ())),
        seeds=seed_table(data.get("bases", ())),
        cost=cost(data),
        count=count_of(axis),
        tried=(Path(__file__).parent / "tried.md").read_text().strip(),
        steps=f"{TYPED.steps} steps of {TYPED.batch} typed rows, then {SPOKEN.steps} steps of {SPOKEN.spoken} spoken and "
        f"{SPOKEN.batch - SPOKEN.spoken} typed rows",
    )


def estimate_table(by_variant: Mapping[str, Mapping[int, float]]) -> str:
    if not by_variant:
        return NOTHING
    lines = ["| variant | bases | mean, points | 95% interval over bases | SD of bases |", "|---|---|---|---|---|"]
    for variant in _in_order(by_variant):
        one = estimate(list(by_variant[variant].values()))
        lines.append(f"| `{variant}` | {one.n} | {points(one.mean)} | {interval(one)} | {unsigned(one.sd)} |")
    return "\n".join(lines)


def comparison_table(found: list[Comparison]) -> str:
    if not found:
        return NOTHING
    paired = any(one.pairs is not None for one in found)
    lines = [f"| comparison |{' pairs |' if paired else ''} difference, points | 95% interval | p | p (Holm) |"]
    lines.append("|---" * (6 if paired else 5) + "|")
    for one in found:
        lines.append(
            f"| `{one.first}` − `{one.second}`: {one.question} |{f' {one.pairs} |' if paired else ''} {points(one.difference)} "
            f"| {interval(one)} | {p_value(one.p)} | {p_value(one.p_adjusted)} |"
        )
    return "\n".join(lines)


def answer(by_variant: Mapping[str, Mapping[int, float]], found: list[Comparison]) -> str:
    """In words, by the corrected p values and nothing else."""
    counts = {variant: len(by_variant.get(variant, ())) for variant in VARIANTS}
    too_few = {variant: count for variant, count in counts.items() if count < LEAST}
    said = ", ".join(f"`{variant}` {count}" for variant, count in too_few.items())
    if len(set(VARIANTS) - too_few.keys()) < 2 or any(too_few.values()):
        return (
            f"**Not answered yet.** The study needs {LEAST} bases of each variant, and has fewer of {said}. The figures "
            "below cover what exists, and nothing is concluded from them. The recipe resumes where it stopped."
        )
    open_still = f" Not made yet: {', '.join(too_few)}, and its comparisons." if too_few else ""
    shown = [one for one in found if one.p_adjusted is not None and one.p_adjusted < 0.05]
    leading = []
    for variant in _in_order(by_variant):
        one = estimate(list(by_variant[variant].values()))
        sure = one.low is not None and one.high is not None and (one.low > 0 or one.high < 0)
        leading.append(
            f"- `{variant}`: {'semantic' if one.mean > 0 else 'acoustic'}{'' if sure else ' (interval includes 0)'}"
        )
    differing = "; ".join(
        f"`{one.first}` differs from `{one.second}` by {points(one.difference)} points" for one in shown
    )
    verdict = (
        f"**We found a significant difference after correction: {differing}.**"
        if shown
        else "**We found no significant difference between the variants.**\n"
        "Nothing in these organisms, at this size, shows that the dominant axis depends on how sound enters the language model."
    )
    return "\n".join((f"{verdict}{open_still}", "", "The axis with the larger average effect:", "", *leading))


def sizing(pilots: Mapping[str, Mapping[int, float]], final: Mapping[str, Mapping[int, float]]) -> str:
    """What the pilots asked for, what was made, what that can detect."""
    accept, test = "of the accept split", "of the test split"
    spreads = {accept: difference_sd(pilots), test: difference_sd(final)}
    said = []
    if (sd := spreads[accept]) is not None:
        counts = ", ".join(f"{len(bases)} `{name}`" for name, bases in pilots.items())
        asked = bases_asked(sd)
        said.append(
            f"The pilot had these bases: {counts}. On the accept split, bases of two variants differ in the contrast by "
            f"{unsigned(sd)} points (pooled SD). We wanted to detect a difference of {unsigned(WANTED)} points with 80% power, "
            f"corrected for {len(COMPARISONS)} comparisons. That takes **{'more than 10,000' if asked is None else asked} bases "
            "per variant**. The calculation is that of `undersong plan --run-sd`, which is for pairs and so gives slightly "
            "too many."
        )
    made = min((len(bases) for bases in final.values()), default=LEAST)
    if final:
        said.append(f"We made these bases: {', '.join(f'{len(bases)} `{name}`' for name, bases in final.items())}.")
    for name, sd in spreads.items():
        shown = None if sd is None else can_detect(sd, made)
        if shown is not None:
            possible = "no difference that two contrasts can show" if shown > 2 else f"{unsigned(shown)} points"
            said.append(f"At the spread {name}, {made} bases per variant detect {possible}.")
    return " ".join(said)


def side_table(runs: list[Run]) -> str:
    """Mean JSR of each kind of fine-tuning: no contrast of them between variants is meant."""
    if not runs:
        return NOTHING
    sides = sorted({(run.axis, run.trained_on) for run in runs}, key=lambda side: (side[1], side[0]))
    lines = ["| variant | " + " | ".join(f"{axis}, {trained_on}" for axis, trained_on in sides) + " |"]
    lines.append("|---" * (len(sides) + 1) + "|")
    for variant in _in_order({run.variant: 0 for run in runs}):
        cells = []
        for side in sides:
            jsrs = [run.jsr for run in runs if (run.variant, run.axis, run.trained_on) == (variant, *side)]
            cells.append(f"{100 * fmean(jsrs):.1f}" if jsrs else "–")
        lines.append(f"| `{variant}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def probe_table(bases) -> str:
    lines = ["| variant | linear probe, % | curved probe, % |", "|---|---|---|"]
    kept = [one for one in bases if one["base"] is not None]
    for variant in _in_order({one["variant"]: 0 for one in kept}):
        mine = [one for one in kept if one["variant"] == variant]
        cells = [spread([one[name] for one in mine]) for name in ("voice_linear", "voice_curved")]
        lines.append(f"| `{variant}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def base_table(axis, modality, bases) -> str:
    if not axis:
        return NOTHING
    voice = {(one["variant"], one["base"]): one["voice_linear"] for one in bases}
    lines = ["| base | voice probe, % | semantic − acoustic | speech − text |", "|---|---|---|---|"]
    for variant in _in_order(axis):
        for base, value in axis[variant].items():
            other = modality.get(variant, {}).get(base)
            probe = 100 * voice.get((variant, base), float("nan"))
            lines.append(f"| `{variant}-{base}` | {probe:.1f} | {points(value)} | {points(other)} |")
    return "\n".join(lines)


def seed_table(bases) -> str:
    """Every seed that was trained, accepted or not."""
    lines = ["| variant, seed | " + " | ".join(name.replace("_", " ") for name in FACTS) + " | |"]
    lines.append("|---" * (len(FACTS) + 2) + "|")
    for one in sorted(bases, key=lambda one: (list(VARIANTS).index(one["variant"]), one["seed"])):
        verdict = f"rejected: {', '.join(one['fails'])}" if one["fails"] else f"accepted: base {one['base']}"
        cells = " | ".join(f"{one[name]:.3f}" for name in FACTS)
        lines.append(f"| `{one['variant']}` {one['seed']} | {cells} | {verdict} |")
    return "\n".join(lines)


def cost(data: Mapping[str, Any]) -> str:
    seconds = [one["cpu_seconds"] for one in data.get("bases", ())]
    return f"{sum(seconds) / 60:.0f} CPU minutes to train {len(seconds)} bases and to measure their quality"


def count_of(by_variant: Mapping[str, Mapping[int, float]]) -> str:
    counts = sorted({len(bases) for bases in by_variant.values()})
    return " to ".join(str(n) for n in ([counts[0], counts[-1]] if len(counts) > 1 else counts)) or "none"


def _in_order(by_variant: Mapping[str, Any]) -> list[str]:
    return [variant for variant in VARIANTS if variant in by_variant]


def spread(values: list[float]) -> str:
    return f"{100 * fmean(values):.1f} ({100 * min(values):.1f}–{100 * max(values):.1f})"


def points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}".replace("-", "−")


def unsigned(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def interval(one: Estimate | Comparison) -> str:
    return "–" if one.low is None or one.high is None else f"[{points(one.low)}, {points(one.high)}]"


def p_value(p: float | None) -> str:
    return "–" if p is None else "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")
