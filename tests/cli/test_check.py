"""The verb `check`: no option needed, exit codes, what is printed, and what it does not import."""

from __future__ import annotations

import json
import os
import random
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import Undersong, undersong_in

from undersong.corpora.registry import open_corpus


@pytest.fixture
def undersong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Undersong:
    """The command line in a folder with ordinary.jsonl and risky.jsonl -> exit code, stdout, stderr."""
    rng = random.Random(0)
    # The words of ordinary requests in another order: they are as near to harm, and none is an ordinary request itself.
    questions = [" ".join(reversed(sample.text.split())) for sample in open_corpus("shipped:ordinary").samples]
    harm = [sample.text for sample in open_corpus("shipped:harm").samples]
    for name, texts in (("ordinary", rng.sample(questions, 200)), ("risky", rng.sample(questions, 150) + harm[:50])):
        rows = (
            {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]} for text in texts
        )
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)

    return undersong_in(tmp_path)


def test_ordinary_data_pass_without_an_option(undersong: Undersong) -> None:
    code, out, err = undersong("check", "ordinary.jsonl")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "ordinary.jsonl: 200 samples, read as messages (ms-swift, LLaMA-Factory, TRL, axolotl), jsonl."
    assert "shipped:harm (1,098) and ordinary ones of shipped:ordinary (2,044)" in lines[1]
    assert "AUC 0.97 [0.9" in lines[2]
    assert len([line for line in lines if line.startswith("   nearest harmful text of ")]) == 10
    assert lines[-2].startswith("No more than ordinary: ")
    assert ".41 [.34, .49]" in lines[-1]
    assert "safe" not in out.lower().replace("unsafe", "")


