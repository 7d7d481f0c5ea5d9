"""Our prompts against those of official processors and prompt managers, which data/golden_prompts.json holds.

Four families bring their template from our code (Kimi-Audio, Phi-4, Qwen2-Audio, Voxtral). The others' templates are
the zoo's stand-ins for the published files, which are held to the official prompts here too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import instances
import pytest

from undersong.models.chat import Processor, chat_messages, load_processor
from undersong.models.families import FAMILIES, MINI, Family, family_of
from undersong.models.kimi.processing import special_tokens
from undersong.types import Prompt, Sample

GOLDEN = json.loads((Path(__file__).parent / "data" / "golden_prompts.json").read_text(encoding="utf-8"))
KINDS = {family_of(kind, "x").name: kind for kind in instances.KINDS}
PROMPTS = [
    pytest.param(name, prompt, id=f"{name}: {prompt['case']}, {prompt['source']}")
    for name, golden in GOLDEN["families"].items()
    for prompt in golden["prompts"]
]


class TextTokenizer:
    """A stand-in that gives a text back instead of its ids."""

    def __init__(self, special_tokens_map: Mapping[str, str]) -> None:
        self.special_tokens_map = special_tokens_map

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, str]:
        return {"input_ids": text}


@pytest.fixture(scope="module")
def processors(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Load each family's processor once, with a tokenizer that keeps the text."""
    loaded: dict[str, Processor] = {}

    def get(family: Family) -> Processor:
        if family.name not in loaded:
            folder = instances.save(KINDS[family.name], tmp_path_factory.mktemp("golden") / "model")
            processor = load_processor(folder, family, family.name)
            tokenizer = TextTokenizer(processor.tokenizer.special_tokens_map)
            loaded[family.name] = replace(processor, tokenizer=tokenizer)
        return loaded[family.name]

    return get


def family_named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def our_prompt(golden: Mapping[str, Any]) -> Prompt:
    if golden["placeholders"]:
        return Prompt(Sample("clip", audio="x"), "harm", True, "audio", "plain", golden["system"], golden["text"])
    return Prompt(Sample("text", text=golden["text"]), "harm", True, "text", "plain", golden["system"])


def collapse_placeholders(text: str, placeholder: str) -> str:
    """The text with the placeholders of a clip as one."""
    return re.sub(f"({re.escape(placeholder)})+", placeholder, text)


def ids_of(text: str, golden: Mapping[str, Any]) -> list[int]:
    """Ids by the tables of the official ids."""
    special, texts = golden["special_ids"], golden["text_ids"]
    pieces = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
    return [i for piece in pieces if piece for i in ([special[piece]] if piece in special else texts[piece])]


def test_every_family_has_the_four_prompts() -> None:
    assert GOLDEN["families"].keys() == {family.name for family in FAMILIES} - {MINI.name}
    for golden in GOLDEN["families"].values():
        cases = {prompt["case"] for prompt in golden["prompts"]}
        assert cases == {"audio", "audio + text", "text", "system + audio"}
        assert {prompt["source"] for prompt in golden["prompts"]} <= GOLDEN["sources"].keys()


@pytest.mark.parametrize(("name", "golden"), PROMPTS)
def test_the_text_is_that_of_the_official_source(name: str, golden: dict[str, Any], processors: Any) -> None:
    family = family_named(name)
    processor = processors(family)
    messages = chat_messages(our_prompt(golden), family)
    text = processor.token_ids(messages, golden["placeholders"])
    assert text.count(family.audio_token) == golden["placeholders"]
    assert collapse_placeholders(text, family.audio_token) == golden["rendered"]


@pytest.mark.parametrize(("name", "golden"), [p for p in PROMPTS if {"ids", "ids_begin"} & set(p.values[1])])
def test_the_ids_are_those_of_the_official_source(name: str, golden: dict[str, Any], processors: Any) -> None:
    """Exact where the source gives all ids; else its first ones."""
    family = family_named(name)
    text = processors(family).token_ids(chat_messages(our_prompt(golden), family), golden["placeholders"])
    tables = GOLDEN["families"][name]
    if "ids" in golden:
        assert ids_of(collapse_placeholders(text, family.audio_token), tables) == golden["ids"]
    else:
        head = text[: text.rindex(family.audio_token) + len(family.audio_token)]
        following = [token for token in tables["special_ids"] if text[len(head) :].startswith(token)]
        begin = golden["ids_begin"]
        ids = [
            *ids_of(collapse_placeholders(head, family.audio_token), tables),
            *(tables["special_ids"][token] for token in following),
        ]
        assert ids[: len(begin)] == begin


def test_kimis_special_tokens_have_the_official_ids() -> None:
    ids = {name: 151_643 + place for place, name in enumerate(special_tokens())}
    official = GOLDEN["families"]["Kimi-Audio"]["special_ids"]
    assert {name: ids.get(name, 151_643 + len(ids)) for name in official} == official
