"""The results of Mini's study in docs/results/mini.md, between its two marks: questions, levels beside the printed ones, what was
heard, defenses, layers.  The same results give the same lines; no figure is typed.  Knows answers; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from experiments.mini.claims import (
    AXES,
    CURVE,
    DEFENSES,
    FRAMES,
    KINDS,
    MECHANISM,
    MINI,
    MODALITY,
    NOISES,
    PROXIMITY,
    SHARE,
    VOICES,
    Part,
    claims,
)
from experiments.mini.levels import curve_lines, level_lines, section, voice_lines
from experiments.paper.agreement import LEVEL, NOTHING
from experiments.paper.answers import Answered, answered
from experiments.paper.evidence import Evidence, over_runs
from experiments.paper.runner import costs_of
from experiments.paper.tables import answer_row, detectable_lines, families
from undersong.pages import formatting
from undersong.pages.markdown_table import escape_markdown, markdown_table
from undersong.report.markdown import defense_table_lines
from undersong.report.sections import comprehension
from undersong.results.schema_mechanism import LayerMeasurement
from undersong.store.atomic import write_atomic
from undersong.types import UndersongError

BEGIN, END = "<!-- study: begin; written by experiments/mini/runner.py -->", "<!-- study: end -->"
MORE = Part("seeds")
PARTS = (PROXIMITY, MODALITY, MECHANISM, DEFENSES, VOICES, *NOISES.values(), FRAMES, AXES, CURVE, MORE)
EVERY = 5  # layers between those that are told of


def write_page(study: str, out: Path, page: Path) -> None:
    """Puts the results that lie in `out` between the page's marks.  Errors: no marks, no results at all."""
    text = page.read_text(encoding="utf-8") if page.is_file() else f"{BEGIN}\n{END}\n"
    before, mark, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not mark or not ended:
        raise UndersongError(f"{page} does not say where results go; put {BEGIN} and {END} there.")
    lines = "\n".join(results_lines(study, out))
    made = f"{before}{BEGIN}\n\n{lines}\n\n{END}{after}"
    write_atomic(page, made.encode("utf-8", errors="xmlcharrefreplace"))


def results_lines(study: str, out: Path) -> list[str]:
    """The section, of what there is; what is missing is said."""
    evidence = Evidence(out)
    there = [part for part in PARTS if evidence.results(part, MINI) is not None]
    if not there:
        raise UndersongError(f"There are no results of {study} in {out}; run its study first.")
    main = MORE if MORE in there else PROXIMITY
    found = answered(evidence, claims(main), (MINI,))
    return [
        *_head(evidence, there, out), "", *_questions(found), *level_lines(evidence, main), *curve_lines(evidence),
        *voice_lines(evidence), *_heard(evidence), *_defenses(evidence), *_layers(evidence),
        *(f"##{line}" if line.startswith("## ") else line for line in detectable_lines(found)),
    ]  # fmt: skip


def _head(evidence: Evidence, there: Sequence[Part], out: Path) -> Iterator[str]:
    costs = costs_of(out)
    rows = []
    for part in there:
        results = evidence.results(part, MINI)
        assert results is not None
        made, config = results.provenance, results.study.config
        assert made is not None
        spent = costs.get(part.study(MINI))
        rows.append(
            (
                part.file, len(config["tuning"]["seeds"]), sum(run.kind != "base" for run in results.runs),
                made.dtype or "float32", made.created[:10],
                formatting.MISSING if spent is None else f"{sum(spent) / 60:.0f}", made.result_hash[:16],
            )
        )  # fmt: skip
    missing = ", ".join(part.file for part in PARTS if part not in there)
    lacking = f" Not run: {missing}." if missing else ""
    yield (
        f"Written from the results of `studies/mini_small.yaml` ({', '.join(part.file for part in there)}). Do not edit this "
        f"section by hand.{lacking} Each selection has {100 * SHARE:g}% of the pool."
    )
    yield ""
    yield from markdown_table(
        ("part", "seeds", "runs, each at its steps", "numbers", "date", "CPU minutes", "result hash"), rows
    )


