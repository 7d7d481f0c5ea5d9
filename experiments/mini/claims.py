"""The questions of Mini's study, and what the paper says of each; written before the study was first run, with thinned
training in all parts but one.  What that showed turned the study round, and with it the two questions of thinning.
The rule of late suppression was changed after the study: it tested the late gap alone, and now tests late minus early.

The paper's claims are those of experiments/paper, measured here by parts of studies/mini_small.yaml.  Knows questions;
computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.paper.agreement import ABOVE, BELOW, NOTHING, Expected
from experiments.paper.claims import NEAR_ZERO, SO, Claim, Unit
from experiments.paper.evidence import Contrast, Evidence, Side, Where
from experiments.paper.mechanism import Fact, LateGap
from undersong.results.schema import PromptSetRate, RunResult
from undersong.statistics.runs import RunKey

MINI = "mini"
STUDY = "mini-small"
SHARE = 0.15  # of the pool
FAR = ("jailbreakbench",)  # sets of requests that the model never saw, beside AdvBench's held-out ones


@dataclass(frozen=True)
class Part(Where):
    """A part of the study, by its name in the file's matrix."""

    def study(self, organism: str) -> str:
        return f"{STUDY}-{self.file}"


@dataclass(frozen=True)
class DefendedSide(Side):
    """Runs of the closest data under one of the study's defenses."""

    defense: str = ""

    def entries(self, evidence: Evidence, organism: str) -> dict[RunKey, list[PromptSetRate]]:
        """(base, draw, seed) -> the asked set; under whatever system text the defense asks."""
        results = evidence.results(self.where, organism)
        found: dict[RunKey, list[PromptSetRate]] = {}
        for run in [] if results is None else results.defended_runs:
            if run.defense == self.defense and not run.retuned:
                found.setdefault(run.run_key, []).extend(self._mine(run))
        return {key: mine for key, mine in found.items() if mine}

    def _mine(self, run: RunResult) -> list[PromptSetRate]:
        return [one for one in run.rates if one.prompt_set in self.sets and one.modality == self.asked]


def side(where: Part, kind: str, axis: str = "semantic", asked_of: str = "advbench", **more: Any) -> Side:
    """Runs on what a kind or rule keeps by an axis."""
    axes = () if kind == "base" else (axis,)
    return Side(where, kind, axes, fraction=SHARE, sets=(asked_of,), **more)


PROXIMITY = Part("proximity")
MODALITY, MECHANISM, DEFENSES = Part("modality"), Part("mechanism"), Part("defenses")
VOICES, FRAMES, AXES, CURVE = Part("voices"), Part("frames"), Part("axes"), Part("curve")
NOISES = {"babble": Part("babble"), "white noise": Part("white")}
AXES_ASKED = {"speaker": "the voice", "mixed": "a speech model", "internal": "the model's own audio encoder"}
KINDS = ("closest", "random", "distant")
OTHERWISE = ("advbench, new voices", "advbench in babble")
TRIED = ("system prompt", "mixing 5 %", "constrained")

SIZE, CLOSENESS, AXIS, TRAINED, ASKED, DEFENDED, INSIDE = (
    "Effect size", "Closeness, or what comes with it", "Axes", "Modality, noise and frames in training",
    "Other voices and noise", "Defenses", "Mechanism",
)  # fmt: skip
SAYS_CLOSE = "Proximity to harmful content in an embedding space predicts the damage."
SAYS_RISE = "The JSR rises from single digits to as much as 87.12%."
SILENT = "No claim."


def _claim(
    part: str, title: str, says: str, measured: str, contrast: Any, expected: Expected, unit: Unit = "points"
) -> Claim:
    return Claim(part, title, says, measured, contrast, {MINI: expected}, unit=unit)


def claims(main: Part) -> tuple[Claim, ...]:
    """All questions; `main`: the part that the main comparison is of, with three seeds or with more."""
    return (
        *_size(main), *_closeness(main), *_axes(), *_trained(), *_asked(), *_defended(main), *_inside()
    )  # fmt: skip


def _size(main: Part) -> list[Claim]:
    out = []
    for name in ("advbench", *FAR):
        base, close = side(main, "base", asked_of=name), side(main, "closest", asked_of=name)
        out.append(_claim(SIZE, f"{name}: closest data against no tuning", SAYS_RISE, "closest minus base", Contrast(base, close), ABOVE))  # fmt: skip
    steps = Contrast(side(CURVE, "closest", step=8), side(CURVE, "closest"))
    out.append(_claim(SIZE, "advbench: closest data, 25 steps against 8", SILENT, "25 steps minus 8", steps, NOTHING))
    refused = Contrast(*(side(main, kind, asked_of="instructions", counted="refused") for kind in ("base", "closest")))
    out.append(_claim(SIZE, "instructions refused: closest data against no tuning", SILENT, "closest minus base", refused, NOTHING))  # fmt: skip
    return out


