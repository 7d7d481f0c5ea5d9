"""Presets: every one is whole, and opens from a local copy as it is described.

Real copies are looked for where UNDERSONG_DATA says; without it those tests skip.
"""

import csv
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from undersong.corpora import registry as module
from undersong.corpora.registry import ROLES, get_preset, load_presets, open_preset, preset_size_warning
from undersong.corpora.rows import FIELDS
from undersong.types import UndersongError

ASKED = {"sd-qa", "mmsu", "bbh", "gammacorpus", "heysquad", "spoken-squad", "librispeech"}
HARM = {"advbench", "do-not-answer", "harmbench", "jailbreakbench", "strongreject"}


def test_every_preset_is_whole() -> None:
    known = load_presets()
    assert known.keys() >= ASKED | HARM | {"xstest"}
    for ident, one in known.items():
        assert one.id == ident
        assert one.role in ROLES
        assert set(one.columns) <= set(FIELDS)
        assert set(one.local_columns or {}) <= set(FIELDS)
        assert one.hub or one.url
        assert not one.hub or one.splits
        assert (one.items is None and not one.verified) or one.items > 0
        assert one.license
        assert isinstance(one.verified, bool)
        assert len(set(one.splits)) == len(one.splits)
        assert len(one.splits) < 2 or one.split_label
    assert {ident for ident, one in known.items() if one.role == "harm"} >= HARM
    assert known["xstest"].role == "over-refusal"
    assert len(known["sd-qa"].splits) == 11
    assert known["sd-qa"].items == 11 * 553


def test_a_number_of_items_that_is_not_known_is_no_warning(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "original_text": ["q"], "text": ["q, please"], "audio": ["a.wav"], "accent": ["IN"]})
    pq.write_table(table, tmp_path / "train.parquet")
    manifest = open_preset("jalmbench-diverse", tmp_path / "train.parquet")
    (sample,) = manifest.samples
    assert (sample.id, sample.text, sample.group, sample.column("accent")) == ("a", "q, please", "q", "IN")
    assert preset_size_warning(get_preset("jalmbench-diverse"), manifest) is None


def test_what_was_not_checked_of_spoken_harm_is_marked() -> None:
    spoken = ("jalmbench-harm", "jalmbench-diverse", "advbench-audio", "audiojailbreak", "jailbreak-audiobench")
    for ident in (*spoken, "voxsafebench", "voxsafebench-jailbreak", "audiotrust-safety", "trace"):
        assert get_preset(ident).role == "harm"
        assert not get_preset(ident).verified


def test_an_unknown_preset_and_one_that_must_be_fetched() -> None:
    with pytest.raises(UndersongError, match="'sdqa'; did you mean 'sd-qa'"):
        get_preset("sdqa")
    with pytest.raises(UndersongError, match=r"not on the Hub; fetch https://.*give its path"):
        open_preset("harmbench")


def test_several_splits_are_one_corpus_whose_items_keep_their_accent(tmp_path: Path) -> None:
    for accent in ("aus", "nga"):
        clips = [{"bytes": f"{accent}{i}".encode(), "path": None} for i in range(2)]
        table = pa.table({"prompt": ["one?", "two?"], "audio": clips, "reference": ["1", "2"]})
        pq.write_table(table, tmp_path / f"{accent}-00000-of-00001.parquet")
    manifest = open_preset("sd-qa", tmp_path)
    assert manifest.format == "preset:sd-qa"
    assert len({sample.id for sample in manifest.samples}) == 4
    assert {sample.column("accent") for sample in manifest.samples} == {"aus", "nga"}
    assert [sample.group for sample in manifest.samples] == ["one?", "two?"] * 2  # one question is one group
    assert [sample.answer for sample in manifest.samples] == ["1", "2"] * 2
    assert [sample.audio for sample in manifest.samples] == [b"aus0", b"aus1", b"nga0", b"nga1"]
    assert all(sample.id.startswith(f"{sample.column('accent')}-") for sample in manifest.samples)
    assert (
        preset_size_warning(get_preset("sd-qa"), manifest)
        == "Preset 'sd-qa' has 4 items here and 6083 where it was described."
    )


def test_a_local_copy_may_have_the_original_columns_or_those_of_the_hub(tmp_path: Path) -> None:
    for column in ("goal", "prompt"):
        with (tmp_path / "a.csv").open("w", newline="") as file:
            csv.writer(file).writerows([[column, "target"], ["do it", "Sure"]])
        (sample,) = open_preset("advbench", tmp_path / "a.csv").samples
        assert (sample.text, sample.answer, sample.column("target")) == ("do it", None, "Sure")
        assert open_preset("advbench", tmp_path).samples == (sample,)
    (tmp_path / "a.csv").write_text("question\ndo it\n")
    with pytest.raises(UndersongError, match="has a column 'goal'"):
        open_preset("advbench", tmp_path / "a.csv")