def _questions(found: Sequence[Answered]) -> Iterator[str]:
    sizes = families(found)
    said = (
        "Estimates are non-refusal rates (keyword judge) in points, unless the row says otherwise. Intervals are 95% intervals "
        "over runs, paired by draw and seed. [How conclusions are drawn](paper.md#how-conclusions-are-drawn) gives the rule. "
        f"Holm's correction covers the {sizes.said} questions on which the paper makes a claim. The {sizes.silent} questions "
        "on which it makes none have a correction of their own. A result is significant at a corrected p ≤ "
        f"{LEVEL:g}.\n\nWe wrote the questions, and what the paper says about each, before the study was first run. The two "
        "questions on frame pruning were turned round after that run (`experiments/mini/claims.py`)."
    )
    part = ""
    rows: list[tuple[str, ...]] = []
    for one in found:
        (answer,) = one.answers
        _, *cells = answer_row(answer, one.claim.unit, sizes.of(answer))
        name = one.claim.part if one.claim.part != part else ""
        rows.append((name, one.claim.title, one.claim.says, one.claim.measured, *cells))
        part = one.claim.part
    heads = ("part", "question", "paper", "measured", "expected", "estimate", "95% interval", "interval over", "runs (units)", "p", "p (Holm)", "detectable", "conclusion")  # fmt: skip
    yield from section("Questions", said, heads, rows)


def _heard(evidence: Evidence) -> Iterator[str]:
    """Of the part that asks it: which non-refusals are to what was asked."""
    results = evidence.results(PROXIMITY, MINI)
    if results is None or not any(one.comprehension for run in results.runs for one in run.rates):
        return
    told = comprehension.build_comprehension_table(results)
    assert told is not None
    said = (
        "A non-refusal is no jailbreak if the model misheard the request, or if the reply is about something else. The columns "
        "give percentages: mean and 95% interval over runs ([how it is measured](../how-to/measure.md)).\n\n"
        "- **repeated**: the model repeats the request with at most every second word wrong.\n"
        "- **on topic**: the request is among the 5% of the set's requests that are nearest to the reply (MiniLM). "
        "Parentheses give the share that replies to other requests reach.\n"
        "- **comprehended**: a non-refusal that is both."
    )
    yield from section("Comprehension", said, told.head, told.rows)


def _defenses(evidence: Evidence) -> Iterator[str]:
    results = evidence.results(DEFENSES, MINI)
    if results is None:
        return
    yield "#### Defenses"
    yield ""
    yield (
        "Each cell gives a percentage: mean, 95% interval over runs, and change in points against no defense. The paper measured "
        "neither over-refusal nor what the model still learns."
    )
    yield ""
    lines, _, said = "\n".join(defense_table_lines(results.content, escape_markdown)).partition("\n\n")
    yield lines
    yield ""
    yield from (f"- {line}" for line in said.split("\n") if line)
    yield ""


def _layers(evidence: Evidence) -> Iterator[str]:
    results = evidence.results(MECHANISM, MINI)
    if results is None or results.mechanism is None:
        return
    found = results.mechanism
    last = results.study.steps[-1]
    said = (
        "Values are means over runs with 95% intervals, for spoken prompts.\n\n"
        "- **gap**: the distance between harmful and benign prompts along the base's refusal direction, in units of half the "
        "distance between the two kinds' means in the fitting sets. The table gives the gap before tuning, and its change.\n"
        "- **harmful moved**: how far the harmful prompts themselves moved along the direction. Negative values point towards "
        "what the model answers.\n"
        "- **recognized**: the balanced accuracy of a probe that was fitted on each tuned model's own states."
    )
    rows = []
    for layer in range(0, found.n_layers + 1, EVERY):
        at = [one for one in found.layer_measurements if (one.layer, one.modality) == (layer, "audio")]
        (before,) = [one for one in at if one.arm == "base"]
        row = [str(layer), formatting.decimal(before.gap, 2)]
        for kind in KINDS:
            mine = [one for one in at if one.step == last and f"/{kind}/" in one.arm]
            row += _layer_cells(mine, before)
        rows.append(row)
    heads = [f"{kind}: {what}" for kind in KINDS for what in ("gap", "harmful moved", "recognized")]
    yield from section("Layers", said, ("layer", "gap before", *heads), rows)


def _layer_cells(curves: Sequence[LayerMeasurement], before: LayerMeasurement) -> list[str]:
    """Change of the gap and of harmful prompts' own place, and what a probe still tells."""
    told = [one.harm_accuracy for one in curves if one.harm_accuracy is not None]
    known = formatting.decimal(fmean(told) if told else None, 2)
    return [_change(curves, before, "gap"), _change(curves, before, "projection_harmful"), known]


def _change(curves: Sequence[LayerMeasurement], before: LayerMeasurement, key: str) -> str:
    start = getattr(before, key)
    found_at = {one.seed or 0: getattr(one, key) for one in curves}
    changes = {(0, seed, seed): value - start for seed, value in found_at.items() if value is not None}
    if not changes:
        return formatting.MISSING
    inf = float("inf")
    found = over_runs(dict.fromkeys(changes, 0.0), changes, NOTHING, (-inf, inf))
    text = formatting.decimal(found.value, 2)
    if found.low is not None:
        text += f" [{formatting.decimal(found.low, 2)}, {formatting.decimal(found.high, 2)}]"
    return text
