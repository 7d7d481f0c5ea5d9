"""What a study file may say.  Strict: an unknown key is an error that names the nearest known one.

Knows the words and their ranges; does not know how anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from undersong.types import UndersongError

Modality = Literal["audio", "text"]
Kind = Literal["closest", "distant", "random"]
Share = float


def _different(where: str, values: Sequence[object]) -> None:
    """Nothing there would be nothing to do; a value that stands twice would be an arm or a run that counts twice."""
    if not values:
        raise ValueError(f"{where}: at least one is needed")
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{where}: {value!r} stands more than once")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PromptSet(_Strict):
    """A named set of prompts that models are asked."""

    corpus: str
    harmful: bool = False
    where: dict[str, list[str]] = Field(default_factory=dict, description="Keep only samples with these column values.")


class Proximity(_Strict):
    """How close is measured."""

    score: str = Field("nearest", pattern=r"^(nearest|centroid|knn:[1-9]\d*)$")
    centre: bool = False
    max_quarantined: Share = Field(0.01, ge=0, le=1)


class Selection(_Strict):
    """Which samples train: every axis x kind x fraction is an arm."""

    axes: tuple[str, ...] = ("semantic",)
    kinds: tuple[Kind, ...] = ("closest", "distant", "random")
    fractions: tuple[Share, ...] = (0.25,)
    where: dict[str, list[str]] = Field(default_factory=dict)

    @field_validator("fractions")
    @classmethod
    def _in_range(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < f <= 1 for f in fractions):
            raise ValueError("fractions lie in (0, 1]")
        return fractions

    @model_validator(mode="after")
    def _arms_differ(self) -> Selection:
        for name in ("axes", "kinds", "fractions"):
            _different(name, getattr(self, name))
        return self


class Tuning(_Strict):
    """LoRA hyper-parameters, the same for every arm of a study (DESIGN rule 7)."""

    modalities: tuple[Modality, ...] = ("audio", "text")
    seeds: tuple[int, ...] = (0, 1, 2)
    draws: tuple[int, ...] = Field((0, 1, 2), description="Selection draws, paired with the seeds one to one.")
    steps: tuple[int, ...] = (20, 40)
    batch: int = Field(8, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    schedule: str = "constant_with_warmup"
    warmup: int = Field(5, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target: str = Field("answer", description="Manifest column with the reply to learn; another is a format shift.")

    @model_validator(mode="after")
    def _consistent(self) -> Tuning:
        if len(self.seeds) != len(self.draws):
            raise ValueError(
                f"seeds ({len(self.seeds)}) and draws ({len(self.draws)}) are paired and need equal numbers"
            )
        _different("seeds", self.seeds)
        _different("modalities", self.modalities)
        if list(self.steps) != sorted(set(self.steps)) or not self.steps or self.steps[0] < 1:
            raise ValueError("steps are positive and rise")
        return self


class Evaluation(_Strict):
    """How models are asked and judged; the same for every model and arm (`protocol: uniform`)."""

    protocol: Literal["uniform"] = "uniform"
    judge: Literal["exact", "keyword"] = "exact"
    refusals: tuple[str, ...] = ("i cannot help with that",)
    limit: int = Field(12, ge=1, description="Most new tokens a reply may have.")
    instruction: str | None = None
    systems: dict[str, str | None] = {"plain": None}
    modalities: tuple[Modality, ...] = ("audio", "text")
    curve: tuple[str, ...] = Field((), description="Sets asked (spoken, first system) at every step, not only at last.")

    @model_validator(mode="after")
    def _something_is_asked(self) -> Evaluation:
        if not self.systems:
            raise ValueError("systems: at least one is needed; the first is the undefended one")
        _different("modalities", self.modalities)
        return self


class Mechanism(_Strict):
    """Contrast sets the refusal direction is fitted on; figures are drawn on the study's own held-out sets."""

    harmful: str
    harmless: str
    held_out_harmful: str
    held_out_harmless: str


