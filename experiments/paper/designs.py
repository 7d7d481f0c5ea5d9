"""Which studies of studies/organism/ are run, in which order, and how much of each.

Three designs: a part of the studies on many bases (the claims are tested on it), a part on three bases, and the whole.
Knows study files; runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from undersong.study.load import load_studies, with_models
from undersong.study.schema import Study
from undersong.types import UndersongError

STUDIES = Path(__file__).parents[2] / "studies" / "organism"
# What others have in common comes first, so that a killed run leaves the most behind.
FILES = (
    "pretrained",
    "sdqa",
    "distant",
    "system",
    "bbh",
    "cross_modal",
    "mechanism",
    "noise",
    "dose",
    "targets",
    "rate",
)


RUN_OFFSET = 1000  # between the seeds of the runs on one base; larger than any base's seed
BASES = Path("out/organisms/bases/shipped")  # of `python -m recipes.organisms.bases`


@dataclass(frozen=True)
class Design:
    """A part of the study files.

    Attributes:
        name: Name on the command line.
        says: What the design uses, for the page.
        unit: Independent unit that a conclusion is about.
        command: Command that runs it.
        sets: Values laid over every study file.
        bases: Number of packaged bases of each architecture; None: all.
    """

    name: str
    says: str
    unit: str
    command: str
    sets: tuple[str, ...] = ()
    bases: int | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The study files, in their order."""
        return FILES

    @property
    def substitutes(self) -> Mapping[str, str]:
        """Study file or file and variant that a claim names -> the file that has the same arms in this design."""
        return {}

    def studies(self, file: str) -> list[Study]:
        """The studies of a file in this design, an architecture each."""
        found = load_studies(STUDIES / f"{file}.yaml", self.sets).studies
        return [with_models(one, *one.models[: self.bases]) for one in found]


@dataclass(frozen=True)
class BasesDesign(Design):
    """One study for each trained base, so that each has training seeds and random data of its own.

    Attributes:
        learning_rates: Architecture -> learning rate, by the rule of studies/organism/dose_pilot.yaml.
        overrides: Study file -> further values laid over it.
        variants: Study file with a matrix of its own -> the one variant that is run.
        architectures: Architectures that are run; the others need not be trained yet.
        suffix: What the name of the list of bases has after the architecture, such as `-8-layers`.
        runs_per_base: Training runs of each arm on a base; each has random data of its own.
    """

    learning_rates: Mapping[str, float] = field(default_factory=dict)
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)
    architectures: tuple[str, ...] = ("af3", "qwen", "kimi")
    suffix: str = ""
    runs_per_base: int = 1

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self.overrides)

    @property
    def substitutes(self) -> Mapping[str, str]:
        # `distant` holds the closest, distant and random arms of all axes under both system prompts, without noise.
        return dict.fromkeys(("pretrained", "sdqa", "system", "bbh", "noise-clean"), "distant")

    def studies(self, file: str) -> list[Study]:
        """The studies of a file, a base each."""
        studies = []
        for study in load_studies(STUDIES / f"{file}.yaml", (*self.sets, *self.overrides[file])).studies:
            if not study.study.endswith(self.variants.get(file, "")):
                continue
            architecture = study.models[0].removeprefix("organism:")
            if architecture not in self.architectures:
                continue
            if architecture not in self.learning_rates:
                raise UndersongError(f"The design {self.name} has no learning rate for {architecture}; add one to it.")
            tuning = study.tuning.model_copy(update={"learning_rate": self.learning_rates[architecture]})
            for folder in accepted_bases(architecture + self.suffix):
                seed = int(folder.name.rpartition("-")[2])
                runs = tuple(seed + RUN_OFFSET * number for number in range(self.runs_per_base))
                studies.append(
                    study.model_copy(
                        update={
                            "study": f"{study.study}-{seed}",
                            "models": (str(folder),),
                            "tuning": tuning.model_copy(update={"seeds": runs, "draws": runs}),
                        }
                    )
                )
        return studies


def accepted_bases(architecture: str) -> list[Path]:
    """Model folders of the accepted bases of an architecture, in the order of their seeds.

    Raises:
        UndersongError: The list of bases is missing.
    """
    file = BASES / f"{architecture}.json"
    if not file.is_file():
        raise UndersongError(
            f"{file} is missing: no bases of {architecture} are trained; run "
            f"`python -m recipes.organisms.bases --arch {architecture}`."
        )
    return [BASES / entry["folder"] for entry in json.loads(file.read_text()) if entry["accepted"]]


FULL = Design(
    "full",
    "25, 50 and 75% of the pool, three packaged bases of each architecture, five training seeds",
    "base",
    "make paper-full",
)
REDUCED = Design(
    "reduced",
    "25% of the pool, one packaged base of each architecture, three training seeds",
    "draw with its seed",
    "make paper-reduced",
    ("selection.fractions=[0.25]", "tuning.seeds=[0,1,2]", "tuning.draws=[0,1,2]"),
    bases=1,
)
MANY_BASES = BasesDesign(
    "bases",
    "25% of the pool and many trained bases of each architecture, each with a training seed and random data of its own",
    "base",
    "make paper",
    ("selection.fractions=[0.25]", "evaluation.modalities=[audio]"),
    learning_rates={"af3": 5.6e-3, "qwen": 4e-3, "kimi": 5.6e-3},
    overrides={
        "distant": (),
        "cross_modal": ("selection.kinds=[closest]",),
        "noise": ("selection.kinds=[closest]",),
    },
    variants={"noise": "-pink"},
)
# Exploratory: the same arms at the learning rate of the demo, because the damage by distance may depend on the dose.
DEMO_DOSE = replace(
    MANY_BASES,
    name="demo-dose",
    says="the same bases at the learning rate of the demo",
    learning_rates=dict.fromkeys(MANY_BASES.learning_rates, 2e-3),
    overrides={"distant": ()},
    variants={},
)
# The claims about layers, on bases deep enough to have early and late ones.
LAYERS = replace(
    MANY_BASES,
    name="layers",
    says="bases whose decoders have 8 layers",
    command="python -m experiments.paper layers",
    overrides={"mechanism": ("selection.kinds=[closest]", "tuning.modalities=[audio]")},
    variants={},
    architectures=("qwen",),
    suffix="-8-layers",
)
# Whether closeness in words matters, tested on bases that no choice has seen (registration.md, its last addendum).
CONFIRMATION = replace(
    DEMO_DOSE,
    name="confirmation",
    says="new bases at the learning rate of the demo, closeness in words alone",
    command="python -m experiments.paper confirmation",
    overrides={"distant": ("selection.axes=[semantic]", "evaluation.system_prompts.safe=null")},
    suffix="-from-200",
    runs_per_base=3,
)
DESIGNS = {design.name: design for design in (MANY_BASES, DEMO_DOSE, LAYERS, CONFIRMATION, REDUCED, FULL)}