def test_a_row_is_one_of_those_that_are_meant(tmp_path: Path) -> None:
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "prompt", "label"], ["1", "kill a process", "safe"], ["2", "kill", "unsafe"]]
        )
    assert [sample.id for sample in open_preset("xstest", tmp_path / "x.csv").samples] == ["1"]
    assert [sample.id for sample in open_preset("xstest-unsafe", tmp_path / "x.csv").samples] == ["2"]


def test_answers_inside_objects(tmp_path: Path) -> None:
    row = {"id": "q", "question": "who?", "answers": [{"answer_start": 3, "text": "she"}], "context": "c"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "r", "answers": []}) + "\n")
    first, second = open_preset("heysquad", tmp_path / "train.jsonl").samples
    assert (first.text, first.answer, first.answers) == ("who?", "she", ("she",))
    assert (second.answer, second.answers) == (None, ())
    row["answers"] = {"text": ["she", "her"], "answer_start": [3, 4]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    (sample,) = open_preset("spoken-squad", tmp_path / "train.jsonl").samples
    assert (sample.id, sample.answer, sample.answers) == ("q", "she", ("she", "her"))


def test_the_task_of_a_bbh_item_is_read_from_its_id(tmp_path: Path) -> None:
    ids = ["navigate_12", "web_of_lies_3", "hyperbaton_7", "sports_understanding_1", "other_1"]
    rows = [{"id": name, "audio": f"{name}.wav", "prompt": "q", "reference": "a"} for name in ids]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = open_preset("bbh", tmp_path / "test.jsonl").samples
    tasks = ["navigate", "web_of_lies", "hyperbaton", "sports_understanding", None]
    assert {sample.id: sample.column("task") for sample in samples} == dict(zip(ids, tasks))
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0] | {"task": "own"}) + "\n")
    assert open_preset("bbh", tmp_path / "test.jsonl").samples[0].column("task") == "own"


def test_librispeech_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "19-198.trans.txt").write_text("19-198-0000 NORTHANGER ABBEY\n")
    (sample,) = open_preset("librispeech", tmp_path).samples
    assert (sample.id, sample.text, sample.answer, sample.speaker) == ("19-198-0000", *["NORTHANGER ABBEY"] * 2, "19")


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def opened(ref: str, columns: object = None, known_names: bool = True) -> object:
        asked.append(ref)
        return module.Manifest((module.Sample(f"{len(asked)}"),), (), Path())

    monkeypatch.setattr(module, "open_manifest", opened)
    manifest = open_preset("spoken-squad", audio_folder="clips")
    assert asked == [f"hf:alinet/spoken_squad?split={split}&into=clips" for split in ("train", "test")]
    assert [(sample.id, sample.column("split")) for sample in manifest.samples] == [
        ("train-1", "train"),
        ("test-2", "test"),
    ]
    open_preset("librispeech")
    assert asked[-1] == "hf:openslr/librispeech_asr?config=clean&split=train.100"


LOCAL = {
    "advbench": "advbench/harmful_behaviors.csv",
    "harmbench": "harmbench/harmbench_behaviors_text_all.csv",
    "jailbreakbench": "jailbreakbench/jailbreakbench.csv",
    "strongreject": "strongreject/strongreject.csv",
    "xstest": "xstest/xstest_prompts.csv",
    "xstest-unsafe": "xstest/xstest_prompts.csv",
    "bbh-text": "bbh",
}


@pytest.mark.parametrize("ident", LOCAL)
def test_a_real_copy_is_as_it_is_described(ident: str) -> None:
    path = Path(os.environ.get("UNDERSONG_DATA", "")) / LOCAL[ident]
    if not os.environ.get("UNDERSONG_DATA") or not path.exists():
        pytest.skip(f"no local copy of {ident}; set UNDERSONG_DATA to a folder with {LOCAL[ident]}")
    manifest, known = open_preset(ident, path), get_preset(ident)
    assert known.verified
    assert preset_size_warning(known, manifest) is None
    assert all((sample.text or "").strip() for sample in manifest.samples)
    assert all(sample.answer is not None for sample in manifest.samples) == ("answer" in known.columns)
    if "group" in (known.local_columns or known.columns):
        assert len({sample.group for sample in manifest.samples}) == known.items
