"""What a stage of Mini's recipe was begun of: a folder of something else is never taken for what is asked now."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mini_data
import pytest
import torch

from experiments.mini.runner import chosen
from recipes.mini import decoder_training, encoder_cache, front_end, speech, texts
from recipes.mini.sizes import Mixture
from recipes.mini.work_files import BEGUN, same_as_begun, write_figures, write_lines
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
from undersong.types import UndersongError

ASKED = SimpleNamespace(
    seed=0, smoke=False, listening_steps=4, alignment_steps=4, device="cpu", dtype="float32", text_seed=0
)


def test_a_folder_is_of_what_it_was_begun_of(tmp_path: Path) -> None:
    same_as_begun(tmp_path / "old", {"a": 1}, done=True)  # of before there were notes
    assert not (tmp_path / "old").exists()
    same_as_begun(tmp_path / "new", {"a": 1, "b": (2,)}, done=False)
    same_as_begun(tmp_path / "new", {"a": 1, "b": [2]}, done=True)
    for other in ({"a": 1}, {"a": 1, "b": [3]}, {"a": 1, "b": [2], "c": 0}):
        with pytest.raises(
            UndersongError, match=r"new was made with [bc] .*; take another --work, or remove the folder"
        ):
            same_as_begun(tmp_path / "new", other, done=True)


def test_decoders_are_not_taken_for_those_of_another_front_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor an alignment for one on another listening adapter; what is asked again is not learned again."""
    learned: list[str] = []

    def learn(work: Path, stage: str, *_: Any) -> None:
        learned.append(stage)
        (work / stage / decoder_training.step_folder(4)).mkdir(parents=True)
        (work / stage / decoder_training.step_folder(4) / "adapter_model.safetensors").write_bytes(stage.encode())
        write_figures(work, stage, {"recipe": {}})

    monkeypatch.setattr(decoder_training, "_learn", learn)
    monkeypatch.setattr(decoder_training, "put_together", lambda *_: None)
    monkeypatch.setattr(decoder_training.answers, "run", lambda *_: {})
    write_lines(tmp_path / "clips.jsonl", [])
    write_lines(tmp_path / "texts.jsonl", [])
    write_lines(tmp_path / "answers-0.jsonl", [])
    fronts = [tmp_path / "front-a.safetensors", tmp_path / "front-b.safetensors"]
    for front in fronts:
        front.write_bytes(front.name.encode())
    base: Any = None
    for _ in range(2):
        listening = decoder_training.listen(tmp_path, base, fronts[0], ASKED)
        decoder_training.align(tmp_path, base, fronts[0], listening, ASKED)
    assert learned == ["listening-0", "alignment-0"]
    with pytest.raises(UndersongError, match="listening-0 was made with front end"):
        decoder_training.listen(tmp_path, base, fronts[1], ASKED)
    with pytest.raises(UndersongError, match="listening-0 was made with recipe"):
        decoder_training.listen(tmp_path, base, fronts[0], SimpleNamespace(**{**vars(ASKED), "listening_steps": 5}))
    (listening / "adapter_model.safetensors").write_bytes(b"another")
    with pytest.raises(UndersongError, match="alignment-0 was made with listening"):
        decoder_training.align(tmp_path, base, fronts[0], listening, ASKED)


def test_speech_is_not_taken_for_that_in_other_voices_or_of_other_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: Any) -> Any:
        raise UndersongError("no engine")

    monkeypatch.setattr(speech, "synthesize_speech", silent)
    text = {"id": "nq0", "text": "who was he", "kind": "nq", "split": "train", "group": "nq0"}
    write_lines(tmp_path / "texts.jsonl", [text])
    with pytest.raises(UndersongError, match="no engine"):
        speech.run(tmp_path, 0, 1, None)
    write_lines(tmp_path / "clips.jsonl", [])
    speech.run(tmp_path, 0, 1, None)
    for given in ((0, 2, None), (1, 1, None), (0, 1, "joe.onnx")):
        with pytest.raises(UndersongError, match=r"speech was made with .* or remove the folder and clips\.jsonl"):
            speech.run(tmp_path, *given)
    write_lines(tmp_path / "written.jsonl", [{**text, "id": "lm0"}])
    with pytest.raises(UndersongError, match="speech was made with sentences"):
        speech.run(tmp_path, 0, 1, None)


