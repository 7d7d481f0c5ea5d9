"""docs/results/paper.md: the claims with what the paper says, what the organisms show, and whether it agrees.

The same results give the same page.  Whatever comes out of a results file is escaped.  Knows answers; decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experiments.paper.agreement import LEVEL
from experiments.paper.answers import Answered, answered
from experiments.paper.base_card import base_lines
from experiments.paper.claims import CLAIMS, MARGIN, NEAR_ZERO, ORGANISMS
from experiments.paper.confirmation import confirmation_lines
from experiments.paper.designs import CONFIRMATION, DEMO_DOSE, LAYERS, BasesDesign, Design, accepted_bases
from experiments.paper.evidence import Evidence
from experiments.paper.late_layers import late_layer_lines, layer_claims, with_layers
from experiments.paper.other_dose import other_dose_lines
from experiments.paper.provenance import Made, made_of
from experiments.paper.tables import (
    Families,
    beside_lines,
    brief,
    charged_lines,
    detectable_lines,
    families,
    part_lines,
    promised_lines,
)
from undersong.pages.markdown_table import escape_markdown, markdown_table

LIMITS = (
    "The organisms live in a closed world of 82 words, six voices and one pool. They show that an effect exists in the "
    "real classes, and that the measurements detect it. They cannot show how large it is in a real model, or which real "
    "architecture is safer. In a closed vocabulary the semantic axis is near-perfect by construction.",
    "Their recipe was chosen on a development world, in the knowledge that it can be broken. Their card lists everything "
    "that was tried.",
    "Bases of one architecture differ widely: `kimi-1` and `kimi-2` hardly change where `kimi` breaks. A conclusion over "
    "runs of one base is therefore about that base, and a conclusion over bases is about this recipe of bases. "
    "`studies/organism/architecture.yaml` compares architectures.",
    "No organism heard noise before the arms that are trained under noise. Their loss stays far above that of the clean "
    "arms, so noise here is a larger update as well as a different sound.",
    "The JSR covers 36 requests in three voices, judged exactly, over all prompts. AdvBench and SafetyBench are other "
    "requests with another judge. Compare only signs with the published figures, never levels.",
)
NOT_HERE = (
    "The frozen encoder: undersong stops any training that changes it, so it cannot test this claim. Until November 2026 it was "
    "counted as reproduced.",
    "Table 3 (GammaCorpus, MMSU): the closed world has one benign corpus to select from.",
    "The four tasks of table 4: an organism cannot do BBH. Correct answers to benign requests take its place.",
    "The 87.12% in the caption of Figure 1: it is in no table, and the paper gives no setting for it.",
    "Cafe and traffic noise: pink noise takes their place.",
    "Selection by the test prompts themselves, as the paper did: undersong does not allow it, so we did not measure its "
    "effect.",
)


def page_of(design: Design, folder: Path) -> str:
    """The page on the results in `folder`.  What is not run yet is said to be missing."""
    evidence, made = Evidence(folder, design.substitutes), made_of(design, folder)
    found = answered(evidence)
    of_bases = isinstance(design, BasesDesign)
    # The design of many bases leaves parts of the paper out altogether; of the others, what is missing is not run yet.
    measured = [one for one in found if not of_bases or one.is_measured]
    by_part = _by_part(measured)
    sizes = families(found)
    told = with_layers(found, folder.with_name(LAYERS.name)) if of_bases else found
    layers = late_layer_lines(folder.with_name(LAYERS.name)) if of_bases else []
    confirmed = confirmation_lines(folder.with_name(CONFIRMATION.name)) if of_bases else []
    parts = (
        _head(design, made, told, layers), _short([one for one in told if not of_bases or one.is_measured]), _rule(sizes, layers), *(part_lines(*part, sizes) for part in by_part.items()),
        *([other_dose_lines(folder, folder.with_name(DEMO_DOSE.name))] if of_bases else []),
        *([confirmed] if confirmed else []),
        *([layers] if layers else []),
        beside_lines(evidence), charged_lines(evidence), [*detectable_lines(found), *(promised_lines(found) if of_bases else [])], _absent(design, made, found, layers), _limits(),
        *([base_lines()] if of_bases else []), _made(design, made), _sources(made),
    )  # fmt: skip
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(design: Design, made: Made, found: Sequence[Answered], layers: Sequence[str]) -> list[str]:
    elsewhere = (
        "The two claims about layers need deeper bases, and have [a section of their own](#which-layers-lose-refusal). "
        if layers
        else ""
    )
    return [
        "# Do the organisms reproduce the published claims?"
        + ("" if isinstance(design, BasesDesign) else " Packaged bases"),
        "",
        "We ran the published studies (arXiv 2604.16659) on organisms: tiny audio language models that we trained, of the classes of "
        "Audio Flamingo 3 (`af3`), Qwen2.5-Omni (`qwen`) and Kimi-Audio (`kimi`). This page compares each claim of the paper with what "
        "they show.",
        "",
        _count(found),
        "",
        f"{elsewhere}The design `{design.name}` uses {design.says}. {_base_counts(design)}The unit of analysis is the {design.unit}.",
        "",
        "“Undecided” does not mean “no effect”. For each undecided question, a table below says how many units would settle it. "
        "The section [what this design can detect](#what-this-design-can-detect) says how large an effect must be to show.",
        "",
        *_history(design, made),
        "",
        "Read the [limits](#limits) before you quote a number.",
    ]


def _base_counts(design: Design) -> str:
    """How many bases there are of each architecture."""
    if not isinstance(design, BasesDesign):
        return ""
    return f"There are {', '.join(f'{len(accepted_bases(name))} bases of {name}' for name in ORGANISMS)}. "


def _history(design: Design, made: Made) -> list[str]:
    """What was known before the studies were run."""
    registered = sum(source.registered for source in made.sources)
    if not registered:
        return [
            "We wrote down the claims, the measurement for each, and the rule for the conclusions before we ran these studies "
            "as one (`experiments/paper/`). Not everything was unknown then: 12 of the 22 corrected questions could be read off "
            "runs that earlier versions of README and the organisms' card had shown."
        ]
    return [
        f"{registered} of the {made.done} studies ran as they were registered "
        "(`experiments/paper/registration.md` and `registered.json`): claims, measurements, rule and study files were committed "
        "before the first of them ran. Earlier versions of this page had tested most claims on three packaged bases, and left "
        "12 of 14 undecided. Those bases chose the learning rates here, and no claim is tested on them. Twelve bases of "
        "each class were planned. Those of af3 from seed 113 on and of kimi from seed 110 on were added after a first version of this "
        "page had shown the results of the others.",
        "",
        "With the added bases these conclusions changed. For af3, closest data and speech against text became reproduced, and both "
        "“near zero” claims became contradicted; all had been undecided. For kimi, speech against text became significant.",
    ]


def _made(design: Design, made: Made) -> list[str]:
    cost = f"{made.cpu_seconds / 60:.0f} CPU minutes" if made.cpu_seconds else "an unknown time"
    return [
        "## How this page was made",
        "",
        f"Generated by `{design.command}` from results of {escape_markdown(made.date)}. Do not "
        f"edit it by hand. It covers {made.done} of {made.wanted} studies of `studies/organism/`, which took {cost}.",
        *(
            [
                "",
                "The results are in `experiments/paper/results.tar.xz`. `python -m experiments.paper bases --unpack` extracts "
                "them, and `python -m experiments.paper bases --page` writes this page from them again.",
            ]
            if isinstance(design, BasesDesign)
            else []
        ),
    ]


def _by_part(found: Sequence[Answered]) -> dict[str, list[Answered]]:
    """Claims by the part of the paper, in the order in which the parts begin."""
    by_part: dict[str, list[Answered]] = {}
    for one in found:
        by_part.setdefault(one.claim.part, []).append(one)
    return by_part


def _short(found: Sequence[Answered]) -> list[str]:
    rows = []
    for one in (one for mine in _by_part(found).values() for one in mine):
        cells = (brief(answer, one.claim.unit) for answer in one.answers)
        rows.append((one.claim.part, one.claim.title, *cells, one.word))
        if one.claim.depends:
            rows.append((one.claim.part, one.claim.depends, *("as above" for _ in ORGANISMS), one.depends))
    return [
        "## Summary",
        "",
        "The table gives jailbreak success rates (JSR) in percent and differences in points, with 95% intervals. An arm is one "
        "fine-tuning condition. An axis is one way of measuring distance to harmful content. The sections below say what each "
        "number measures. The intervals of rates, and of changes from a base, hold for any run noise. So they are wider than the "
        "t intervals over bases in other tables.",
        "",
        "The last column covers only organisms whose architecture the paper makes a claim about. If it makes none about any, "
        "the column covers all of them.",
        "",
        *markdown_table(("Part", "Claim", *ORGANISMS, "Conclusion"), rows),
    ]


def _count(found: Sequence[Answered]) -> str:
    """How often which word stands, of claims and of their questions."""
    claimed = [one for one in found if any(answer.expected.side != "nothing" for answer in one.answers)]
    claims = Counter([one.word for one in claimed] + [one.depends for one in claimed if one.claim.depends])
    asked = Counter(a.word for one in claimed for a in one.answers if a.expected.side != "nothing")
    return (
        f"**The paper's {claims.total()} claims:** {_listed(claims)}. They make {asked.total()} questions, one per organism: "
        f"{_listed(asked)}."
    )


def _listed(counts: Counter[str]) -> str:
    return "; ".join(f"{count} {word}" for word, count in counts.most_common())


def _rule(sizes: Families, layers: Sequence[str]) -> list[str]:
    elsewhere = ", apart from those about layers" if layers else ""
    return [
        "## How conclusions are drawn",
        "",
        "Runs are the sample (scope `recipe`). Each run gives one number, paired by base, draw and seed. The independent unit is "
        "the base if there are several, and otherwise the draw with its seed. A draw is one selection of random training data.",
        "",
        "The test is two-sided, against the paper's claim: above or below 0. “Near zero” means below "
        f"{100 * NEAR_ZERO.edge:g}%, and “little” means within {100 * MARGIN:g} points. Two trained arms are compared by a "
        "paired t-test. A rate, a difference from a base and a margin are tested by a bound that holds for any run noise. "
        "Holm's correction covers all "
        f"{sizes.said} questions on this page that are answered and on which the paper makes a claim{elsewhere}. The {sizes.silent} questions on which the paper makes no claim have a "
        "correction of their own.",
        "",
        f"- **reproduced** or **contradicted**: corrected p ≤ {LEVEL:g}, on the side that the paper claims or on the other side.",
        "- **undecided**: everything else. The result *leans* for or against the claim if the uncorrected 95% interval "
        "excludes the threshold.",
        f"- **significant**: corrected p ≤ {LEVEL:g} where the paper makes no claim.",
        "- *in part*: for some organisms, while the others are undecided or not measured.",
        "- **too shallow to tell**: the decoder has too few layers to tell late layers from early ones. Late suppression means that the "
        "refusal gap falls in late layers, and by more than in early ones.",
        "",
        "Runs that agree exactly still have run noise. The bound serves for them, too: three equal runs leave it possible that "
        "71% of all trainings give the opposite result. Three runs therefore never show a rate below 15%; it takes 23 or more.",
        "",
        "A claim that something *depends on the architecture* is reproduced if two organisms lie significantly on opposite sides "
        "of 0. Where one base stands for an architecture, this only shows that bases can differ in this way.",
    ]


def _absent(design: Design, made: Made, found: Sequence[Answered], layers: Sequence[str]) -> list[str]:
    elsewhere = {claim.title for claim in layer_claims()} if layers else set()
    titles = [one.claim.title for one in found if all(answer.found is None for answer in one.answers)]
    unanswered = [title for title in titles if title not in elsewhere]
    lines = [f"- Not run yet, and missing above: {escape_markdown(', '.join(made.missing))}."] if made.missing else []
    lines += [f"- Not answered by these results: {escape_markdown('; '.join(unanswered))}."] if unanswered else []
    if isinstance(design, BasesDesign):
        lines.append(
            "- [The reduced design](paper_reduced.md) measures them on one packaged base of each architecture."
        )
    return ["## What is not here", "", *lines, *(f"- {line}" for line in NOT_HERE)]


def _limits() -> list[str]:
    return ["## Limits", "", *(f"- {line}" for line in LIMITS)]


def _sources(made: Made) -> list[str]:
    rows = [(one.study, ", ".join(one.models), one.date, one.cpu, one.result_hash) for one in made.sources]
    return [
        "## Source studies",
        "",
        "CPU seconds cover all attempts of a study. Whatever an earlier study had already made was reused.",
        "",
        *markdown_table(("study", "bases", "date", "CPU s", "result hash"), rows),
    ]


assert len({claim.title for claim in CLAIMS}) == len(CLAIMS), "answers go by their claim's title"
