"""One declaration of options: the command line, the dataclass, the Python signature and the key have the same ones."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from command_line import exit_code
from typer.main import get_command

import undersong
from undersong.cli.app import app
from undersong.cli.option_fields import command_parameters_of
from undersong.models.load_options import LoadOptions
from undersong.options import Option, OptionGroup, key_values, option_fields, python_signature, takes_options
from undersong.research.probing.options import ProbeOptions
from undersong.research.probing.run import probe_key_values
from undersong.screening.check.options import CheckRequest
from undersong.screening.pool.options import ScreeningOptions, ScreeningRequest
from undersong.screening.pool.run import screening_key_values
from undersong.stages.engine import Engine
from undersong.stages.training import training_recipe
from undersong.standalone.evaluate import evaluation_key_values
from undersong.standalone.judge import judge_key_values
from undersong.standalone.options import EvaluationOptions, JudgeOptions, TuneOptions
from undersong.standalone.tune import tune_key_values, tuning_settings
from undersong.types import UndersongError

COMMANDS: Any = get_command(app)
VERBS = {
    "check": CheckRequest, "screen": ScreeningRequest, "tune": TuneOptions, "evaluate": EvaluationOptions,
    "judge": JudgeOptions, "probe": ProbeOptions,
}  # fmt: skip
OWN = {  # arguments that a command has beside its options: files and folders, the model, and what is no setting
    "check": {"plan"}, "screen": {"plan"}, "tune": {"manifest", "model", "out"},
    "evaluate": {"manifest", "model", "out", "adapter", "labels"},
    "judge": {"file", "out", "labels"}, "probe": {"out"},
}  # fmt: skip
PYTHON_ONLY = {"progress"}  # a function, which no command line can give
PROBE = ProbeOptions(
    adapter=Path("a"), model="m", contrast_harmful="ch", contrast_benign="cb", held_out_harmful="hh",
    held_out_benign="hb",
)  # fmt: skip


@pytest.mark.parametrize("words", [
    ("check", "d.csv", "--rehearse-learning-rate", "inf"),
    ("screen", "d.csv", "--out", "o", "--rehearse-learning-rate", "inf"),
    ("tune", "d.csv", "--model", "m", "--out", "o", "--learning-rate", "nan"),  # no smallest number refuses it
])  # fmt: skip
def test_a_number_that_is_not_finite_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*words) == 2
    assert f"{words[-2]} is {words[-1]}; give a finite number." in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("verb", VERBS)
def test_the_command_line_offers_every_field_and_no_other(verb: str) -> None:
    loading = {parameter.name for parameter in command_parameters_of(LoadOptions)}
    offered = {parameter.name for parameter in COMMANDS.commands[verb].params} - OWN[verb] - {"help"}
    expected = {parameter.name for parameter in command_parameters_of(VERBS[verb])}
    assert offered - loading == expected - loading
    some = {"judge": {"device", "dtype"}}
    assert offered & loading == some.get(verb, loading)
    described = {field.name for field in option_fields(VERBS[verb]) if field.option or field.group}
    assert {field.name for field in fields(VERBS[verb])} - described == PYTHON_ONLY & {
        field.name for field in fields(VERBS[verb])
    }
    assert {parameter.path[0] for parameter in command_parameters_of(VERBS[verb])} == described


@pytest.mark.parametrize("verb", VERBS)
def test_the_python_signature_has_every_field_with_its_default(verb: str) -> None:
    parameters = python_signature(VERBS[verb]).parameters
    assert set(parameters) == {field.name for field in fields(VERBS[verb])}
    assert [*parameters] == [*inspect.signature(VERBS[verb]).parameters]
    for field in option_fields(VERBS[verb]):
        given = inspect.signature(VERBS[verb]).parameters[field.name].default
        assert parameters[field.name].default == given


def test_check_has_the_signature_of_its_request() -> None:
    parameters = inspect.signature(undersong.check).parameters
    assert set(parameters) == {field.name for field in fields(CheckRequest)}
    assert all(parameters[name].default is not inspect.Parameter.empty for name in parameters if name != "data")


def test_screen_has_the_signature_of_its_request() -> None:
    parameters = inspect.signature(undersong.screen).parameters
    assert [*parameters][:4] == ["pool", "harm", "out", "axes"]
    assert set(parameters) == {field.name for field in fields(ScreeningRequest)}
    assert parameters["keep"].default == ()
    assert "Option(" not in str(inspect.signature(undersong.screen))
    assert (undersong.screen.__doc__ or "").startswith("Measure how close a pool")


def test_every_screening_option_is_in_the_key_or_on_a_list() -> None:
    names = {field.name for field in fields(ScreeningOptions)}
    lists = {*ScreeningOptions.RESULT_NEUTRAL, *ScreeningOptions.HASHED_INPUTS}
    assert set(screening_key_values(ScreeningOptions())) == names - lists
    assert lists <= names
    request = ScreeningRequest("pool", "harm", "out")
    assert screening_key_values(request) == screening_key_values(ScreeningOptions())


@pytest.mark.parametrize(
    "change",
    [
        {"axes": {"a": "tfidf"}}, {"select_axis": "a"}, {"select_harm_set": "h"}, {"score": "centroid"},
        {"center": True},
        {"keep": "distant:3"}, {"keep": ["closest:0.25", "random:2"]}, {"seed": 1}, {"max_quarantined": 0.5},
        {"check_padding": True}, {"loading": LoadOptions(dtype="bfloat16")},
        {"rehearse": 8}, {"rehearse_seeds": 2}, {"rehearse_by": "source"},
        {"rehearse_learning_rate": 2e-3},
    ],
    ids=str,
)  # fmt: skip
def test_what_can_change_a_screening_changes_its_key(change: dict[str, Any]) -> None:
    plain = ScreeningOptions()
    assert screening_key_values(replace(plain, **change)) != screening_key_values(plain)


@pytest.mark.parametrize(
    "change",
    [
        {"output_format": "hub"}, {"audio_root": "r"}, {"store": "s"}, {"engine": Engine("ray")}, {"progress": print},
        {"loading": LoadOptions(device="cuda", device_map="auto")}, {"keep": []},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_change_a_screening_leaves_its_key(change: dict[str, Any]) -> None:
    plain = ScreeningOptions()
    assert screening_key_values(replace(plain, **change)) == screening_key_values(plain)


def test_axes_in_another_order_are_another_screening() -> None:
    one, other = ({"a": "tfidf", "b": "logmel"}, {"b": "logmel", "a": "tfidf"})
    assert screening_key_values(ScreeningOptions(axes=one)) != screening_key_values(ScreeningOptions(axes=other))


def test_every_option_of_the_other_verbs_is_in_their_provenance_or_on_a_list() -> None:
    names = {verb: {field.name for field in fields(options)} for verb, options in VERBS.items()}
    evaluated = evaluation_key_values(EvaluationOptions(), "organism:af3")
    lists = {*EvaluationOptions.RESULT_NEUTRAL, *EvaluationOptions.COMPREHENSION}
    assert set(evaluated) == names["evaluate"] - lists
    assert (evaluated["prompt_set"], evaluated["max_new_tokens"]) == ("harm", 12)
    checked = evaluation_key_values(EvaluationOptions(comprehension_encoder="tfidf", max_wer=0.25), "m")[
        "comprehension"
    ]
    assert (checked["encoder"], checked["max_wer"]) == ("tfidf", 0.25)

    judged = judge_key_values(JudgeOptions(judge="keyword", harmful=False))
    assert set(judged) == names["judge"] - {*JudgeOptions.RESULT_NEUTRAL, *JudgeOptions.HASHED_INPUTS}
    assert judged["prompt_set"] == "benign"

    probed = probe_key_values(PROBE)
    assert set(probed) == names["probe"] - set(ProbeOptions.RESULT_NEUTRAL)

    options = TuneOptions()
    tuned = tune_key_values(options, training_recipe(tuning_settings(options)))
    assert set(tuned) == {"recipe"} | names["tune"] - {*TuneOptions.RECIPE, *TuneOptions.HASHED_INPUTS}
    assert set(TuneOptions.RECIPE) - {"preset", "silent_frame_share", "instruction", "instruction_first"} <= set(
        tuned["recipe"]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"save_steps": (3,)}, {"preset": "kimi-audio"}, {"batch_size": 4}, {"micro_batch_size": 2},
        {"gradient_checkpointing": True}, {"validation_share": 0.2}, {"learning_rate": 1e-3}, {"warmup_steps": 1},
        {"lora_rank": 2}, {"lora_alpha": 4}, {"method": "full"}, {"silent_frame_share": 0.1}, {"instruction": "answer"},
        {"instruction": "answer", "instruction_first": True},
    ],
    ids=str,
)  # fmt: skip
def test_every_hyper_parameter_of_tune_reaches_the_recipe(change: dict[str, Any]) -> None:
    assert set(change) <= set(TuneOptions.RECIPE)
    plain, other = (training_recipe(tuning_settings(options)) for options in (TuneOptions(), TuneOptions(**change)))
    assert plain != other


def test_tune_and_a_study_have_the_same_defaults() -> None:
    from undersong.study.schema import TuningSettings
    from undersong.tuning.config import LoraRecipe

    plain = training_recipe(TuningSettings())
    assert training_recipe(tuning_settings(TuneOptions())) == plain
    assert plain["learning_rate"] == LoraRecipe().learning_rate == 5e-4
    assert {name: value for name, value in vars(LoraRecipe()).items() if name in plain} == plain


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Option("Size.", min=1)] = 1
    color: Annotated[str | None, Option("Color.")] = None


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, Option("Name.", argument=True)]
    inner: Annotated[Inner, OptionGroup(only=("size",))] = Inner()


def test_a_group_of_options_is_declared_once_and_offered_in_part() -> None:
    assert [parameter.path for parameter in command_parameters_of(Outer)] == [("name",), ("inner", "size")]

    @takes_options(Outer)
    def describe(outer: Outer) -> str:
        return f"{outer.name} {outer.inner.size}"

    assert describe("box", inner=Inner(3)) == "box 3"
    with pytest.raises(UndersongError, match=r"describe\(\) has no option 'nam'; did you mean 'name'"):
        describe(nam="box")  # type: ignore[call-arg]
    assert key_values(Outer("box"), ["inner"]) == {"name": "box"}
    with pytest.raises(KeyError, match="Outer has no field size"):
        key_values(Outer("box"), ["size"])
