"""Studies from studies: a base, a matrix and `--override`, and that every slip is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from undersong.study.compose import merge_keys
from undersong.study.json_schema import study_json_schema
from undersong.study.load import load_studies, load_study, parse_study
from undersong.study.schema import Study
from undersong.types import UndersongError

ROOT = Path(__file__).parents[2]
BELOW: dict[str, Any] = {
    "study": "below",
    "models": ["organism:af3"],
    "pool": "pool.jsonl",
    "reference": "reference.jsonl",
    "prompt_sets": {"harm": {"corpus": "harm.jsonl", "harmful": True}, "near": {"corpus": "near.jsonl"}},
    "axes": {"semantic": "tfidf", "acoustic": "logmel"},
    "tuning": {"save_steps": [1, 2], "seeds": [0], "draws": [0], "lora_rank": 2},
    "evaluation": {"system_prompts": {"plain": None, "safe": "refuse"}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "below.yaml", BELOW)
    (tmp_path / "deep").mkdir()
    return tmp_path


def write(file: Path, data: Any) -> Path:
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return file


def names(file: Path, *sets: str) -> list[str]:
    return [one.study for one in load_studies(file, sets).studies]


# --- base ------------------------------------------------------------------------------------------------------------
def test_mappings_merge_lists_and_scalars_are_replaced_and_null_takes_away(folder: Path) -> None:
    above = {
        "base": "../below.yaml",
        "study": "above",
        "prompt_sets": {"near": None, "far": {"corpus": "far.jsonl"}},
        "tuning": {"save_steps": [9]},
        "evaluation": {"system_prompts": {"safe": "refuse all", "silent": None}},
    }
    study = load_study(write(folder / "deep" / "above.yaml", above))
    assert list(study.prompt_sets) == ["harm", "far"]
    assert (study.tuning.save_steps, study.tuning.lora_rank) == ((9,), 2)
    assert study.evaluation.system_prompts == {
        "plain": None,
        "safe": "refuse all",
        "silent": None,
    }  # nothing beneath: a value
    assert study.undefended_system == "plain"
    written_out = {
        **BELOW,
        "study": "above",
        "prompt_sets": {"harm": BELOW["prompt_sets"]["harm"], "far": {"corpus": "far.jsonl"}},
    }
    written_out |= {
        "tuning": BELOW["tuning"] | {"save_steps": [9]},
        "evaluation": {"system_prompts": study.evaluation.system_prompts},
    }
    assert study == parse_study(written_out, "x")  # so its results and their hash are the same


def test_a_base_may_have_a_base_and_be_no_whole_study(folder: Path) -> None:
    write(folder / "deep" / "part.yaml", {"base": "../below.yaml", "tuning": {"batch_size": 4}})
    top = write(folder / "top.yaml", {"base": "deep/part.yaml", "study": "top", "tuning": {"lora_rank": 4}})
    study = load_study(top)
    assert (study.study, study.tuning.lora_rank, study.tuning.batch_size, study.tuning.save_steps) == (
        "top",
        4,
        4,
        (1, 2),
    )


@pytest.mark.parametrize(
    ("above", "said"),
    [
        ({"base": "above.yaml", "study": "x"}, r"above\.yaml is its own base \(.*above\.yaml -> .*above\.yaml\)"),
        ({"base": "round.yaml", "study": "x"}, r"above\.yaml -> .*round\.yaml -> .*deep/\.\./above\.yaml\)"),
        ({"base": "none.yaml", "study": "x"}, r"no study file .*none\.yaml, which .*above\.yaml names as its base"),
        ({"base": ["below.yaml"], "study": "x"}, "base is not a path"),
        ({"base": "below.yaml"}, "has a base, and no name of its own"),
        ({"base": "below.yaml", "study": "x", "tunning": None}, "unknown key 'tunning'; did you mean 'tuning'"),
        ({"base": "below.yaml", "study": "x", "pool": None}, "pool: Field required"),
        ({"bas": "below.yaml", "study": "x"}, "unknown key 'bas'; did you mean 'base'"),
    ],
    ids=repr,
)
def test_a_base_that_is_none_is_one_sentence(folder: Path, above: dict[str, Any], said: str) -> None:
    write(folder / "round.yaml", {"base": "deep/../above.yaml"})
    with pytest.raises(UndersongError, match=said) as caught:
        load_study(write(folder / "above.yaml", above))
    assert "\n" not in str(caught.value)


TREES = st.recursive(
    st.none() | st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


@given(MAPPINGS, MAPPINGS)
def test_merging_changes_neither_side_and_nothing_over_something_is_that(one: Any, other: Any) -> None:
    before = json.dumps([one, other])
    found = merge_keys(one, other)
    assert json.dumps([one, other]) == before
    assert merge_keys(one, {}) == one
    for key, value in other.items():
        if not isinstance(value, dict):
            assert found.get(key) == value


# --- matrix ----------------------------------------------------------------------------------------------------------
def test_a_matrix_is_a_study_a_combination(folder: Path) -> None:
    matrix = {"models": [["organism:af3"], ["organism:kimi"]], "selection.fractions": [[0.25], [0.5, 0.75]]}
    found = load_studies(write(folder / "many.yaml", {**BELOW, "matrix": matrix}))
    assert found.name == "below"
    assert [(one.study, one.models, one.selection.fractions) for one in found.studies] == [
        ("below-organism-af3-0.25", ("organism:af3",), (0.25,)),
        ("below-organism-af3-0.5-0.75", ("organism:af3",), (0.5, 0.75)),
        ("below-organism-kimi-0.25", ("organism:kimi",), (0.25,)),
        ("below-organism-kimi-0.5-0.75", ("organism:kimi",), (0.5, 0.75)),
    ]
    assert {one.tuning.save_steps for one in found.studies} == {(1, 2)}
    with pytest.raises(UndersongError, match=r"holds 4 studies; name one: below-organism-af3-0\.25, "):
        load_study(folder / "many.yaml")


def test_values_may_be_named_and_change_several_keys_together(folder: Path) -> None:
    together = {
        "af3": {"models": ["organism:af3"], "tuning": {"lora_rank": 3}},
        "kimi": {"models": ["organism:kimi"], "prompt_sets": {"near": None}},
    }
    file = write(folder / "many.yaml", {"base": "below.yaml", "study": "many", "matrix": {".": together}})
    one, other = load_studies(file).studies
    assert (one.study, one.tuning.lora_rank, list(one.prompt_sets)) == ("many-af3", 3, ["harm", "near"])
    assert (other.study, other.tuning.lora_rank, list(other.prompt_sets)) == ("many-kimi", 2, ["harm"])
    assert names(write(folder / "plain.yaml", {"base": "many.yaml", "study": "plain", "matrix": None})) == ["plain"]


def test_one_study_is_taken_by_its_name(folder: Path) -> None:
    file = write(folder / "many.yaml", {**BELOW, "matrix": {"tuning.lora_rank": [1, 2]}})
    found = load_studies(file, only="below-2")
    assert (found.name, [one.study for one in found.studies]) == ("below", ["below-2"])
    with pytest.raises(UndersongError, match="holds no study 'below-3'; did you mean 'below-2' or 'below-1'"):
        load_studies(file, only="below-3")
    with pytest.raises(UndersongError, match="holds no study 'x'; it holds below-1, below-2"):
        load_studies(file, only="x")
    assert load_studies(folder / "below.yaml", only="below").studies == (load_study(folder / "below.yaml"),)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ([1], "matrix maps keys to their values"),
        ({}, "matrix maps keys to their values"),
        ({"models": "organism:af3"}, r"matrix\.models has no values"),
        ({"models": []}, r"matrix\.models has no values"),
        ({"tuning": [{"rank": 2}]}, r"matrix\.tuning cannot call .*; give \{NAME: value\}"),
        ({"tuning.lora_rank": {"a/b": 2}}, "cannot call 2 'a/b'"),
        ({"tuning.lora_rank": {"..": 2}}, r"cannot call 2 '\.\.'"),
        ({"tuning.lora_rank": [2, 2]}, "two studies are called below-2"),
        ({"study": ["a", "b"]}, r"matrix\.study does not vary keys"),
        ({".": {"a": {"matrix": {}}}}, "does not vary keys"),
        ({".": ["a"]}, "does not vary keys"),
        ({"tuning.rnk": [2]}, r"unknown key 'tuning\.rnk'; did you mean 'lora_rank'"),
        ({"tuning.lora_rank": [0]}, r"tuning\.lora_rank: Input should be greater"),
        ({1: [0]}, "unknown key '1'"),
    ],
    ids=repr,
)
def test_a_matrix_that_is_none_is_one_sentence(folder: Path, matrix: Any, said: str) -> None:
    file = write(folder / "many.yaml", {**BELOW, "matrix": matrix})
    with pytest.raises(UndersongError, match=said) as caught:
        load_studies(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


# --- --override ------------------------------------------------------------------------------------------------------
def test_what_is_set_lies_over_the_file(folder: Path) -> None:
    sets = [
        "tuning.seeds=[0,1]",
        "tuning.draws=[0, 1]",
        "prompt_sets.near=null",
        "study=other",
        "tuning.learning_rate=1e-3",
    ]
    sets += ["columns={pool.jsonl: {text: said}}"]  # a key with dots in it
    (study,) = load_studies(folder / "below.yaml", sets).studies
    assert study.study == "other"
    assert study.tuning.seeds == study.tuning.draws == (0, 1)
    assert study.tuning.learning_rate == 1e-3
    assert list(study.prompt_sets) == ["harm"]
    assert study.columns == {"pool.jsonl": {"text": "said"}}
    assert (
        load_studies(folder / "below.yaml", ["tuning.lora_rank=3", "tuning.lora_rank=4"]).studies[0].tuning.lora_rank
        == 4
    )
    assert (
        load_studies(folder / "below.yaml", ["tuning.lora_rank=3", "tuning.lora_rank=null"]).studies[0].tuning.lora_rank
        == 8
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tuning.sedes=[0]", r"--override tuning\.sedes=\[0\]: unknown key 'tuning\.sedes'; did you mean 'seeds'"),
        ("tunning={}", "unknown key 'tunning'; did you mean 'tuning'"),
        ("prompt_sets.harm.harmfull=true", "did you mean 'harmful'"),
        ("tuning.seeds", "has no value; write --override KEY=VALUE"),
        ("tuning.seeds=[0", r"--override tuning\.seeds=\[0: its value is not YAML"),
        ("tuning={rank: 1, rank: 2}", "key 'rank' stands twice"),
        ("tuning={[a]: 2}", "is not YAML"),
        ("tuning.seeds=[0,1]", r"seeds \(2\) and draws \(1\) are paired"),
        ("base=below.yaml", "base is of the file"),
        ("matrix={}", "matrix is of the file"),
        (".=3", "names no key"),
        ("=3", "unknown key ''"),
        ("models.x=3", "models: give a list"),
    ],
)
def test_what_cannot_be_set_is_one_sentence(folder: Path, text: str, said: str) -> None:
    with pytest.raises(UndersongError, match=said) as caught:
        load_studies(folder / "below.yaml", [text])
    assert "\n" not in str(caught.value)


def test_what_the_matrix_varies_cannot_be_set(folder: Path) -> None:
    file = write(folder / "many.yaml", {**BELOW, "matrix": {"tuning.lora_rank": [1, 2]}})
    assert [one.tuning.batch_size for one in load_studies(file, ["tuning.batch_size=4"]).studies] == [4, 4]
    assert names(file, "study=other") == ["other-1", "other-2"]
    for text in ("tuning.lora_rank=3", "tuning={lora_rank: 3}", "tuning=null"):
        with pytest.raises(UndersongError, match=r"--override tuning(\.lora_rank)?: the matrix of .* varies it"):
            load_studies(file, [text])


# --- schema for editors ----------------------------------------------------------------------------------------------
def test_the_schema_that_is_published_is_that_of_the_code() -> None:
    published = ROOT / "docs" / "reference" / "study.schema.json"
    assert json.loads(published.read_text()) == study_json_schema(), f"undersong schema > {published.relative_to(ROOT)}"
    assert study_json_schema() == study_json_schema()  # asking leaves nothing behind


STUDIES = sorted((ROOT / "studies").rglob("*.yaml"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.name)
def test_every_study_beside_the_code_names_the_schema(file: Path) -> None:
    key, _, schema = file.read_text().splitlines()[0].partition("=")
    assert key == "# yaml-language-server: $schema"
    assert (file.parent / schema).resolve() == ROOT / "docs" / "reference" / "study.schema.json"


def test_the_schema_takes_what_is_a_study_and_marks_slips() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    validator.check_schema(study_json_schema())
    check = validator(study_json_schema())
    for file in STUDIES:
        assert not list(check.iter_errors(yaml.safe_load(file.read_text()))), file
    for good in (
        {"base": "x", "prompt_sets": {"near": None}, "tuning": {"preset": None}},
        {"matrix": {".": {"a": {}}}},
    ):
        assert check.is_valid(good), good
    for bad in ({"tunning": {}}, {"tuning": {"sedes": [0]}}, {"matrix": {"models": 3}}, {"base": 3}, {"models": 3}):
        assert not check.is_valid(bad), bad
    assert set(study_json_schema()["properties"]) == {"base", "matrix", *Study.model_fields}


def bomb(levels: int) -> str:
    """A list of ten names, aliased ten times on each level above it."""
    lines = ["matrix:", "  notes:", "   - - &a0 [x, x, x, x, x, x, x, x, x, x]"]
    return "\n".join([*lines, *(f"     - &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels))])


MANY = "matrix:\n" + "".join(f"  notes.{i}: [{', '.join(map(str, range(10)))}]\n" for i in range(7))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("description: 2001-99-99", "'2001-99-99' is no timestamp"),
        *((f"description: !!{kind} foo", f"'foo' is no {kind}") for kind in ("int", "float", "bool", "timestamp")),
        ("description: !!int ''", "'' is no int"),
        (f"description: {'9' * 5000}", "(5,000 characters)' is no int"),
        (f"tuning: {{save_steps: [{'9' * 4000}]}}", "a whole number of some 4,000 digits is too large"),
        ("tuning: {save_steps: [1000000000]}", "a training has at most 100,000,000 steps"),
        ("tuning: {preset: [x]}", "tuning.preset: Input should be a valid string"),
        ("tuning: {preset: kimi-audio, save_steps: 5}", "5 is no list; write [5]"),
        (f"description: {'[' * 5000}", "it is nested too deeply"),
        ("description: &a [*a]", "it is nested too deeply, or an alias names what it is in"),
        (r'description: "\ud800"', "holds a NUL or half of a surrogate pair"),
        (r'base: "a\0b"', "holds a NUL or half of a surrogate pair"),
        (bomb(3), "cannot call [['x', 'x'"),
        (bomb(6), "aliases expand to more than 1,000,000 values"),
        (bomb(40), "aliases expand to more than 1,000,000 values"),
        (MANY, "matrix has 10,000,000 combinations, and a file has at most 10,000 studies"),
        ("description: x@http://u:hush@h/v1", "an address has a name, a password or a query in it"),
    ],
)
def test_hostile_yaml_is_one_short_sentence(folder: Path, text: str, said: str) -> None:
    file = folder / "hostile.yaml"
    file.write_text(_without_tuning() + text)
    with pytest.raises(UndersongError) as raised:
        load_studies(file)
    message = str(raised.value)
    assert said in message
    assert message.count("\n") == 0
    assert len(message) < len(str(file)) + 600
    assert "hush" not in message


def _without_tuning() -> str:
    return yaml.safe_dump({key: value for key, value in BELOW.items() if key != "tuning"})


def test_an_override_may_hold_no_hostile_yaml_either(folder: Path) -> None:
    with pytest.raises(UndersongError, match="'foo' is no int"):
        load_studies(folder / "below.yaml", ["tuning.lora_rank=!!int foo"])
