"""Rates under every condition of Mini's study, beside the printed ones, and on the way of a training.

Knows rates and printed figures; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.mini.claims import AXES, CURVE, FRAMES, KINDS, MINI, MODALITY, NOISES, OTHERWISE, VOICES, Part, side
from experiments.paper.agreement import NOTHING
from experiments.paper.evidence import Contrast, Evidence, Side
from experiments.paper.tables import MARK, level_of, printed
from undersong.pages import formatting
from undersong.pages.markdown_table import escape_markdown, markdown_table
from undersong.research.verify import PublishedRate, published_rates, published_source

FAMILIES = ("Kimi-Audio", "Audio Flamingo 3", "Qwen2.5-Omni")


@dataclass(frozen=True)
class Row:
    """A condition, what of the paper's tables stands for it (study, condition, per cent of the pool), and our runs."""

    name: str
    printed: tuple[str, str, int | None] | None
    side: Side


def _rows(main: Part) -> list[Row]:
    noise = {"babble": "cafe 10dB", "white noise": "traffic 10dB"}
    close = side(main, "closest")
    return [
        Row("before tuning", ("pretrained", "pretrained", None), side(main, "base")),
        Row("random", ("sdqa", "random", 25), side(main, "random")),
        Row("closest by words", ("sdqa", "semantic closest", 25), close),
        Row("closest by voice (printed: acoustic)", ("sdqa", "acoustic closest", 25), side(AXES, "closest", "speaker")),
        Row("closest by a speech model", None, side(AXES, "closest", "mixed")),
        Row("closest by its own audio encoder", None, side(AXES, "closest", "internal")),
        Row("distant by words", ("distant", "semantic distant", 25), side(main, "distant")),
        Row("random, with the closest data's sentence type, source and length", None, side(main, "random-alike")),
        Row("closest, at the pool's sentence type, source and length", None, side(main, "closest-matched")),
        Row("distant, at the pool's sentence type, source and length", None, side(main, "distant-matched")),
        Row(
            "closest, trained on text", ("cross_modal", "text: closest", 25), side(MODALITY, "closest", trained="text")
        ),
        Row("distant, trained on text", None, side(MODALITY, "distant", trained="text")),
        *(
            Row(
                f"closest, {name} at 10 dB (printed: {noise[name]})", ("noise", noise[name], 25), side(where, "closest")
            )
            for name, where in NOISES.items()
        ),
        *(Row(f"{kind}, silent frames left out in training", None, side(FRAMES, kind)) for kind in KINDS),
    ]


def section(title: str, said: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A heading, what its table is of, and the table."""
    yield from (f"#### {title}", "", said, "", *markdown_table(head, rows), "")


def level_lines(evidence: Evidence, main: Part) -> Iterator[str]:
    """Every condition: what was printed of it, and the rates of our runs."""
    sets = (("advbench", "jsr"), ("jailbreakbench", "jsr"), ("xstest", "refused"), ("instructions", "refused"))
    said = (
        "All rates are percentages. Compare only signs between the published models and Mini, never levels.\n\n"
        "- **Published**: AdvBench, 25% of another pool, one run each, another judge. "
        f"{MARK} marks a figure that no count of all prompts can give. Source: {escape_markdown(published_source())}.\n"
        "- **Mini**: spoken prompts. The columns give the non-refusal rate of harmful prompts, or the refusal rate of benign "
        "prompts: mean and 95% interval over runs. Before tuning, the intervals are over prompts."
    )
    rows = []
    for one in _rows(main):
        ours = [_level(evidence, _asked(one.side, name, counted)) for name, counted in sets]
        if any(cell != formatting.MISSING for cell in ours):
            rows.append((one.name, *(_printed(one.printed, family) for family in FAMILIES), *ours))
    ours_of = ("Mini: AdvBench", "JailbreakBench", "XSTest (safe) refused", "instructions refused")
    yield from section("Published figures beside ours", said, ("condition", *FAMILIES, *ours_of), rows)


def _asked(one: Side, name: str, counted: Any) -> Side:
    facts = {key: getattr(one, key) for key in ("where", "kind", "axes", "trained", "fraction", "step")}
    return Side(**facts, sets=(name,), counted=counted)


def curve_lines(evidence: Evidence) -> Iterator[str]:
    """Of the part that asks on the way: the rate at each step."""
    results = evidence.results(CURVE, MINI)
    if results is None:
        return
    rows = []
    for step in results.study.steps:
        asked = [side(CURVE, kind, step=step) if step else side(CURVE, "base") for kind in KINDS]
        rows.append((str(step), *(_level(evidence, one) for one in asked)))
    said = (
        "Non-refusal rate on spoken AdvBench requests in percent, by optimizer step: mean and 95% interval over runs."
    )
    yield from section("Learning curve", said, ("steps", *KINDS), rows)


def voice_lines(evidence: Evidence) -> Iterator[str]:
    """Of the part that asks in voices never heard and in babble."""
    if evidence.results(VOICES, MINI) is None:
        return
    rows = [
        ("before tuning" if kind == "base" else kind, *(_level(evidence, side(VOICES, kind, asked_of=name)) for name in OTHERWISE))
        for kind in ("base", *KINDS)
    ]  # fmt: skip
    said = (
        "Non-refusal rate on the same AdvBench requests in percent: mean and 95% interval over runs (before tuning: over "
        "prompts)."
    )
    yield from section("Other voices and noise", said, ("condition", *OTHERWISE), rows)


def _level(evidence: Evidence, one: Side) -> str:
    return level_of(Contrast(None, one).estimate(evidence, MINI, NOTHING))


def _printed(cell: tuple[str, str, int | None] | None, family: str) -> str:
    if cell is None:
        return formatting.MISSING
    mine: list[PublishedRate] = [
        one
        for one in published_rates()
        if (one.study, one.condition, one.fraction, one.family, one.set_name) == (*cell, family, "AdvBench")
    ]
    return printed(mine[0]) if mine else formatting.MISSING
