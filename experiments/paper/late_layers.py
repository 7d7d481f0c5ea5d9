"""The section on the design `layers`: where refusal is lost in bases of 8 layers, and whether harm is still recognized."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from experiments.paper import designs
from experiments.paper.agreement import TOO_FEW, Estimate, Expected
from experiments.paper.answers import Answered, answered
from experiments.paper.claims import CLAIMS, INSIDE, MECHANISM, Claim
from experiments.paper.designs import LAYERS
from experiments.paper.evidence import Evidence
from experiments.paper.mechanism import LateGap, RetainedRecognition
from experiments.paper.provenance import made_of
from experiments.paper.tables import families, part_lines
from undersong.pages import formatting
from undersong.pages.markdown_table import markdown_table
from undersong.results.schema import Results, RunResult

FEWEST_BASES = 8  # registration.md: with fewer, results stand as estimates

RECOGNITION = Claim(
    INSIDE,
    "Harm is still recognized where it is no longer refused",
    "A later revision describes a dissociation of recognition and refusal.",
    "Change of the balanced accuracy of late probes for harm, for spoken prompts, after training on the closest 25% of the "
    "speech. Refusals must fall, too: of the p values of both, the larger counts",
    RetainedRecognition(MECHANISM),
    dict.fromkeys(LAYERS.architectures, Expected("above", -0.10)),
)


def layer_claims() -> tuple[Claim, ...]:
    """The two claims that need early and late layers."""
    return (next(claim for claim in CLAIMS if isinstance(claim.contrast, LateGap)), RECOGNITION)


def answered_by_layers(evidence: Evidence) -> list[Answered]:
    """Both claims answered; an estimate of too few bases is no more than that."""
    return [
        replace(one, answers=tuple(replace(answer, found=_without_decision(answer.found)) for answer in one.answers))
        for one in answered(evidence, layer_claims(), LAYERS.architectures)
    ]


def with_layers(found: Sequence[Answered], folder: Path) -> list[Answered]:
    """Answers of a page on 4-layer bases, with those of the deeper bases where these decide.

    Args:
        found: Answers of the other design.
        folder: Results of the design `layers`.
    """
    deeper = {one.claim.title: one for one in answered_by_layers(Evidence(folder))}
    merged = []
    for one in found:
        answers = (
            {answer.organism: answer for answer in deeper[one.claim.title].answers} if one.claim.title in deeper else {}
        )
        if any(answer.found is not None and answer.found.note != TOO_FEW for answer in answers.values()):
            claim = deeper[one.claim.title].claim
            one = Answered(claim, tuple(answers.get(answer.organism, answer) for answer in one.answers))
        merged.append(one)
    return merged


def _without_decision(found: Estimate | None) -> Estimate | None:
    return found if found is None or found.units >= FEWEST_BASES else replace(found, note=TOO_FEW)


def late_layer_lines(folder: Path) -> list[str]:
    """Both claims about layers, and the bases by themselves.

    Args:
        folder: Results of the design `layers`; without any the section is left out.
    """
    evidence = Evidence(folder)
    bases = {name: evidence.of_bases(MECHANISM, name) for name in LAYERS.architectures}
    if not any(bases.values()):
        return []
    found = answered_by_layers(evidence)
    made = made_of(LAYERS, folder)
    registered = sum(source.registered for source in made.sources)
    counts = ", ".join(f"{name}: {len(of_seed)} accepted of {_tried(name)} seeds" for name, of_seed in bases.items())
    few = (
        [
            "",
            f"Before the first of these studies ran we wrote that fewer than {FEWEST_BASES} bases decide nothing. So these are estimates, "
            "whatever their p values.",
        ]
        if made.done < FEWEST_BASES
        else []
    )
    _, *claims = part_lines("", found, families(found))  # without the heading of a part
    return [
        "## Which layers lose refusal?",
        "",
        "The bases of this page have 4 layers, too few to tell late layers from early ones. So we trained bases with 8 layers by the "
        f"same recipe ({counts}), and registered both claims about layers for them ({registered} of {made.done} studies ran as they "
        "were registered). Holm's correction covers these questions by themselves. The conclusions of this section are about these bases. "
        "In the summary, organisms that were not measured count, too, so a claim is reproduced there at most in part. The *refusal gap* of a "
        "layer is how far harmful and benign prompts lie apart along the difference between their mean hidden states "
        "([how it is measured](../how-to/explain-and-defend.md)).",
        *few,
        *claims,
        "",
        "### The bases by themselves",
        "",
        "Change after training on the closest 25% of the speech, for spoken prompts. JSR and accuracy are in percent; the gap's unit "
        "is half the distance between the means of harmful and benign prompts.",
        "",
        *_base_table(bases),
        "",
        "### Layer by layer",
        "",
        "Mean over bases. Layer 0 is the decoder's input.",
        "",
        *_layer_table(bases),
    ]


def _tried(architecture: str) -> int:
    """Number of seeds that were trained, accepted or not."""
    return len(json.loads((designs.BASES / f"{architecture}{LAYERS.suffix}.json").read_bytes()))


def _base_table(bases: Mapping[str, Mapping[int, Results]]) -> list[str]:
    rows = []
    for name, of_seed in bases.items():
        for seed, results in of_seed.items():
            assert results.mechanism is not None
            (late,) = (one for one in results.mechanism.late_gap_changes if one.modality == "audio")
            (known,) = (one for one in results.mechanism.harm_recognition if one.modality == "audio")
            rates = {run.step: _spoken_jsr(run) for run in results.runs}
            late_minus_early = late.late_minus_early
            rows.append(
                (
                    f"{name} {seed}", *(formatting.percent_number(rates[step]) for step in (0, max(rates))),
                    _gap(late.gap_change), _gap(late_minus_early),
                    *(formatting.percent_number(share) for share in (known.before, known.after)),
                )
            )  # fmt: skip
    heads = (
        "base", "JSR before", "JSR after", "late gap", "late minus early gap", "late probes before", "late probes after",
    )  # fmt: skip
    return markdown_table(heads, rows)


def _spoken_jsr(run: RunResult) -> float:
    entry = run.find_rate("harm", "audio", "plain")
    assert entry is not None, "the study asks it"
    return entry.rate


def _gap(value: float | None) -> str:
    return formatting.MISSING if value is None else formatting.decimal(value, 2)


def _layer_table(bases: Mapping[str, Mapping[int, Results]]) -> list[str]:
    layers: dict[int, list[tuple[float, float, float]]] = {}
    for results in (one for of_seed in bases.values() for one in of_seed.values()):
        assert results.mechanism is not None
        for one in results.mechanism.layer_measurements:
            if one.step and one.modality == "audio" and one.gap is not None and one.gap_before is not None:
                assert one.harm_accuracy is not None
                layers.setdefault(one.layer, []).append((one.gap_before, one.gap, one.harm_accuracy))
    rows = []
    for layer, values in sorted(layers.items()):
        before, after, accuracy = (fmean(column) for column in zip(*values))
        rows.append((str(layer), _gap(before), _gap(after), _gap(after - before), formatting.percent_number(accuracy)))
    heads = ("layer", "gap before", "gap after", "change", "probe for harm after, %")
    return markdown_table(heads, rows)