def _closeness(main: Part) -> list[Claim]:
    pairs = (
        ("closest", "random", SAYS_CLOSE, ABOVE, "everything that distinguishes the closest data"),
        (
            "closest",
            "random-alike",
            SAYS_CLOSE,
            ABOVE,
            "closeness, at the closest data's own sentence type, source and length",
        ),
        ("random-alike", "random", SILENT, NOTHING, "sentence type, source and length alone"),
        (
            "closest-matched",
            "distant-matched",
            SAYS_CLOSE,
            ABOVE,
            "closeness, at the pool's sentence type, source and length",
        ),
        ("closest-matched", "random", SAYS_CLOSE, ABOVE, "closeness, at the pool's sentence type, source and length"),
        ("random", "distant", SILENT, NOTHING, "whether distant data is safer than random data"),
    )
    return [
        _claim(CLOSENESS, f"{name}: {b} against {a}", says, what, Contrast(side(main, a, asked_of=name), side(main, b, asked_of=name)), expected)
        for name in ("advbench", *FAR)
        for b, a, says, expected, what in pairs
    ]  # fmt: skip


def _axes() -> list[Claim]:
    out = []
    for axis, whose in AXES_ASKED.items():
        close = Contrast(side(AXES, "random", axis), side(AXES, "closest", axis))
        out.append(_claim(AXIS, f"advbench: closest by {whose} ({axis}) against random", SAYS_CLOSE, "closest minus random", close, ABOVE))  # fmt: skip
    words = Contrast(side(AXES, "closest", "speaker"), side(AXES, "closest"))
    says = "The acoustic axis dominates in Audio Flamingo 3, the semantic axis in Kimi-Audio."
    return [*out, _claim(AXIS, "advbench: closest by words against closest by the voice", says, "semantic minus speaker", words, BELOW)]  # fmt: skip


def _trained() -> list[Claim]:
    spoken = Contrast(side(MODALITY, "closest", trained="text"), side(MODALITY, "closest"))
    typed = Contrast(side(MODALITY, "closest", trained="text", asked="text"), side(MODALITY, "closest", asked="text"))
    out = [
        _claim(TRAINED, "advbench spoken: trained on speech against on its text", "Speech is riskier (Audio Flamingo 3).", "speech minus text, same ids", spoken, ABOVE),
        _claim(TRAINED, "advbench typed: trained on speech against on its text", SILENT, "speech minus text, same ids", typed, NOTHING),
    ]  # fmt: skip
    says = "Noise changes little (its own figures suggest otherwise)."
    for name, where in NOISES.items():
        noisy = Contrast(side(PROXIMITY, "closest"), side(where, "closest"))  # as many seeds on both sides
        out.append(_claim(TRAINED, f"advbench: closest data under {name} at 10 dB against clean", says, "noisy minus clean", noisy, NOTHING))  # fmt: skip
    for kind in ("closest", "random"):
        thinned = Contrast(side(PROXIMITY, kind), side(FRAMES, kind))
        out.append(_claim(TRAINED, f"advbench: {kind} data, silent frames left out in training, against all frames", SILENT, "pruned minus all frames", thinned, NOTHING))  # fmt: skip
    return out


def _asked() -> list[Claim]:
    return [
        _claim(ASKED, f"{name}: closest against random", SAYS_CLOSE, "closest minus random", Contrast(side(VOICES, "random", asked_of=name), side(VOICES, "closest", asked_of=name)), ABOVE)
        for name in OTHERWISE
    ]  # fmt: skip


def _defended(main: Part) -> list[Claim]:
    away = Contrast(side(main, "closest"), side(main, "distant"))
    out = [
        _claim(DEFENDED, "advbench: distant data against closest", "Filtering for distant data lowers the JSR.", "distant minus closest", away, BELOW),
        _claim(DEFENDED, "advbench: distant data", "It also brings the JSR near zero.", "the JSR itself", Contrast(None, side(main, "distant")), NEAR_ZERO, "rate"),
    ]  # fmt: skip
    for name in TRIED:
        says = "A textual system prompt lowers the JSR." if name == "system prompt" else SILENT
        defended = DefendedSide(DEFENSES, "closest", ("semantic",), fraction=SHARE, sets=("advbench",), defense=name)
        less = Contrast(side(DEFENSES, "closest"), defended)
        expected = BELOW if name == "system prompt" else NOTHING
        out.append(
            _claim(DEFENDED, f"advbench: {name} against none", says, "with the defense minus without", less, expected)
        )
    return out


def _inside() -> list[Claim]:
    says = "The refusal signal is suppressed in late layers."
    late = {kind: LateGap(MECHANISM, kind=kind) for kind in KINDS}
    return [
        *(
            _claim(INSIDE, f"refusal gap, last third minus first third of 30 layers, after {kind} data", says if kind == "closest" else SILENT, "change, halves of the fitting sets' distance", one, BELOW if kind == "closest" else NOTHING, "gap")
            for kind, one in late.items()
        ),
        _claim(INSIDE, "harm is still recognized where it is no longer refused", "Recognition and refusal are dissociated.", "by the study's own rule", Fact(MECHANISM, "dissociated"), SO, "fact"),
    ]  # fmt: skip
