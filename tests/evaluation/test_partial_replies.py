"""An interrupted generation goes on from the batches that it finished, and ends with the same replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from undersong.encoders.batching import Progress
from undersong.evaluation.partial_replies import PartialReplies, keep_replies
from undersong.evaluation.prompts import make_prompts
from undersong.models.audio_lm import AudioModel
from undersong.types import Prompt, Sample

WORDS = ("paint the boat", "wash the cup", "paint the old boat", "wash")


@pytest.fixture
def prompts() -> list[Prompt]:
    samples = [Sample(f"p{i}", text=text) for i, text in enumerate(WORDS)]
    return make_prompts(samples, set_name="harm", harmful=True, modality="text", system="plain", system_text=None)


def test_a_killed_generation_asks_only_for_what_is_missing(
    tiny: AudioModel, prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny.generate(prompts, 4, batch_size=2)
    file = tmp_path / "kept.batches"
    generated: list[int] = []
    original = tiny.model.generate

    def count(**inputs: Any) -> Any:
        generated.append(len(inputs["inputs_embeds"]))
        if len(generated) == 2:
            raise KeyboardInterrupt
        return original(**inputs)

    monkeypatch.setattr(tiny.model, "generate", count)
    with pytest.raises(KeyboardInterrupt), keep_replies(tiny, file, len(prompts)):
        tiny.generate(prompts, 4, batch_size=2)
    assert file.stat().st_mode & 0o777 == 0o600
    seen: list[Progress] = []
    with keep_replies(tiny, file, len(prompts), seen.append):
        assert tiny.generate(prompts, 4, batch_size=2) == whole
    assert generated == [2, 2, 2]  # the first batch is not generated again
    assert [(progress.done, progress.total) for progress in seen] == [(2, 4), (4, 4)]
    assert tiny.reply_keeper is None


def test_a_torn_line_and_another_batch_are_not_taken(tiny: AudioModel, prompts: list[Prompt], tmp_path: Path) -> None:
    replies = tiny.generate(prompts, 4)
    keeper = PartialReplies(tmp_path / "kept.batches", 4)
    keeper.add(replies[:2])
    with keeper.path.open("a") as file:
        file.write('\n[{"prompt_id": "p2", "set')
    again = PartialReplies(keeper.path, 4)
    assert again.find(prompts[:2]) == replies[:2]
    assert again.find(prompts[1:3]) is None
    assert again.find(prompts[2:]) is None


def test_other_models_are_left_alone(tmp_path: Path) -> None:
    with keep_replies(object(), tmp_path / "kept.batches", 1):
        pass
    assert not list(tmp_path.iterdir())
