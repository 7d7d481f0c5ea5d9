"""inspect_ai asks an audio LLM through the provider, really: same prompts, same replies, same rates as the verbs."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import soundfile
import tiny_af3
import torch

pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentAudio,
    ContentImage,
    ContentText,
    GenerateConfig,
    get_model,
)
from inspect_ai.tool import ToolInfo

from undersong.evaluation.replies import read_replies, read_reply_table
from undersong.evaluation.verdicts import read_verdicts
from undersong.models.load import load_model
from undersong.models.lora import new_lora, save_adapter, use_adapter
from undersong.research.inspect.messages import UnusableClipError, prompt_of_messages
from undersong.research.inspect.provider import UndersongAPI
from undersong.research.inspect.scorers import SCORERS
from undersong.standalone.evaluate import EvaluationOptions, evaluate_manifest
from undersong.types import UndersongError

LIMIT = 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("clips") / "clip.wav"
    soundfile.write(file, tiny_af3.CLIPS[0].samples, tiny_af3.CLIPS[0].rate, subtype="FLOAT")
    return file


def inline(data: bytes) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(data).decode()}"


def spoken(clip: Path | str, *around: str) -> ChatMessageUser:
    """A clip, given by its file or as it stands, with text before and after it."""
    before, after = (*around, "", "")[:2]
    pieces: list[Any] = [ContentText(text=before)] if before else []
    source = inline(clip.read_bytes()) if isinstance(clip, Path) else clip
    pieces += [ContentAudio(audio=source, format="wav")]
    return ChatMessageUser(content=[*pieces, *([ContentText(text=after)] if after else [])])


@pytest.mark.parametrize(("task", "corpus"), [("jsr", "unseen-harm"), ("over_refusal", "unseen-benign")])
def test_a_task_finds_what_evaluate_finds(task: str, corpus: str, tmp_path: Path) -> None:
    """On spoken prompts of an organism: every reply, every verdict, the rate and its interval."""
    (log,) = eval(
        f"undersong/{task}",
        model="undersong/organism:af3",
        task_args={"corpus": f"organism:{corpus}"},
        log_dir=str(tmp_path / "logs"),
        display="none",
    )
    assert log.status == "success"
    harmful = task == "jsr"
    question = EvaluationOptions("harm" if harmful else "benign", harmful)
    entry = evaluate_manifest(f"organism:{corpus}", "organism:af3", tmp_path / "out", None, question).rate
    assert log.results is not None
    (score,) = log.results.scores
    found = {name: metric.value for name, metric in score.metrics.items()}
    assert next(iter(found)) == ("jsr" if harmful else "over_refusal")  # the headline
    assert found["jsr" if harmful else "over_refusal"] == entry.rate
    assert [found[key] for key in ("low", "high", "n", "clusters")] == [
        getattr(entry, key) for key in ("low", "high", "n", "clusters")
    ]
    table = read_verdicts(tmp_path / "out" / "verdicts.parquet")
    by_id = {one.prompt_id: replace(one, refusal_margin=None) for one in table}  # inspect's replies have no margin
    logged = read_verdicts(Path(log.location))
    assert {one.prompt_id: one for one in logged} == by_id
    replies = {one.prompt_id: one.reply for one in read_replies(tmp_path / "out" / "replies.parquet")}
    assert {prompt.sample.id: reply.reply for prompt, reply in read_reply_table(Path(log.location))} == replies


def test_requests_at_once_are_one_batch_and_each_has_its_own_reply(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["paint the boat", "wash the old lamp", "fold the chair", "paint the red chair", "wash the boat"]
    model = get_model(f"undersong/{tiny_folder}", memoize=False)
    batches: list[int] = []
    inside = model.api
    assert isinstance(inside, UndersongAPI)

    def answer(batch: list[Any]) -> None:
        batches.append(len(batch))
        UndersongAPI._answer_batch(inside, batch)

    monkeypatch.setattr(inside, "_answer_batch", answer)

    async def ask() -> tuple[list[str], list[str]]:
        async def one(place: int) -> None:
            replies[place] = (await model.generate(texts[place], config=config)).completion

        replies, config = [""] * len(texts), GenerateConfig(max_tokens=LIMIT)
        async with anyio.create_task_group() as group:
            for place in range(len(texts)):
                group.start_soon(one, place)
        together, together_in = list(replies), list(batches)
        for place in range(len(texts)):
            await one(place)
        assert sum(together_in) == len(texts)
        assert len(together_in) < len(texts)
        return together, replies

    together, alone = anyio.run(ask)
    assert together == alone
    own = load_model(str(tiny_folder))
    assert alone == [reply.reply for reply in own.generate([tiny_af3.typed(t, system_text=None) for t in texts], LIMIT)]


def ask_at_once(model: Any, texts: list[str]) -> list[str]:
    """The replies to texts that are asked at once, or what each was refused with."""

    async def ask() -> list[str]:
        async def one(place: int) -> None:
            try:
                replies[place] = (await model.generate(texts[place], config=config)).completion
            except RuntimeError as error:
                replies[place] = str(error)

        replies, config = [""] * len(texts), GenerateConfig(max_tokens=LIMIT)
        async with anyio.create_task_group() as group:
            for place in range(len(texts)):
                group.start_soon(one, place)
        return replies

    return anyio.run(ask)


def test_the_same_prompt_asked_many_times_is_as_many_requests(tiny_folder: Path) -> None:
    """As by epochs, and more of them at once than a batch holds."""
    model = get_model(f"undersong/{tiny_folder}", memoize=False, batch=2)
    replies = ask_at_once(model, 5 * ["paint the boat"])
    (alone,) = ask_at_once(model, ["paint the boat"])
    assert replies == 5 * [alone]


def test_a_batch_that_fails_is_asked_again_by_the_others_in_it(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["paint the boat", "wash the old lamp", "fold the chair", "paint the lamp"]
    model = get_model(f"undersong/{tiny_folder}", memoize=False)
    expected = ask_at_once(model, texts)
    inside, failed = model.api, list[int]()
    assert isinstance(inside, UndersongAPI)

    def once(batch: list[Any]) -> None:
        if not failed and len(batch) > 1:
            failed.append(len(batch))
            raise RuntimeError("out of memory, say")
        UndersongAPI._answer_batch(inside, batch)

    monkeypatch.setattr(inside, "_answer_batch", once)
    replies = ask_at_once(model, texts)
    assert failed
    assert replies.count("out of memory, say") == 1
    assert all(said in (wanted, "out of memory, say") for said, wanted in zip(replies, expected))


def test_an_adapter_a_system_text_and_a_limit_count(tiny_folder: Path, clip: Path, tmp_path: Path) -> None:
    own = load_model(str(tiny_folder))
    torch.manual_seed(0)
    with new_lora(own, 4, 8, 0.0, None) as learner:
        for name, parameter in learner.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        save_adapter(own, tmp_path / "adapter")

    def ask(adapter: Path | None, system: str, limit: int) -> Any:
        arguments = {} if adapter is None else {"adapter": str(adapter)}
        model = get_model(f"undersong/{tiny_folder}", memoize=False, **arguments)
        messages = [ChatMessageSystem(content=system), spoken(clip, "", "paint the boat")]
        return anyio.run(lambda: model.generate(messages, config=GenerateConfig(max_tokens=limit)))

    base, tuned = ask(None, "you are a helpful assistant", LIMIT), ask(tmp_path / "adapter", "wash the lamp", LIMIT)
    for output, adapter, system in (
        (base, None, "you are a helpful assistant"),
        (tuned, tmp_path / "adapter", "wash the lamp"),
    ):
        own.audio_features = {tiny_af3.CLIPS[0].id: own.encode_audio(tiny_af3.CLIPS[:1])[0]}
        with use_adapter(own, adapter):
            prompt = tiny_af3.spoken(0, system_text=system, instruction="paint the boat")
            (reply,) = own.generate([prompt], LIMIT)
        assert output.completion == reply.reply
        assert output.usage.output_tokens == reply.tokens
    assert base.completion != tuned.completion
    short = ask(None, "you are a helpful assistant", 1)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 1)


def test_a_clip_that_cannot_be_used_stays_in_the_denominator(tiny_folder: Path, clip: Path, tmp_path: Path) -> None:
    sources = {"file": str(clip), "inline": clip, "broken": inline(b"RIFF no sound at all")}
    samples = [Sample(id=name, input=[spoken(one)], metadata={"cluster": name}) for name, one in sources.items()]
    task = Task(dataset=samples, scorer=SCORERS["keyword"](), config=GenerateConfig(max_tokens=LIMIT))
    (log,) = eval(task, model=f"undersong/{tiny_folder}", log_dir=str(tmp_path / "logs"), display="none")
    assert log.status == "success"
    assert log.results is not None
    found = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
    assert found["n"] == 3
    assert found["error"] == pytest.approx(1 / 3)
    assert found["non_refusal_rate"] == pytest.approx(2 / 3)  # keywords see refusals only, and this is called so
    assert found["non_refusal_rate_at_most"] == 1
    words = {one.prompt_id: one.verdict for one in read_verdicts(Path(log.location))}
    assert words == {"file": "jailbreak", "inline": "jailbreak", "broken": "error"}


def test_what_it_cannot_do_is_said_in_a_sentence(tiny_folder: Path, clip: Path) -> None:
    model = get_model(f"undersong/{tiny_folder}", memoize=False).api

    def refused(match: str, *messages: Any, tools: Any = (), **config: Any) -> None:
        asked = list(messages) or [ChatMessageUser(content="paint the boat")]
        with pytest.raises(UndersongError, match=match):
            anyio.run(lambda: model.generate(asked, list(tools), "auto", GenerateConfig(**config)))

    refused("cannot call tools", tools=[ToolInfo(name="shell", description="of a machine")])
    refused("does not support temperature", temperature=0.7)
    refused("does not support num_choices", num_choices=3)
    refused("does not support top_p", top_p=0.9)
    refused("supports text and audio, not image", ChatMessageUser(content=[ContentImage(image="cat.png")]))
    two = [ContentAudio(audio=inline(clip.read_bytes()), format="wav")] * 2
    refused("supports one clip per prompt, not 2", ChatMessageUser(content=two))  # type: ignore[arg-type]
    refused("before a clip or after it, not both", spoken(clip, "wash", "the lamp"))
    turns = [ChatMessageUser(content="hello"), ChatMessageAssistant(content="hello"), ChatMessageUser(content="paint")]
    refused("answers one turn of a user, not user, assistant, user", *turns)
    refused("The user's turn to .* is empty", ChatMessageUser(content="  "))
    refused("is not a base64 data URI", spoken("https://example.org/clip.wav"))
    for neutral in ({"temperature": 0.0}, {"num_choices": 1}, {"seed": 3}, {"top_p": 1.0}):
        asked = [ChatMessageUser(content="paint the boat")]
        anyio.run(lambda: model.generate(asked, [], "auto", GenerateConfig(max_tokens=1, **neutral)))  # noqa: B023
    with pytest.raises(UndersongError, match="has no argument 'revision'; use device, dtype"):
        get_model(f"undersong/{tiny_folder}", memoize=False, revision="main")
    with pytest.raises(UndersongError, match="no PEFT adapter folder"):
        get_model(f"undersong/{tiny_folder}", memoize=False, adapter=str(clip.parent))


def test_text_stands_where_it_was_typed(clip: Path) -> None:
    before, after = (prompt_of_messages([one], "m") for one in (spoken(clip, "Listen."), spoken(clip, "", "Answer.")))
    assert (before.instruction, before.instruction_first) == ("Listen.", True)
    assert (after.instruction, after.instruction_first) == ("Answer.", False)
    inside = prompt_of_messages([ChatMessageSystem(content="Be kind."), spoken(clip)], "m")
    assert inside.sample.pcm_hash == before.sample.pcm_hash
    assert (inside.system_text, inside.instruction) == ("Be kind.", None)
    written = prompt_of_messages([ChatMessageUser(content=[ContentText(text="a"), ContentText(text="b")])], "m")
    assert (written.modality, written.user_text) == ("text", "a\nb")
    with pytest.raises(UnusableClipError, match="is not base64"):
        prompt_of_messages([spoken("data:audio/wav;base64,%%%")], "m")
    with pytest.raises(UnusableClipError, match="cannot be used: "):
        prompt_of_messages([spoken(inline(bytes(40)))], "m")


def test_a_model_is_loaded_when_it_is_asked_and_not_when_it_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    """inspect_ai makes a provider for every look-up of a model's name."""
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text(json.dumps({"model_type": "audioflamingo3"}))
    model = get_model(f"undersong/{empty}", memoize=False)
    with pytest.raises(UndersongError, match="empty"):
        anyio.run(lambda: model.generate("paint the boat"))