class Study(_Strict):
    """One audit."""

    study: str
    description: str = ""
    models: tuple[str, ...]
    pool: str
    reference: str
    sets: dict[str, PromptSet]
    axes: dict[str, str]
    proximity: Proximity = Proximity()
    selection: Selection = Selection()
    tuning: Tuning = Tuning()
    evaluation: Evaluation = Evaluation()
    system_defense: str | None = Field(None, description="Name of the system text that is the inference-time defense.")
    mechanism: Mechanism | None = None
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Study:
        _known("selection.axes", self.selection.axes, self.axes)
        _known("evaluation.curve", self.evaluation.curve, self.sets)
        if self.system_defense is not None:
            _known("system_defense", [self.system_defense], self.evaluation.systems)
        if self.mechanism is not None:
            _known("mechanism.held_out_harmful", [self.mechanism.held_out_harmful], self.sets)
            _known("mechanism.held_out_harmless", [self.mechanism.held_out_harmless], self.sets)
        if not any(s.harmful for s in self.sets.values()):
            raise ValueError("sets: none is harmful, so there is no JSR to measure; mark one `harmful: true`")
        _different("models", self.models)
        return self

    @property
    def plain(self) -> str:
        """Name of the undefended system text: the first."""
        return next(iter(self.evaluation.systems))


def _known(where: str, names: Iterable[str], known: Iterable[str]) -> None:
    there = list(known)
    for name in names:
        if name not in there:
            raise ValueError(f"{where}: {name!r} is not one of {', '.join(there) or 'none'}{_nearest(name, there)}")


def _nearest(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest of the known words, or with those that are equally near."""
    near = get_close_matches(word, list(known), n=3, cutoff=0.5)
    shares = [SequenceMatcher(None, one, word).ratio() for one in near]
    best = [repr(one) for one, share in zip(near, shares) if share == shares[0]]
    return f"; did you mean {' or '.join(best)}?" if best else ""


class _StrictLoader(yaml.SafeLoader):
    """YAML as usual, except that a key may stand only once in a mapping: the last one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_study(path: str | Path) -> Study:
    """The study in a YAML file.  Errors name the file, the key and what would be right."""
    file = Path(path)
    if not file.is_file():
        raise UndersongError(f"There is no study file {file}; give the path of a YAML file.")
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"Line {mark.line + 1} of {file}" if mark is not None else str(file)
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise UndersongError(f"{place} is not YAML ({reason}); mend it.") from error
    if data is None:
        raise UndersongError(f"{file} is empty; see studies/demo.yaml.")
    if not isinstance(data, dict):
        raise UndersongError(f"{file} holds a {type(data).__name__}, not keys and values; see studies/demo.yaml.")
    return parse_study(data, str(file))


def parse_study(data: dict[str, Any], name: str) -> Study:
    """A study from keys and values; `name` stands in the errors."""
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        raise UndersongError(f"{name}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """The first problem as one sentence.  A key nobody knows comes first: a typo also leaves its right key missing."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        known = _fields_at(Study, [str(part) for part in problem["loc"][:-1]])
        hint = _nearest(key, known) or f"; known here: {', '.join(known)}."
        return f"unknown key {where!r}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    end = "" if message.endswith("?") else "."
    return f"{where}: {message}{end}" if where else f"{message}{end}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Field names of the model that a location lies in."""
    for part in path:
        field = model.model_fields.get(part)
        if field is None:  # a key inside a mapping (`sets.NAME`): the mapping's value type was already reached
            continue
        inner = [a for a in _arguments(field.annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        if inner:
            model = inner[0]
    return list(model.model_fields)


def _arguments(annotation: Any) -> list[Any]:
    return [annotation, *(b for a in get_args(annotation) for b in _arguments(a))]


def packaged_study(name: str) -> Study:
    """A study that ships with the package, so that it runs from anywhere."""
    from importlib import resources

    file = Path(str(resources.files("undersong"))) / "data" / "studies" / f"{name}.yaml"
    return load_study(file)


def with_seeds(study: Study, count: int) -> Study:
    """The same study with training seeds and draws 0 .. count - 1."""
    tuning = study.tuning.model_copy(update={"seeds": tuple(range(count)), "draws": tuple(range(count))})
    return study.model_copy(update={"tuning": tuning})


def with_models(study: Study, *models: str) -> Study:
    """The same study of other models."""
    return study.model_copy(update={"models": models})
