"""Reference pages are made from the code: every key of a study, every verb and option stands in them."""

from __future__ import annotations

import re

import page_of_study
import page_of_verbs
import pytest
from typer.main import get_command

from undersong.cli.app import app
from undersong.study.json_schema import study_json_schema
from undersong.study.schema import Study


def test_every_key_of_a_study_has_a_row_with_its_meaning() -> None:
    page = page_of_study.page()
    sections = dict(re.findall(r"^## `?([\w.]+|The file)`?\n(.*?)(?=^## |\Z)", page, re.S | re.M))
    rows = {head: dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", text, re.M)) for head, text in sections.items()}
    assert set(rows.pop("The file")) == set(Study.model_fields) | {"base", "matrix"}
    shapes = [sorted(one["properties"]) for one in study_json_schema()["$defs"].values()]
    assert sorted(map(sorted, rows.values())) == sorted(shapes)
    assert [f"{head}.{key}" for head, keys in rows.items() for key, said in keys.items() if not said.strip()] == []


def test_types_defaults_and_ranges_are_told() -> None:
    page = page_of_study.page()
    assert "| `batch_size` | whole number, ≥ 1 | `8` | Samples per step. |" in page
    assert "| `kinds` | list of `closest` or `distant` or `random` |" in page
    assert "| `lora_dropout` | number, ≥ 0, < 1 | `0.0` |" in page
    assert "| `prompt_sets` | NAME → mapping |" in page
    assert "| `reference` | text or NAME → text |" in page


VERBS = get_command(app).commands


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_has_a_row(verb: str) -> None:
    found = re.search(rf"^## {verb}\n(.*?)(?=^## |\Z)", page_of_verbs.page(), re.S | re.M)
    assert found
    for one in VERBS[verb].params:
        named = one.opts[0] if one.param_type_name == "option" else (one.metavar or one.name).upper()
        assert re.search(rf"^\| `\[?{re.escape(named)}\b", found[1], re.M), named
