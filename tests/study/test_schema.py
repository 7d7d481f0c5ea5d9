"""Study files: what is read, and that every slip is one sentence naming what would be right."""

from __future__ import annotations

import copy
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.encoders.registry import check_encoder
from undersong.settings.tuning import TuningSettings
from undersong.study.load import load_studies, load_study, packaged_study, parse_study, with_seeds
from undersong.study.schema import Study
from undersong.types import UndersongError

SMALL: dict[str, Any] = {
    "study": "small",
    "models": ["organism:af3"],
    "pool": "pool.jsonl",
    "reference": "reference.jsonl",
    "prompt_sets": {"harm": {"corpus": "harm.jsonl", "harmful": True}, "near": {"corpus": "near.jsonl"}},
    "axes": {"semantic": "tfidf", "acoustic": "logmel"},
}
# Every group of keys, so that a slip can be made in each.
WHOLE: dict[str, Any] = {
    **SMALL,
    "description": "all keys",
    "reference": {"first": "reference.jsonl", "second": "more.jsonl"},
    "benign_reference": "calm.jsonl",
    "columns": {"pool.jsonl": {"text": "said"}},
    "prompt_sets": {
        "harm": {"corpus": "harm.jsonl", "harmful": True, "filters": {"speaker": ["A"]}},
        "where": {"corpus": "near.jsonl", "harmful": False, "filters": {}},  # a set may be called like a key
    },
    "proximity": {"score": "knn:3", "center": False, "max_quarantined": 0.02},
    "selection": {
        "axes": ["acoustic"], "kinds": ["closest"], "fractions": [0.5, 1.0], "filters": {"speaker": ["A"]},
        "noise": "pink:10", "group_spread": 0.5,
        "rules": {"like": {"axis": "acoustic", "keep": "closest:0.5+within(semantic)", "harm_set": "second"}},
    },
    "tuning": {
        "modalities": ["audio"], "seeds": [0, 5], "draws": [1, 1], "save_steps": [1, 9], "batch_size": 4,
        "learning_rate": 1e-3, "learning_rate_schedule": "constant", "warmup_steps": 0, "weight_decay": 0.1,
        "max_grad_norm": 2.0, "lora_rank": 2, "lora_alpha": 4, "lora_dropout": 0.1, "target_column": "shifted",
        "micro_batch_size": 2, "gradient_checkpointing": True, "validation_share": 0.1, "preset": "kimi-audio",
        "method": "full", "silent_frame_share": 0.1, "instruction": "answer", "instruction_first": True,
    },
    "evaluation": {
        "protocol": "uniform", "judge": "keyword", "extra_judges": ["exact"], "refusal_texts": ["no"],
        "max_new_tokens": 3, "instruction": "answer", "refusal_margin": False,
        "system_prompts": {"plain": None, "safe": "refuse"}, "modalities": ["text"], "per_step_prompt_sets": ["harm"],
        "comprehension": {
            "repeat_instruction": "say it again", "max_new_tokens": 9, "max_wer": 0.3, "encoder": "tfidf",
            "relevance_level": 0.1,
        },
    },
    "system_defense": "safe",
    "mechanism": {
        "contrast_harmful": "a", "contrast_benign": "b", "held_out_harmful": "harm", "held_out_benign": "where",
    },
    "defenses": {"told": {"system": "safe"}, "mixed": {"safety_mixing": {"corpus": "m", "share": 0.1}}},
    "safety_limits": {"max_jsr": 0.1, "max_over_refusal": 0.2},
    "retune_on": "closest",
    "analysis": {"primary": ["closest-base@acoustic", "system-prompt"]},
    "notes": ["a note"],
}  # fmt: skip
Data = dict[str, Any]


def changed(change: Callable[[Data], object], base: Data = SMALL) -> Data:
    data = copy.deepcopy(base)
    change(data)
    return data


def test_the_packaged_demo_parses() -> None:
    demo = packaged_study("demo")
    assert demo.study == "demo"
    assert demo.undefended_system == "plain"
    assert set(demo.tuning.save_steps) == {20, 40}
    for spec in demo.axes.values():
        check_encoder(spec)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].joinpath("studies").glob("*.yaml")), ids=lambda p: p.name
)
def test_every_study_beside_the_code_parses(path: Path) -> None:
    assert all(one.study for one in load_studies(path).studies)


