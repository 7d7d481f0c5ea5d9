"""The verb `screen`: options reach the screening, failures are one sentence and exit code 2."""

from __future__ import annotations

import csv
import json

import pytest
from command_line import undersong_in

POOL = [
    {"id": f"p{i}", "text": text}
    for i, text in enumerate(["paint a [bold]wall", "rob a bank", "sing", "rob a man", "dig"])
]
HARM = [{"id": "h0", "text": "rob the man"}, {"id": "h1", "text": "rob the bank"}]


@pytest.fixture
def undersong(tmp_path, monkeypatch):
    """Runs the command line in a folder with pool.jsonl and harm.jsonl -> exit code, stdout, stderr."""
    for name, rows in (("pool", POOL), ("harm", HARM)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    return undersong_in(tmp_path)


def test_prints_what_it_found(undersong, tmp_path) -> None:
    code, out, _ = undersong("screen", "pool.jsonl", "--harm", "harm.jsonl", "--keep", "closest:2", "--out", "kept")
    assert code == 0
    assert "p1: rob a bank" in out
    assert "h1: rob the bank" in out
    assert "paint a [bold]wall" in out  # data is not markup
    assert "Kept the closest 2 of 5 by semantic" in out
    assert json.loads((tmp_path / "kept" / "selection.json").read_text())["ids"] == ["p1", "p3"]


def test_without_a_rule_nothing_is_kept_and_the_list_is_ranked(undersong, tmp_path) -> None:
    code, out, _ = undersong("screen", "pool.jsonl", "--harm", "harm.jsonl", "--out", "ranked", "--axis", "words=tfidf")
    assert code == 0
    assert "Ranked 5 by words; the list is ranked/ranked.csv. Without --keep, no samples are kept." in out
    names = sorted(path.name for path in (tmp_path / "ranked").iterdir())
    assert names == ["proximity.parquet", "quarantine.parquet", "ranked.csv", "screening.json"]
    with (tmp_path / "ranked" / "ranked.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert (rows[0]["text"], rows[0]["nearest_id"], rows[0]["nearest_text"]) == ("rob a bank", "h1", "rob the bank")
    assert undersong("screen", "pool.jsonl", "--harm", "harm.jsonl", "--out", "ranked")[0] == 0  # may be replaced
    code, _, err = undersong(
        "screen", "pool.jsonl", "--harm", "harm.jsonl", "--out", "ranked", "--output-format", "messages"
    )
    assert (code, "--output-format needs samples that are kept" in err) == (2, True)


def test_options_reach_the_screening(undersong, tmp_path) -> None:
    code, _, _ = undersong(
        "screen", "pool.jsonl", "--harm", "harm.jsonl", "--out", "kept", "--axis", "words=tfidf", "--axis",
        "letters=char-ngrams", "--select-axis", "letters",
        "--score", "knn:2", "--center", "--keep", "random:0.4", "--seed", "3",
    )  # fmt: skip
    assert code == 0
    selection = json.loads((tmp_path / "kept" / "selection.json").read_text())
    assert {name: value for name, value in selection.items() if not name.startswith("ids")} == {
        "axis": "letters", "score": "knn:2 centered", "kind": "random", "fraction": 0.4, "k": 2, "seed": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--axis", "semantic=tfdif"], "the nearest known is 'tfidf'"),
        (["--select-axis", "acoustic"], "no axis 'acoustic'"),
        (["--keep", "closest:2.5"], "Cannot keep a share of 2.5"),
        (["--keep", "closest:9"], "Cannot keep 9 of a pool of 5"),
        (["--score", "knn:3"], "k = 3 neighbors in a harm set of 2"),
        (["--harm", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--max-quarantined", "2"], "max-quarantined"),
    ],
)
def test_failures_are_one_sentence_and_exit_2(undersong, tmp_path, arguments: list[str], sentence: str) -> None:
    code, _, err = undersong("screen", "pool.jsonl", "--harm", "harm.jsonl", "--out", "kept", *arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["harm.jsonl", "pool.jsonl"]


def test_an_item_of_somebody_else_gives_a_terminal_no_orders(undersong, tmp_path) -> None:
    item = {"id": "a\x1b[2J\u202eb", "audio": "gone.wav", "text": "x"}
    (tmp_path / "odd.jsonl").write_text(json.dumps(item) + "\n" + (tmp_path / "pool.jsonl").read_text())
    code, _, err = undersong("screen", "odd.jsonl", "--harm", "harm.jsonl", "--out", "kept", "--axis", "sound=logmel")
    assert code == 2
    assert r"a\x1b[2J\u202eb" in err
    assert "\x1b" not in err


def test_names_of_axes_are_never_cut(undersong, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    axes = ["--axis", "semantic=tfidf", "--axis", "characters=char-ngrams"]
    code, out, _ = undersong("screen", "pool.jsonl", "--harm", "harm.jsonl", "--out", "kept", *axes)
    assert code == 0
    assert "semantic" in out
    assert "characters" in out
    assert "…" not in out


def test_rules_may_be_several(undersong, tmp_path) -> None:
    code, out, _ = undersong(
        "screen", "pool.jsonl", "--harm", "harm.jsonl", "--out", "kept", "--axis", "words=tfidf", "--keep", "closest:2",
        "--keep", "closest:3", "--output-format", "hub",
    )  # fmt: skip
    assert code == 0
    assert "Kept too: the closest 3 of 5 by words, 2 of them among the first." in out
    assert "Kept the closest 2 of 5 by words" in out
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == ["kept", "kept-2", "proximity.parquet", "quarantine.parquet", "ranked.csv", "screening.json",
                     "selection-2.json", "selection.json"]  # fmt: skip


def test_rehearsed_sets_are_a_table_with_the_most_damaging_first(undersong, monkeypatch) -> None:
    from undersong.results.schema_base import ValueWithInterval
    from undersong.results.schema_screening import RehearsalRecord, RehearsedSet
    from undersong.screening.pool import axis_choice
    from undersong.screening.pool import run as module

    change = ValueWithInterval(value=0.5, low=-0.1, high=0.9)

    def rehearsed(name: str, loss: float, **more) -> RehearsedSet:
        value = ValueWithInterval(value=loss, low=loss - 1, high=loss + 1)
        return RehearsedSet(
            name=name, kind="pool", n=4, ids_hash="0" * 64, loss=value, compliance=0.5, compliance_change=change, **more
        )

    difference = ValueWithInterval(value=0.75, low=None, high=None)
    record = RehearsalRecord(
        model="organism:af3", harm_set="harm", modality="audio", steps=8, seeds=[0], learning_rate=5e-4,
        learning_rate_schedule="constant", warmup_steps=5, batch_size=8, lora_rank=8, lora_alpha=16, n_prompts=2,
        n_behaviors=2, margin_before=3.0, compliance_before=0.0,
        sets=[rehearsed("pool", 0.25), rehearsed("closest:2", 1.5, loss_minus_random=difference)],
        notes=["Not proof of safety."],
    )  # fmt: skip
    monkeypatch.setattr(axis_choice, "check_rehearsal", lambda *_: None)
    monkeypatch.setattr(module, "rehearsal_stage", lambda *_: "stage")
    monkeypatch.setattr(module, "unusable_samples", lambda *_: [])
    monkeypatch.setattr(module, "rehearse_sets", lambda *_: record)
    arguments = ("--axis", "words=tfidf", "--model", "organism:af3", "--rehearse", "8", "--out", "kept")
    code, out, err = undersong("screen", "pool.jsonl", "--harm", "harm.jsonl", *arguments)
    assert code == 0, err
    words = " ".join(out.split())
    assert "Loss of refusal margin on harm by 8 steps, in nats, with 95 % intervals over behaviors" in words
    assert "comply with 0% of 2 harmful prompts of 2 behaviors (margin below 0); the mean margin is 3.00 nats" in words
    assert "Not proof of safety." in out
    closest, pool = (next(row for row in out.splitlines() if value in row) for value in ("+1.50", "+0.25"))
    assert "closest:2" in closest
    assert "+1.50 [+0.50, +2.50]" in closest
    assert "+0.75" in closest
    assert "+50 [-10, +90]" in closest
    assert out.index(closest) < out.index(pool)


def test_plan_says_what_a_rehearsal_costs_and_writes_nothing(undersong, tmp_path) -> None:
    for name, rows in (("pool", POOL), ("harm", HARM)):
        lines = (json.dumps({**row, "answer": "yes"}) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    arguments = ("screen", "pool.jsonl", "--harm", "harm.jsonl", "--axis", "words=tfidf", "--out", "kept", "--plan")
    code, out, err = undersong(*arguments, "--keep", "closest:2", "--model", "organism:af3", "--rehearse", "8")
    assert code == 0, err
    assert out.splitlines()[:2] == [
        "Rehearsal: 4 trainings of 8 steps by organism:af3, 8 samples a step, and 2 reference prompts measured after "
        "each.",
        "To do: 4 trainings, 32 steps, 256 samples to train on, 10 prompts to measure, those before training included.",
    ]
    assert "Cost: unknown, because without --store nothing is kept" in out
    assert not (tmp_path / "kept").exists()
    code, _, err = undersong(*arguments)
    assert (code, "add --rehearse STEPS" in err) == (2, True)


def write_clips(folder, *names: str) -> None:
    import numpy as np
    import soundfile

    for i, name in enumerate(names):
        soundfile.write(folder / name, np.sin(np.arange(1600) / (4 + i)) / 2, 16_000)


def test_audio_under_a_name_of_the_field_is_ranked(undersong, tmp_path) -> None:
    """D1 of the trial: such a table became a text set without a word."""
    write_clips(tmp_path, "p0.wav", "p1.wav", "h0.wav")
    (tmp_path / "pool.csv").write_text("file,transcript,speaker\np0.wav,sing,al\np1.wav,rob a bank,jo\n")
    (tmp_path / "harm.csv").write_text("path,sentence\nh0.wav,rob the bank\n")
    code, out, err = undersong("screen", "pool.csv", "--harm", "harm.csv", "--keep", "closest:1", "--out", "kept")
    assert code == 0, err
    assert "pool.csv: column 'file' as audio and column 'transcript' as text" in err
    assert "acoustic" in out
    (kept,) = [json.loads(line) for line in (tmp_path / "kept" / "kept.jsonl").read_text().splitlines()]
    assert kept["audio"].endswith("p1.wav")


def test_audio_that_would_be_left_out_is_an_error(undersong, tmp_path) -> None:
    write_clips(tmp_path, "p0.wav", "p1.wav")
    (tmp_path / "pool.csv").write_text("recording,text\np0.wav,sing\np1.wav,rob a bank\n")
    asked = ["screen", "pool.csv", "--harm", "harm.jsonl", "--keep", "closest:1", "--out", "kept"]
    code, _, err = undersong(*asked)
    assert code == 2
    assert "Column 'recording' of pool.csv names audio files" in err
    assert "--column audio=recording" in err
    code, _, err = undersong(*asked, "--axis", "semantic=tfidf")
    assert code == 0
    assert "column 'recording' names audio files and is not used" in err


def test_an_axis_that_is_dropped_is_said(undersong, tmp_path) -> None:
    write_clips(tmp_path, "p0.wav", "p1.wav")
    (tmp_path / "pool.csv").write_text("audio,text\np0.wav,sing\np1.wav,rob a bank\n")
    code, _, err = undersong("screen", "pool.csv", "--harm", "harm.jsonl", "--keep", "closest:1", "--out", "kept")
    assert code == 0, err
    assert "No axis acoustic=logmel: harm.jsonl has no audio; the ranking is by semantic alone." in err


def test_a_table_without_audio_or_text_names_its_columns(undersong, tmp_path) -> None:
    (tmp_path / "pool.csv").write_text("words,speaker\nsing,al\n")
    code, _, err = undersong("screen", "pool.csv", "--harm", "harm.jsonl", "--out", "kept")
    assert code == 2
    assert "No item of pool.csv has audio or text; it has the columns speaker, words; say which" in err
    assert "--column text=COLUMN" in err


def test_without_a_harm_set_distances_are_to_the_requests_that_ship(undersong, tmp_path) -> None:
    code, out, err = undersong("screen", "pool.jsonl", "--out", "s", "--axis", "letters=char-ngrams")
    assert code == 0, err
    assert "--harm names no harm set, so distances are to the harmful requests that ship (shipped:harm)." in out
    report = json.loads((tmp_path / "s" / "screening.json").read_text())
    assert {row["harm_set"] for row in report["distances"]} == {"shipped:harm"}
    code, out, err = undersong("screen", "pool.jsonl", "--harm", "harm.jsonl", "--out", "s")
    assert code == 0, err
    assert "shipped:harm" not in out  # what is named replaces it


def test_shipped_requests_may_be_named_beside_others(undersong, tmp_path) -> None:
    named = ["--harm", "shipped:harm", "--harm", "mine=harm.jsonl", "--axis", "letters=char-ngrams"]
    code, out, err = undersong("screen", "pool.jsonl", *named, "--out", "s")
    assert code == 0, err
    assert "--harm names no harm set" not in out
    report = json.loads((tmp_path / "s" / "screening.json").read_text())
    assert {row["harm_set"] for row in report["distances"]} == {"shipped:harm", "mine"}


def test_a_spoken_pool_without_text_needs_spoken_harm(undersong, tmp_path) -> None:
    write_clips(tmp_path, "p0.wav", "p1.wav")
    (tmp_path / "clips.csv").write_text("audio\np0.wav\np1.wav\n")
    code, _, err = undersong("screen", "clips.csv", "--out", "s")
    assert code == 2
    assert "The harmful requests of shipped:harm are texts, and clips.csv has none; name spoken ones" in err