def test_cached_states_and_front_ends_are_of_these_clips(tmp_path: Path) -> None:
    """As many clips in other voices are other clips."""
    base: Any = SimpleNamespace(hashes={"whisper": "w", "smollm": "s"})
    recipe = front_end.FrontRecipe(steps=2)
    write_lines(tmp_path / "clips.jsonl", [{"id": "a"}])
    clips = encoder_cache.hash_file(tmp_path / "clips.jsonl")
    same_as_begun(tmp_path / "cache", {"clips": clips, "whisper": "w"}, done=False)
    same_as_begun(
        tmp_path / recipe.name, {"clips": clips, "base": base.hashes, "recipe": front_end.asdict(recipe)}, done=False
    )
    encoder_cache._write(encoder_cache.shard_file(tmp_path, 0), [torch.zeros(2, 3)])
    write_lines(tmp_path / "clips.jsonl", [{"id": "b"}])
    with pytest.raises(UndersongError, match="cache was made with clips"):
        encoder_cache.run(tmp_path, base, "cpu")
    with pytest.raises(UndersongError, match="front-1-2-0 was made with clips"):
        front_end.run(tmp_path, base, recipe, DEFAULT_LOAD_OPTIONS)


def test_texts_of_another_seed_or_of_no_sets_are_told(tmp_path: Path) -> None:
    data = mini_data.make(tmp_path / "data")
    texts.run(tmp_path, data, 0, True)
    before = (tmp_path / "texts.jsonl").read_bytes()
    texts.run(tmp_path, None, 0, True)
    with pytest.raises(UndersongError, match="were made with few True, and False is asked"):
        texts.run(tmp_path, data, 0, False)
    with (data / "xstest" / "xstest_prompts.csv").open("a") as file:
        file.write("4,Is it safe?,safe\n")
    with pytest.raises(UndersongError, match=r"were made with sets .*, and .* is asked"):
        texts.run(tmp_path, data, 0, True)
    with pytest.raises(UndersongError, match=r"There are no texts in .*; say where the public text sets are"):
        texts.run(tmp_path / "other", None, 0, True)
    with pytest.raises(UndersongError, match="were made with seed 0, and 1 is asked"):
        texts.run(tmp_path, data, 1, True)
    assert (tmp_path / "texts.jsonl").read_bytes() == before
    (data / "xstest" / "xstest_prompts.csv").unlink()
    with pytest.raises(UndersongError, match=r"There is no xstest/xstest_prompts\.csv in .* \(1 such\)"):
        texts.run(tmp_path / "other", data, 0, True)


def test_nothing_is_needed_of_what_has_no_share(tmp_path: Path) -> None:
    """Repetitions alone are learned where no sentence has an answer and no request is spoken."""
    clip = {"id": "nq0-v", "text_id": "nq0", "text": "who was he", "kind": "nq", "split": "train", "seconds": 1.0}
    write_lines(tmp_path / "clips.jsonl", [clip | {"audio": "a", "speaker": "v", "group": "nq0", "new_voice": False}])
    write_lines(tmp_path / "texts.jsonl", [])
    pairs = decoder_training.pairs_of(decoder_training.Pool(tmp_path, {}, 0), Mixture(repeat=1.0), 3)
    assert [target for _, target in pairs] == ["who was he"] * 3
    with pytest.raises(UndersongError, match="There is nothing to learn from"):
        decoder_training.pairs_of(decoder_training.Pool(tmp_path, {}, 0), Mixture(repeat=0.5, spoken_harm=0.5), 4)


def test_a_part_that_the_study_has_not_is_told(tmp_path: Path) -> None:
    parts: Any = [SimpleNamespace(study=f"mini-small-{name}") for name in ("proximity", "axes")]
    assert chosen("mini-small", parts, None) == parts
    assert chosen("mini-small", parts, ["axes"]) == parts[1:]
    with pytest.raises(UndersongError, match="mini-small has no part axis; it has proximity, axes"):
        chosen("mini-small", parts, ["proximity", "axis"])


def test_the_note_is_a_plain_file(tmp_path: Path) -> None:
    same_as_begun(tmp_path, {"b": 1, "a": [2]}, done=False)
    assert json.loads((tmp_path / BEGUN).read_text()) == {"a": [2], "b": 1}