def test_a_whole_study_is_what_it_says() -> None:
    study = parse_study(WHOLE, "whole")
    assert study.selection.fractions == (0.5, 1.0)
    assert study.tuning.learning_rate == 1e-3
    assert study.prompt_sets["where"].corpus == "near.jsonl"
    assert study.evaluation.system_prompts == {"plain": None, "safe": "refuse"}
    small = parse_study(SMALL, "small")
    assert small.tuning.seeds == (0, 1, 2)
    assert small.undefended_system == "plain"
    assert small.mechanism is None
    assert parse_study(study.model_dump(mode="json"), "again") == study  # what is kept in results reads as the study


# --- keys ------------------------------------------------------------------------------------------------------------
def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all known keys in WHOLE; names a user gives (`prompt_sets.NAME`, `axes.NAME`, …) are no keys."""
    if (
        not isinstance(value, dict)
        or path[-1:] in [("axes",), ("system_prompts",)]
        or path[:1] in [("reference",), ("columns",)]
        or (path[-1:] == ("filters",) and len(path) != 2)
    ):
        return []
    own = [] if path in [("prompt_sets",), ("selection", "rules"), ("defenses",)] else [(*path, key) for key in value]
    return own + [place for key, inner in value.items() for place in places(inner, (*path, key))]


KEYS = [place for place in places(WHOLE) if place != ("selection", "filters", "speaker")]


def test_all_known_keys_are_tried() -> None:
    top = {place[0] for place in KEYS if len(place) == 1}
    assert top == set(Study.model_fields)
    for group in ("proximity", "selection", "tuning", "evaluation", "mechanism", "safety_limits"):
        kind = {name for place in KEYS for name in place[1:2] if place[0] == group}
        assert kind == set(parse_study(WHOLE, "whole").model_dump()[group])


@pytest.mark.parametrize(
    ("primary", "message"),
    [
        (["closest-rand"], "cannot answer 'closest-rand'; name one of closest-base, .*did you mean 'closest-random'"),
        (["system-prompt"], "cannot answer 'system-prompt'"),
        (["modality-closest"], "cannot answer 'modality-closest'"),
        (["closest-base@acoustics"], "names no axis that arms are selected by; take one of semantic, acoustic"),
        (["axes@semantic"], "names no axis"),
        (["closest-base", "closest-base"], "stands more than once"),
    ],
)
def test_a_primary_question_is_one_that_the_study_answers(primary: list[str], message: str) -> None:
    study = {**SMALL, "selection": {"axes": ["semantic", "acoustic"]}, "tuning": {"modalities": ["audio"]}}
    with pytest.raises(UndersongError, match=message):
        parse_study({**study, "analysis": {"primary": primary}}, "small")


def test_without_a_declaration_the_damage_is_the_primary_question() -> None:
    assert parse_study(SMALL, "small").primary_questions == ("closest-base",)
    distant = parse_study({**SMALL, "selection": {"kinds": ["distant"]}}, "small")
    assert distant.primary_questions == ("distant-base",)
    assert parse_study({**SMALL, "selection": {"kinds": []}}, "small").primary_questions == ()


def slips(word: str) -> st.SearchStrategy[str]:
    letters = st.sampled_from(string.ascii_lowercase + "_")
    place = st.integers(0, len(word) - 1)
    left_out = place.map(lambda i: word[:i] + word[i + 1 :])
    other = st.builds(lambda i, c: word[:i] + c + word[i + 1 :], place, letters)
    added = st.builds(lambda i, c: word[:i] + c + word[i:], st.integers(0, len(word)), letters)
    return left_out | other | added


@settings(max_examples=400)
@given(st.data())
def test_a_slip_in_any_key_is_caught_and_the_right_key_named(data: st.DataObject) -> None:
    *way, key = data.draw(st.sampled_from(KEYS))
    study = copy.deepcopy(WHOLE)
    group = study
    for name in way:
        group = group[name]
    slip = data.draw(slips(key).filter(lambda word: word not in group and word))
    group[slip] = group.pop(key)
    with pytest.raises(UndersongError) as caught:
        parse_study(study, "slip.yaml")
    said = str(caught.value)
    assert said.startswith(f"slip.yaml: unknown key {'.'.join([*way, slip])!r}; did you mean ")
    assert f"{key!r}" in said.partition("; did you mean ")[2]


def test_keys_that_are_equally_near_are_all_named() -> None:
    with pytest.raises(UndersongError, match=r"unknown key 'tuning.seaws'; did you mean 'seeds' or 'draws'\?$"):
        parse_study(changed(lambda d: d["tuning"].update(seaws=[1]), WHOLE), "x")


def test_a_key_like_no_other_lists_those_there_are() -> None:
    with pytest.raises(
        UndersongError, match=r"unknown key 'mechanism.zzz'; known here: contrast_harmful, contrast_benign, held_out"
    ):
        parse_study(changed(lambda d: d["mechanism"].update(zzz=1), WHOLE), "x")


def test_the_benign_reference_is_no_harmful_prompt_set() -> None:
    with pytest.raises(UndersongError, match=r"harm\.jsonl is the harmful prompt set harm; name benign speech"):
        parse_study({**SMALL, "benign_reference": "harm.jsonl"}, "small")
    assert parse_study({**SMALL, "benign_reference": "near.jsonl"}, "small").benign_reference == "near.jsonl"


def test_the_harmful_sets_make_a_curve_by_default() -> None:
    small = parse_study(SMALL, "small")
    assert (small.curve_prompt_sets, small.tuning.save_steps) == (("harm",), (10, 20, 40))
    for names in ((), ("near",)):
        study = parse_study({**SMALL, "evaluation": {"per_step_prompt_sets": names}}, "small")
        assert study.curve_prompt_sets == names


# --- values ----------------------------------------------------------------------------------------------------------
WRONG: list[tuple[str, Any, str]] = [
    ("selection.axes", ["akustic"], "'akustic' is not one of semantic, acoustic; did you mean 'acoustic'?"),
    ("evaluation.per_step_prompt_sets", ["hram"], "'hram' is not one of harm, where; did you mean 'harm'?"),
    ("system_defense", "save", "'save' is not one of plain, safe; did you mean 'safe'?"),
    ("mechanism.held_out_harmful", "h", "'h' is not one of harm, where"),
    ("mechanism.held_out_benign", "no", "'no' is not one of harm, where"),
    ("selection.kinds", ["close"], "Input should be 'closest', 'distant' or 'random'"),
    ("selection.kinds", ["random", "random"], "'random' stands more than once"),
    ("selection.axes", ["acoustic", "acoustic"], "'acoustic' stands more than once"),
    ("selection.fractions", [], "at least one is needed"),
    ("proximity.score", "knn:0", "String should match pattern"),
    ("proximity.max_quarantined", 1.5, "less than or equal to 1"),
    ("tuning.draws", [1], "seeds (2) and draws (1) are paired and need equal numbers"),
    ("tuning.seeds", [3, 3], "3 stands more than once"),
    ("tuning.seeds", [0, -1], "tuning.seeds.1: Input should be greater than or equal to 0"),
    ("tuning.seeds", [0, 2**32], "tuning.seeds.1: Input should be less than or equal to 4294967295"),
    ("tuning.draws", [-1, 0], "tuning.draws.0: Input should be greater than or equal to 0"),
    ("tuning.draws", [0, 10**30], "tuning.draws.1: Input should be less than or equal to 4294967295"),
    ("tuning.save_steps", [4, 2], "save_steps are positive and rise"),
    ("tuning.save_steps", [4, 4], "save_steps are positive and rise"),
    ("tuning.save_steps", [0, 4], "save_steps are positive and rise"),
    ("tuning.save_steps", [], "save_steps are positive and rise"),
    ("tuning.batch_size", 0, "greater than or equal to 1"),
    ("tuning.learning_rate", float("inf"), "finite number"),
    ("tuning.lora_dropout", 1.0, "less than 1"),
    ("tuning.modalities", [], "at least one is needed"),
    ("tuning", 3, "valid dictionary"),
    ("evaluation.system_prompts", {}, "at least one is needed; the first is the undefended one"),
    ("evaluation.modalities", ["video"], "Input should be 'audio' or 'text'"),
    ("evaluation.modalities", [], "at least one is needed"),
    ("evaluation.judge", "gpt", "there is no judge 'gpt'; take exact, keyword, refusal"),
    ("evaluation.max_new_tokens", 0, "greater than or equal to 1"),
    ("models", ["a", "a"], "'a' stands more than once"),
    ("models", [], "at least one is needed"),
]


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_a_wrong_value_is_named(key: str, value: Any, said: str) -> None:
    study = copy.deepcopy(WHOLE)
    *way, name = key.split(".")
    (study[way[0]] if way else study)[name] = value
    with pytest.raises(UndersongError) as caught:
        parse_study(study, "x")
    assert str(caught.value).startswith(f"x: {key.partition('.')[0]}")
    assert name in str(caught.value) or "seeds" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../away", "/root", "a/b", "a\\b", "..", ".", "", " ", "a ", "a\nb", "a\x00b"])
def test_a_study_is_called_what_a_folder_can_be_called(name: str) -> None:
    with pytest.raises(UndersongError, match=r"^x: study: .* cannot be the name of a folder; take words without /"):
        parse_study({**SMALL, "study": name}, "x")


@pytest.mark.parametrize("name", ["s", "a b", "Ünïcødé 研究", "..a", "v1.2", "-x-", "<b>"])
def test_other_names_are_taken(name: str) -> None:
    assert parse_study({**SMALL, "study": name}, "x").study == name


def test_one_value_where_a_list_belongs() -> None:
    with pytest.raises(UndersongError, match=r"^x: tuning\.save_steps: 20 is no list; write \[20\]\.$"):
        parse_study({**SMALL, "tuning": {"save_steps": 20}}, "x")
    with pytest.raises(UndersongError, match=r"^x: tuning\.save_steps: give a list\.$"):
        parse_study({**SMALL, "tuning": {"save_steps": {"a": 1}}}, "x")


@pytest.mark.parametrize("key", ["study", "models", "pool", "reference", "prompt_sets", "axes"])
def test_a_key_that_is_needed_is_named(key: str) -> None:
    with pytest.raises(UndersongError, match=f"^x: {key}: Field required.$"):
        parse_study(changed(lambda d: d.pop(key)), "x")


def test_something_must_be_harmful() -> None:
    with pytest.raises(UndersongError, match="prompt_sets: none is harmful, so there is no JSR to measure"):
        parse_study(changed(lambda d: d["prompt_sets"]["harm"].update(harmful=False)), "x")


@given(st.floats().filter(lambda f: not 0 < f <= 1) | st.sampled_from([0, 2, -1]))
def test_fractions_out_of_range_are_refused(fraction: float) -> None:
    with pytest.raises(UndersongError, match=r"selection\.fractions"):
        parse_study(changed(lambda d: d["selection"].update(fractions=[0.5, fraction]), WHOLE), "x")


@given(st.floats(0, 1, exclude_min=True))
def test_fractions_in_range_are_taken(fraction: float) -> None:
    study = parse_study(changed(lambda d: d["selection"].update(fractions=[fraction]), WHOLE), "x")
    assert study.selection.fractions == (fraction,)


# --- files -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "holds a list, not keys and values"),
        ("just words", "holds a str, not keys and values"),
        ("study: x\npool: [1, 2\nsets: 3\n", "Line 3 of .* is not YAML"),
        ("study: x\n\tpool: y\n", "Line 2 of .* is not YAML"),
        ("study: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        (b"study: \xff\xfe", "is not a text file"),
    ],
)
def test_a_file_that_is_no_study(tmp_path: Path, text: str | bytes, said: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UndersongError, match=said) as caught:
        load_study(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UndersongError, match="There is no study file"):
            load_study(path)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(WHOLE, allow_unicode=True), encoding="utf-8")
    assert load_study(tmp_path / "study.yaml") == parse_study(WHOLE, "whole")


def test_another_number_of_seeds() -> None:
    study = with_seeds(parse_study(WHOLE, "whole"), 4)
    assert study.tuning.seeds == study.tuning.draws == (0, 1, 2, 3)
    assert study.tuning.lora_rank == 2
    assert study.axes == WHOLE["axes"]


def test_a_key_that_stands_twice_is_an_error_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("study: a\ntuning: {seeds: [0]}\nstudy: b\n")
    with pytest.raises(UndersongError, match=r"Line 3 .*'study' stands twice"):
        load_study(file)


# --- presets ---------------------------------------------------------------------------------------------------------
def test_a_preset_lies_beneath_what_is_written() -> None:
    def tuning(**values: Any) -> Any:
        return parse_study(changed(lambda data: data.update(tuning=values)), "x").tuning

    published = tuning(preset="audio-flamingo-3", save_steps=[100, 200])
    assert (published.lora_rank, published.lora_alpha, published.learning_rate) == (16, 32, 2e-5)
    assert (published.learning_rate_schedule, published.warmup_steps, published.weight_decay) == ("linear", 20, 0.01)
    own = tuning(preset="audio-flamingo-3", save_steps=[100, 200], lora_rank=4, warmup_steps=3)
    assert (own.lora_rank, own.warmup_steps, own.lora_alpha) == (4, 3, 32)
    assert tuning(preset="kimi-audio").warmup_steps == 1  # 3 % of 40 steps
    assert tuning().lora_rank == 8
    with pytest.raises(UndersongError, match="no preset 'kimi'; take one of kimi-audio"):
        tuning(preset="kimi")


def test_a_kept_study_reads_as_it_was(tmp_path: Path) -> None:
    """Results hold the study with its preset's values written out; reading that changes nothing."""
    study = parse_study(changed(lambda data: data.update(tuning={"preset": "qwen2.5-omni", "save_steps": [10]})), "x")
    assert parse_study(study.model_dump(mode="json"), "again") == study


