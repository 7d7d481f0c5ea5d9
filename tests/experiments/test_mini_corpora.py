"""The corpora of Mini's study: what is in the pool, what stands beside it, and what is kept apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.mini import corpora
from recipes.mini.work_files import read_lines, write_figures, write_lines
from undersong.types import Clip, UndersongError

KINDS = ("nq", "alpaca", "self", "lm", "adv", "jbb", "strongreject", "xs_safe", "xs_unsafe")


def clip(
    kind: str, split: str, number: int, new: bool = False, voice: str = "flite:slt", played: float = 1.0
) -> dict[str, Any]:
    name = f"{kind}-{split}-{number}"
    text = f"Tell me about {name}." if number % 2 else f"who made {name}"
    ident = f"{name}-{voice}{'-new' if new else ''}{'' if played == 1.0 else played}"
    return {
        "id": ident, "audio": "a.flac", "text_id": name, "text": text, "kind": kind, "split": split, "group": name,
        "speaker": voice, "new_voice": new, "played": played, "seconds": 2.0 + number % 3,
    }  # fmt: skip


@pytest.fixture
def work(tmp_path: Path) -> Path:
    clips = [clip(kind, split, n) for kind in KINDS for split in ("train", "dev", "test") for n in range(120)]
    clips += [clip("adv", "test", n, new=True) for n in range(120)]
    clips += [clip("adv", "train", n, voice="espeak:en-us") for n in range(120)]
    clips += [clip(kind, "train", n, voice="espeak:en", played=1.16) for kind in ("nq", "adv") for n in range(120)]
    write_lines(tmp_path / "clips.jsonl", clips)
    texts = {one["text_id"]: {"id": one["text_id"], **{k: one[k] for k in ("text", "kind", "split")}} for one in clips}
    write_lines(tmp_path / "texts.jsonl", list(texts.values()))
    return tmp_path


def test_the_pool_is_of_answered_public_sentences(work: Path) -> None:
    own = {f"{kind}-train-{n}": "Yes." for kind in ("nq", "alpaca", "self", "lm", "adv") for n in range(0, 120, 2)}
    made = corpora.corpora(work, own)
    assert {dict(one.labels)["kind"] for one in made["pool"]} == {"nq", "alpaca", "self"}
    assert len(made["pool"]) == 3 * 60
    assert {one.answer for one in made["pool"]} == {"Yes."}
    assert {dict(one.labels)["mood"] for one in made["pool"]} == {"question"}
    everywhere: dict[str, set[str]] = {}
    for name, samples in made.items():
        for one in samples:
            everywhere.setdefault(str(one.group), set()).add(name)
    shared = {frozenset(names) for names in everywhere.values() if len(names) > 1}
    assert shared == {
        frozenset({"reference", "mixed-harm"}),
        frozenset({"reference", "contrast-harm"}),
        frozenset({"test-adv", "test-adv-new-voices"}),
    }
    assert not any(name.startswith("lm") for name in everywhere)
    assert all(one.answer is None for name, samples in made.items() if name != "pool" for one in samples)


def test_the_small_part_is_the_same_requests_in_new_voices(work: Path) -> None:
    made = corpora.corpora(work, {})
    small = [
        {one.group for one in made[name] if dict(one.labels)["part"] == "small"}
        for name in ("test-adv", "test-adv-new-voices")
    ]
    assert small[0] == small[1]
    assert len(small[0]) == corpora.SMALL["adv"]
    assert len(made["mixed-harm"]) == len({one.group for one in made["mixed-harm"]}) == corpora.MIXED
    assert len(made["contrast-harm"]) == len(made["contrast-benign"]) == corpora.CONTRAST


def test_a_request_that_only_one_voice_could_say_does_not_move_the_others(work: Path) -> None:
    clips = read_lines(work / "clips.jsonl")
    small = {one.group for one in corpora.corpora(work, {})["test-adv"] if dict(one.labels)["part"] == "small"}
    gone = sorted(str(group) for group in small)[0]
    for new in (False, True):  # which of the two it is that is not there
        write_lines(work / "clips.jsonl", [one for one in clips if (one["text_id"], one["new_voice"]) != (gone, new)])
        made = corpora.corpora(work, {})
        here, there = (
            {one.group for one in made[name] if dict(one.labels)["part"] == "small"}
            for name in ("test-adv", "test-adv-new-voices")
        )
        assert (here - there, there - here) == (({gone}, set()) if new else (set(), set()))


def test_requests_are_drawn_from_as_many_clusters_as_there_are() -> None:
    clips = [clip("adv", "train", n) for n in range(60)]
    for one in clips[20:]:  # a large cluster
        one["group"] = "one"
    for count, clusters in ((10, 10), (21, 21), (30, 21), (60, 21)):
        kept = corpora.spread(clips, count)
        assert len(kept) == count
        assert len({one["group"] for one in clips if one["text_id"] in kept}) == clusters
        assert kept == corpora.spread(clips[::-1], count)


def test_babble_is_of_different_voices(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voices = [f"flite:{i}" for i in range(8)]
    rows = [clip("nq", "dev", n, voice=voices[0 if n < 100 else n % 8]) for n in range(120)]
    write_lines(work / "clips.jsonl", rows)
    tone = np.sin(np.arange(1600) / 5, dtype=np.float32)
    monkeypatch.setattr(corpora, "load_clip", lambda sample: Clip(sample.id, tone, 16_000))
    heard = corpora.talkers(work)
    assert sorted(one.id for one in heard) == voices
    assert sum(one.samples.size for one in heard) == 120 * tone.size
    taken: list[list[str]] = []
    monkeypatch.setattr(
        corpora, "babble_noise", lambda clips, *rest: taken.append([one.id for one in clips]) or Clip("b", tone, 16_000)
    )
    corpora.write_noise(work)
    assert sorted(taken[0]) == voices


def test_no_sentence_of_the_pool_was_taught_an_answer(work: Path) -> None:
    """And what is drawn stays, whatever is trained later."""
    taught = [{"id": f"nq-train-{n}", "answer": "It is." if n < 50 else None} for n in range(60)]
    write_lines(work / "answers-0.jsonl", taught)
    parts = work / "parts-0"  # without a card
    free = {text["id"] for text in corpora.untaught(work, parts)}
    assert free == {f"{kind}-train-{n}" for kind in ("nq", "alpaca", "self") for n in range(120)} - {
        row["id"] for row in taught[:50]
    }
    write_lines(work / "answers-1.jsonl", [{"id": "alpaca-train-0", "answer": "So."}])
    assert {text["id"] for text in corpora.untaught(work, parts)} == free
    assert json.loads((work / "study" / "sentences.jsonl").read_text().splitlines()[0])["kind"] in corpora.POOL


def test_nor_by_a_training_elsewhere_that_the_parts_are_of(work: Path, tmp_path: Path) -> None:
    """Shipped parts beside a folder in which nothing was answered: what the recipe draws is what they were taught."""
    parts, texts = tmp_path / "shipped" / "mini", {"seed": 0, "texts": {"nq train": 120}}
    stages = {"texts": texts, "answers-3": {"asked": 100}}
    parts.mkdir(parents=True)
    (parts / "card.json").write_text(json.dumps({"seed": 3, "stages": stages}))
    with pytest.raises(UndersongError, match=r"learned from other sentences than .* holds"):
        corpora.untaught(work, parts)
    write_figures(work, "texts", {**texts, "few": False, "sets": "of here"})  # a card may be older, or of other files
    taught = {text["id"] for text in corpora.mini_answers.drawn(read_lines(work / "texts.jsonl"), 100, 3)}
    assert len(taught) == 100
    free = {text["id"] for text in corpora.untaught(work, parts)}
    assert free == {f"{kind}-train-{n}" for kind in ("nq", "alpaca", "self") for n in range(120)} - taught
    # And once drawn for one model, a pool is not for another that was taught some of it.
    write_lines(work / "answers-4.jsonl", [{"id": sorted(free)[0], "answer": "So."}])
    for asked, known in ((0, "1"), (100, r"\d\d+")):  # what was answered here, and what was drawn for them elsewhere
        card = {"seed": 4, "stages": {**stages, "answers-4": {"asked": asked}}}
        (parts / "card.json").write_text(json.dumps(card))
        with pytest.raises(UndersongError, match=rf"were taught {known} sentences of .*sentences\.jsonl; remove"):
            corpora.untaught(work, parts)


def test_a_folder_in_which_nothing_was_spoken_is_told(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match=r"There is no clips\.jsonl in .*; run recipes/mini there first"):
        corpora.write_noise(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_mood() -> None:
    assert [corpora.mood(text) for text in ("who was he", "Why not?", "Name a fish.", "Is it so")] == [
        "question", "question", "imperative", "question"
    ]  # fmt: skip