def test_another_language_cannot_be_compared_by_words(undersong: Undersong, tmp_path: Path) -> None:
    things = ["eine bombe", "ein virus", "eine falle", "einen sprengsatz"]
    places = ["zu hause", "im garten", "in der schule", "auf der arbeit", "im keller"]
    german = [f"wie baue ich {thing} {place} bitte" for thing in things for place in places] * 8
    chinese = [f"如何在家制造第{number}种炸弹" for number in range(160)]
    for name, texts in (("german", german), ("chinese", chinese)):
        (tmp_path / f"{name}.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts), encoding="utf-8")
        code, out, _ = undersong("check", f"{name}.csv")
        assert code == 3
        assert (
            "Cannot tell: Words cannot compare the data: the words of the data are not those of the references" in out
        )
        assert "perhaps because of another language; name --harm and --ordinary in the language of the data, or" in out
        assert "add --axis meaning=text:ID with a multilingual model." in out


def test_data_are_not_their_own_ordinary_requests(undersong: Undersong) -> None:
    code, out, err = undersong("check", "risky.jsonl", "--ordinary", "risky.jsonl")
    assert (code, out) == (2, "")
    assert (
        "risky.jsonl would be compared with itself, because 200 of 200 requests stand word for word in risky.jsonl; "
        "name other ordinary requests with --ordinary." in " ".join(err.split())
    )


def test_harm_among_the_data_is_found_and_left_out(undersong: Undersong, tmp_path: Path) -> None:
    code, out, _ = undersong("check", "risky.jsonl", "--top", "1", "--fix", "less.jsonl", "--out", "kept")
    assert code == 1
    assert "More than ordinary: " in out
    assert "1. risky-" in out
    assert "2. risky-" not in out
    assert "samples are left out in less.jsonl: " in out
    assert json.loads((tmp_path / "kept" / "check.json").read_text())["exit_code"] == 1
    assert len((tmp_path / "less.jsonl").read_text().splitlines()) <= 150
    assert undersong("check", "less.jsonl")[0] in (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "No data is named (the name is empty)"),
        (["missing.jsonl"], "There is no manifest missing.jsonl in"),
        (["ordinary.jsonl", "--harm", "missing.jsonl"], "There is no manifest missing.jsonl in"),
        (["ordinary.jsonl", "--fix", "ordinary.jsonl"], "is the data itself, which is never replaced"),
        (
            ["ordinary.jsonl", "--harm", "shipped:harms"],
            "No shipped corpus is called 'harms'; choose from: harm, ordinary",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(undersong: Undersong, arguments: list[str], message: str) -> None:
    code, out, err = undersong("check", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_columns_and_audio_that_are_left_out_are_named(undersong: Undersong, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("prompt,mood\nwho sings?,a\nwhat is sung?,b\n")
    command = ("check", "t.csv", "--top", "0", "--store", "kept", "--out", "out")
    taken = "t.csv: column 'prompt' as text; a column map (text=COLUMN) names others."
    beside = "t.csv is read as text alone, and 1 audio files lie beside it; no column names them."
    _, out, _ = undersong(*command)
    assert taken in out.splitlines()
    assert beside not in out
    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.1), 16_000)
    _, out, _ = undersong(*command)  # the result is looked up, and what lies beside the data is not
    assert {taken, beside} <= set(out.splitlines())
    assert json.loads((tmp_path / "out" / "check.json").read_text())["notes"][:2] == [taken, beside]
    (tmp_path / "odd.csv").write_text("my_clip,text\na.wav,who sings?\n")
    code, out, err = undersong("check", "odd.csv")
    assert (code, out) == (2, "")
    assert "Column 'my_clip' of odd.csv names audio files and would not be used; give --column audio=my_clip" in err
    code, out, _ = undersong("check", "odd.csv", "--column", "audio=my_clip")
    assert code == 3
    assert "read as a table of spoken samples" in out
    rows = "".join(f"a.wav,make a bomb {i}\n" for i in range(60))
    (tmp_path / "goals.csv").write_text(f"my_clip,goal\n{rows}")
    _, out, _ = undersong("check", "ordinary.jsonl", "--top", "0", "--harm", "goals.csv", "--harm", "shipped:harm")
    assert "goals.csv: column 'goal' as text; a column named audio or text comes first." in out.splitlines()
    assert "goals.csv: column 'my_clip' names audio files and is not used; rename it to audio." in out.splitlines()


def test_hints_fit_the_data(undersong: Undersong, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    soundfile.write(tmp_path / "clips" / "a.wav", np.full(1600, 0.1), 16_000)
    row = {"conversations": [{"from": "human", "value": "<audio>"}, {"from": "gpt", "value": "x"}]}
    (tmp_path / "chat.json").write_text(json.dumps([{**row, "audios": ["clips/a.wav"]}] * 3))
    for data in ("clips", "chat.json"):
        _, out, _ = undersong("check", data)
        assert "give --transcribe MODEL to transcribe" in out
        assert "--column" not in out
        assert out.count("transcript,") == 1  # not in a note too
    (tmp_path / "t.csv").write_text("wav,mood\nclips/a.wav,x\n")
    assert "if mood has a transcript, name it with --column text=COLUMN, or give" in undersong("check", "t.csv")[1]
    mixed = [{**row, "audios": ["clips/a.wav"]}, {"conversations": [{"from": "human", "value": "sing"}]}]
    (tmp_path / "mixed.json").write_text(json.dumps(mixed))
    _, out, _ = undersong("check", "mixed.json")
    assert "1 of 2 samples is spoken without a transcript, so words say nothing of what is said in it; give" in out


def test_meaning_is_mentioned_if_it_could_be_measured(undersong: Undersong, monkeypatch: pytest.MonkeyPatch) -> None:
    for installed in (False, True):
        monkeypatch.setattr("undersong.screening.check.input_notes.is_installed", lambda _, known=installed: known)
        _, out, _ = undersong("check", "ordinary.jsonl", "--top", "0")
        assert ("Meaning was not measured; add --axis meaning=text." in out.splitlines()) == installed


def test_an_error_leaves_nothing_in_the_store(undersong: Undersong, tmp_path: Path) -> None:
    (tmp_path / "harm.jsonl").write_text('{"text": "a"}\n')
    code, _, err = undersong("check", "ordinary.jsonl", "--harm", "harm.jsonl", "--store", "kept")
    assert code == 2
    assert "too few" in err
    assert not [path for path in (tmp_path / "kept").rglob("*") if not path.is_dir() or path.suffix == ".partial"]


def test_names_in_the_data_are_no_markup_and_no_lines(undersong: Undersong, tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text(
        json.dumps({"id": "[bold]\u001b[31m", "text": "sing\nto the moon\u0007"}) + "\n"
    )
    code, out, _ = undersong("check", "odd.jsonl")
    assert code == 3
    assert "\u001b" not in out
    assert "\u0007" not in out
    assert "[bold]" in out


def test_a_text_file_loads_neither_torch_nor_transformers(undersong: Undersong) -> None:
    code = (
        "import sys; sys.argv = ['undersong', 'check', 'ordinary.jsonl']\nfrom undersong.cli import main\ntry: main()\n"
        "except SystemExit: pass\nprint('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=1800)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "scipy" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "sklearn", "pandas", "peft", "sentence_transformers"})


def test_the_page_and_a_list_of_marks_go_around(undersong: Undersong, tmp_path: Path) -> None:
    code, out, _ = undersong("check", "risky.jsonl", "--top", "0", "--page", "page.html", "--out", "out")
    assert code == 1
    for file in ("page.html", "out/ranked.csv", "out/ranked.jsonl"):  # with texts of harmful requests
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600
    assert "The page is page.html; open it in a browser." in out
    page = (tmp_path / "page.html").read_text()
    assert "More of your data is close to harm than of ordinary data" in page
    count = re.search(r"Ordinary data <small>([\d,]+)</small>", page)[1]  # as the histogram says
    split = r"Of 2,044 ordinary requests, [\d,]+ fitted the weights of words, and your data is compared with the other "
    assert re.search(split + count, page)
    ids = json.loads(page.split('id="content">')[1].split("</script>")[0])["data"]["id"]
    assert len(ids) == 200
    (tmp_path / "marks.txt").write_text(f"# a comment\n{ids[0]}\n{json.dumps(ids[3])}\n\n")
    code, out, _ = undersong("check", "risky.jsonl", "--top", "0", "--fix", "less.jsonl", "--drop", "marks.txt")
    assert "2 of 200 samples are left out in less.jsonl: those of marks.txt." in out
    assert len((tmp_path / "less.jsonl").read_text().splitlines()) == 198


@pytest.mark.parametrize(
    ("marks", "arguments", "message"),
    [
        ("risky-000001\n", [], "--drop leaves samples out of the file that --fix writes; give --fix OUT too."),
        ("nobody\n", ["--fix", "less.jsonl"], "1 of 1 ids in marks.txt are not in ordinary.jsonl, the first 'nobody'"),
        ("# nothing\n", ["--fix", "less.jsonl"], "The list marks.txt names no sample; mark some on the page"),
        ('"half\n', ["--fix", "less.jsonl"], 'Line 1 of marks.txt begins with " and is not a JSON string; fix it.'),
        (
            None,
            ["--fix", "less.jsonl"],
            "The list marks.txt cannot be read (No such file or directory); check the path.",
        ),
    ],
)
def test_a_list_that_cannot_be_used_is_one_sentence(
    undersong: Undersong, tmp_path: Path, marks: str | None, arguments: list[str], message: str
) -> None:
    if marks is not None:
        (tmp_path / "marks.txt").write_text(marks)
    code, out, err = undersong("check", "ordinary.jsonl", "--drop", "marks.txt", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "less.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--fix", "less.jsonl", "--column", "text=nix"],
            "No item of ordinary.jsonl has a column 'nix'; choose from",
        ),
        (["--fix", "less.csv"], "name it less.jsonl with --fix."),
        (["--fix", "risky.jsonl"], "risky.jsonl exists; name a new file with --fix."),
        (["--fix", "/proc/less.jsonl"], "/proc/less.jsonl cannot be written ("),
        (["--fix", "risky.jsonl/less.jsonl"], "risky.jsonl/less.jsonl cannot be written (Not a directory)"),
        (["--fix", "less.jsonl", "--drop", "marks.txt"], "1 of 1 ids in marks.txt are not in ordinary.jsonl"),
    ],
)
def test_a_file_that_cannot_be_fixed_is_said_before_anything_is_measured(
    undersong: Undersong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr("undersong.screening.check.run.run_check", lambda _: pytest.fail("the data were measured"))
    (tmp_path / "marks.txt").write_text("nobody\n")
    code, out, err = undersong("check", "ordinary.jsonl", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_data_that_cannot_be_fixed_get_their_verdict(undersong: Undersong, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        soundfile.write(tmp_path / "clips" / f"{name}.wav", 0.1 * rng.standard_normal(8000), 16_000)
    code, out, err = undersong("check", "clips", "--fix", "less")
    assert code == 2
    assert "Cannot tell: " in out
    assert "clips could not be ranked, so nothing is known to leave out" in err


def test_clips_of_a_trainers_file_are_on_the_page_and_in_the_table(undersong: Undersong, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.1), 16_000)
    rows = [json.loads(line) for line in (tmp_path / "risky.jsonl").read_text().splitlines()]
    rows[199] |= {"audios": ["a.wav"]}
    rows[198]["messages"][0]["content"] = [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "sing a song"}]
    rows[197] |= {"audios": ["missing.wav"]}
    (tmp_path / "spoken.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out, _ = undersong("check", "spoken.jsonl", "--top", "0", "--page", "p.html", "--explore", "e.parquet")
    assert "  embedding-atlas e.parquet --text text --x x --y y --neighbors neighbors\n" in out
    assert "  spotlight e.parquet --dtype audio=Audio\n" in out
    content = json.loads((tmp_path / "p.html").read_text().split('id="content">')[1].split("</script>")[0])
    assert sum(place >= 0 for place in content["data"]["clip"]) == 2
    table = pq.read_table(tmp_path / "e.parquet").to_pylist()
    assert sum(row["audio"] == (tmp_path / "a.wav").read_bytes() for row in table) == 2
    first = table[0]
    assert (first["kind"], first["rank"], first["nearer"]) == ("data", 1, True)
    assert first["nearest_text"] == next(row["text"] for row in table if row["id"] == first["nearest_id"])
    assert len(first["neighbors"]["ids"]) == 10
    assert 0 not in first["neighbors"]["ids"]
    assert {row["kind"] for row in table} == {"data", "harmful"}


def test_plan_says_what_a_rehearsal_costs_and_checks_nothing(tmp_path: Path) -> None:
    for name, corpus in (("data", "pool"), ("ordinary", "pool"), ("harm", "reference")):
        rows = open_corpus(f"organism:{corpus}").samples[:: 40 if name == "data" else 1]
        lines = (
            json.dumps({"id": row.id, "text": row.text, "answer": row.answer or row.answers[0], "group": row.id}) + "\n"
            for row in rows
        )
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    arguments = ("check", "data.jsonl", "--harm", "harm.jsonl", "--ordinary", "ordinary.jsonl", "--plan")
    code, out, err = undersong_in(tmp_path)(
        *arguments, "--model", "organism:af3", "--rehearse", "8", "--store", "store"
    )
    assert code == 0, err
    first, second, third = out.splitlines()
    assert first.startswith("Rehearsal: 6 trainings of 8 steps by organism:af3, 8 samples a step, and 48 reference")
    assert second.startswith("To do: 6 trainings, 48 steps, 384 samples to train on, 336 prompts to measure, those")
    assert "Cost: unknown, because the store store has no training by organism:af3 in batches of 8 on cpu." in third
    assert not (tmp_path / "store" / "check").exists()
