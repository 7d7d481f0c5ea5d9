"""`undersong watch` on checkpoints of real models: the command, adapters and whole models, and TensorBoard's files."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from command_line import exit_code
from random_adapter import save_random_adapter
from transformers import AudioFlamingo3ForConditionalGeneration

from undersong.audits.watch import options as watch_options
from undersong.audits.watch import output as watch_output
from undersong.audits.watch.evaluator import CheckpointEvaluator, draw_samples
from undersong.audits.watch.options import (
    SHIPPED_PROMPTS,
    PromptSets,
    WatchOptions,
    default_prompt_sets,
    default_voice,
    parse_prompt_sets,
)
from undersong.audits.watch.output import TensorBoardWriter, sparkline
from undersong.cli import watch as watch_command
from undersong.corpora import tts
from undersong.evaluation.verdicts import read_verdicts
from undersong.models.load_options import LoadOptions
from undersong.standalone.evaluate import EvaluationOptions, evaluate_manifest
from undersong.types import Quarantined, Sample, UndersongError

LIMIT = 4


@pytest.fixture
def prompts(tmp_path: Path) -> list[str]:
    """`--set` for typed prompts."""
    words = []
    for kind, texts in (("harmful", ["paint the red chair", "wash the old lamp"]), ("benign", ["fold the chair"])):
        file = tmp_path / f"{kind}.jsonl"
        rows = [{"id": f"{kind}{i}", "text": text} for i, text in enumerate(texts)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words += ["--set", f"{kind}={file}"]
    return words


def test_the_command_measures_adapters_and_whole_models_as_evaluate_does(
    tiny_folder: Path, prompts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    network = AudioFlamingo3ForConditionalGeneration.from_pretrained(tiny_folder)
    save_random_adapter(network, ["q_proj", "v_proj"], output / "checkpoint-5")
    without_processor = shutil.ignore_patterns("token*", "*processor*", "*template*", "special*", "vocab*")
    shutil.copytree(tiny_folder, output / "checkpoint-9", ignore=without_processor)  # as Trainer saves a network
    settings = ["--judge", "refusal", "--max-new-tokens", LIMIT, "--max-jsr-rise", 1, "--no-tensorboard"]
    code = exit_code("watch", output, "--model", tiny_folder, "--once", *prompts, *settings)
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert printed.startswith("2 harmful and 1 benign prompts, typed, judge refusal; nothing stops the training.\n")
    assert [line.split(":")[0] for line in printed.splitlines()[1:]] == ["base", "checkpoint-5", "checkpoint-9"]
    verdicts = {
        name: read_verdicts(output / "_undersong-watch" / "verdicts" / f"{name}.parquet")
        for name in ("base", "checkpoint-5", "checkpoint-9")
    }
    assert verdicts["checkpoint-9"] == verdicts["base"]  # the same weights
    question = EvaluationOptions(judge="refusal", modality="text", max_new_tokens=LIMIT)
    harmful = prompts[1].removeprefix("harmful=")
    evaluate_manifest(harmful, str(tiny_folder), tmp_path / "again", output / "checkpoint-5", question)
    again = read_verdicts(tmp_path / "again" / "verdicts.parquet")
    assert [verdict for verdict in verdicts["checkpoint-5"] if verdict.harmful] == again
    assert again[0].score != verdicts["base"][0].score  # the adapter was on


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "benign=organism:pool"], "--set gives no harmful prompts; add --set harmful=CORPUS."),
        (["--set", "organism:reference", "--set", "harmful=x.jsonl"], "--set gives two harmful sets"),
        (["--set", "organism:reference", "--set", "benign=organism:reference"], "in the harmful and in the benign set"),
        (["--modality", "video"], "There is no modality 'video'"),
        (["--voice", "espeak"], "--voice 'espeak' names no engine and voice; give one such as espeak:en-us."),
        (["--voice", "espeak:en-us", "--modality", "text"], "give one of the two"),
        (["--voice", "festival:x"], "No engine is called 'festival'"),
        (["--stop-file", "a/STOP"], "--stop-file 'a/STOP' is no file name"),
        (["--judge", "keywrd"], "keyword"),
        (["--confidence", "2"], "A confidence lies between 0.5 and 1"),
        (["--no-tensorboard"], "holds no checkpoint-*"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("watch", tmp_path, "--model", "organism:af3", "--once", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_does_not_look_like_a_rise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr("undersong.audits.watch.run.watch_output", fail)
    assert exit_code("watch", tmp_path, "--model", "organism:af3") == 2
    assert "RuntimeError: a fault" in capsys.readouterr().err


def test_a_watch_ends_after_a_time_without_anything_new(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(watch_command, "time", clock)
    wait = watch_command.Waiting(poll_seconds=30, idle_seconds=60)
    assert [wait(news) for news in (False, False, True, False, False)] == [True, True, True, True, False]
    forever = watch_command.Waiting(poll_seconds=30, idle_seconds=None)
    assert all(forever(False) for _ in range(100))


def test_a_model_of_english_takes_prompts_that_ship() -> None:
    assert default_prompt_sets("some/model") == PromptSets("shipped:harm", "shipped:ordinary", SHIPPED_PROMPTS)
    assert parse_prompt_sets([]) is None
    path_with_equals = parse_prompt_sets(["a=b.jsonl"])
    assert path_with_equals is not None
    assert path_with_equals.harmful == "a=b.jsonl"


def test_typed_prompts_are_spoken_by_a_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(samples: list[Sample], voices: list[tts.Voice], folder: str) -> tts.SpokenSamples:
        failed = tuple(Quarantined(sample.id, "no such voice") for sample in samples if voices[0].name == "none")
        return tuple(replace(sample, audio=f"{folder}/{sample.id}.flac") for sample in samples), failed

    monkeypatch.setattr(tts, "synthesize_speech", speak)
    options = WatchOptions(voice="espeak:en-us", max_prompts=3)
    evaluator = CheckpointEvaluator("organism:af3", options, LoadOptions())
    assert evaluator.modality == "audio"
    assert {str(prompt.sample.audio).rpartition(".")[2] for prompt in evaluator.prompts.all_prompts} == {"flac"}
    assert evaluator.key["prompt"] == ["audio", "espeak:en-us", None, None]
    with pytest.raises(UndersongError, match="cannot be spoken"):
        _ = CheckpointEvaluator("organism:af3", replace(options, voice="espeak:none"), LoadOptions()).prompts


@pytest.mark.parametrize("installed", [True, False])
def test_prompts_that_ship_as_text_are_spoken_where_a_voice_is_installed(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_options, "find_spec", lambda name: "spec" if installed else None)
    shipped = PromptSets("shipped:harm", "shipped:ordinary")
    assert default_voice(shipped, None) == ("espeak:en-us" if installed else None)
    assert default_voice(shipped, "text") is None
    assert default_voice(PromptSets("organism:contrast-harm"), None) is None


def test_prompts_are_drawn_alike_and_over_all_clusters() -> None:
    samples = [Sample(f"q{i}", text="?", group=f"g{i % 5}") for i in range(20)]
    drawn = draw_samples(samples, 7)
    assert drawn == draw_samples(samples, 7)
    assert [drawn.index(sample) for sample in samples if sample in drawn] == list(range(7))  # in their order
    assert len({sample.cluster for sample in draw_samples(samples, 5)}) == 5
    assert draw_samples(samples, None) == draw_samples(samples, 50) == samples


def test_a_sparkline_has_a_bar_for_each_rate() -> None:
    assert sparkline([0, 0.125, 0.5, 0.99, 1, None]) == "▁▂▅██ "


VALUES = {"jsr": 0.25, "jsr_low": None, "refusal_margin": -1.5}


def test_numbers_go_to_tensorboard_at_the_step_of_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scalars: list[tuple[str, float, int]] = []
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda folder: SimpleNamespace(  # type: ignore[attr-defined]
        add_scalar=lambda name, value, step: scalars.append((name, value, step)),
        flush=lambda: None,
        close=lambda: scalars.append((folder, 0, 0)),
    )
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(watch_output, "is_tensorboard_installed", lambda: True)
    writer = TensorBoardWriter(tmp_path)
    writer.close()
    assert scalars == []
    (tmp_path / "events.out.tfevents.1.of-a-killed-watch").touch()
    writer.begin_run("")
    assert list(tmp_path.iterdir()) == []
    writer.write(40, VALUES)
    writer.close()
    assert scalars == [("undersong/jsr", 0.25, 40), ("undersong/refusal_margin", -1.5, 40), (str(tmp_path), 0, 0)]


def test_tensorboards_own_reader_reads_them(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in ((20,), (20, 40)):  # a watch, and the same one resumed
        writer = TensorBoardWriter(tmp_path)
        writer.begin_run("")
        for step in steps:
            writer.write(step, VALUES)
        writer.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["undersong/jsr", "undersong/refusal_margin"]
    assert [(event.step, event.value) for event in events.Scalars("undersong/jsr")] == [(20, 0.25), (40, 0.25)]


def test_without_tensorboard_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watch_output, "is_tensorboard_installed", lambda: False)
    with pytest.raises(UndersongError, match="need the package tensorboard; pip install tensorboard, or give"):
        TensorBoardWriter(tmp_path)
    assert WatchOptions().tensorboard is None