def test_a_reply_may_be_as_long_as_its_model_needs_unless_said() -> None:
    """Twelve tokens are an organism's whole sentence, and of a real model's reply no more than its opening."""
    assert parse_study(SMALL, "x").max_new_tokens == 12
    mine = {"models": ["organism:af3", "models/mine"], "evaluation": {"judge": "keyword"}}
    assert parse_study(changed(lambda d: d.update(mine)), "x").max_new_tokens == 256
    assert parse_study(changed(lambda d: d.update(evaluation={"max_new_tokens": 7})), "x").max_new_tokens == 7


def test_a_number_of_seeds_is_so_many_seeds_and_draws_follow() -> None:
    """D14 of the trial: `seeds: 5` was answered by `write [5]`, and five seeds by a demand for draws."""
    tuning = TuningSettings(seeds=5)
    assert tuning.seeds == tuning.draws == (0, 1, 2, 3, 4)
    assert TuningSettings(seeds=[7, 8]).draws == (0, 1)
    assert TuningSettings(seeds=[7, 8], draws=[3, 3]).draws == (3, 3)
    assert TuningSettings(seeds=2, draws=2).draws == (0, 1)
    assert TuningSettings().seeds == TuningSettings().draws == (0, 1, 2)
    with pytest.raises(ValueError, match="seeds: 0 is no number of seeds"):
        TuningSettings(seeds=0)
    with pytest.raises(ValueError, match="leave draws out, and there are as many"):
        TuningSettings(seeds=5, draws=[0, 1, 2])


def test_the_default_judge_fits_the_models() -> None:
    """The exact judge knows how organisms refuse; of any other model it would have to be told."""
    minimal = {
        "study": "small", "models": ["organism:af3"], "pool": "organism:pool", "reference": "organism:reference",
        "prompt_sets": {"harm": {"corpus": "organism:test-harm", "harmful": True}}, "axes": {"semantic": "tfidf"},
    }  # fmt: skip
    assert Study(**minimal).evaluation.judge == "exact"
    assert Study(**(minimal | {"models": ["models/mine"]})).evaluation.judge == "keyword"
    told = minimal | {"models": ["models/mine"], "evaluation": {"refusal_texts": ["no"]}}
    assert Study(**told).evaluation.judge == "exact"
