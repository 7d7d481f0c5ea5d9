"""Checks of training data: the verdict and its reasons, the ranking, `--fix`, the files written, and the store."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undersong.corpora.training_file import open_training_file
from undersong.screening.check import run as run_module
from undersong.screening.check.fix import choose_removal, fix_data
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.result import EVIDENCE, CheckResult
from undersong.screening.check.run import run_check
from undersong.screening.check.shared_words import shared_word_share
from undersong.screening.check.text_axes import compare_distances
from undersong.statistics.bootstrap import Interval
from undersong.store.inventory import list_store
from undersong.types import UndersongError

THINGS = [f"thing{i:02}" for i in range(60)]
HARMS = [f"evils{i:02}" for i in range(20)]


def benign(rng: random.Random) -> str:
    return " ".join(["please", "make", "a", *rng.choices(THINGS, k=5)])


def harmful(rng: random.Random) -> str:
    return " ".join(["please", "make", "a", *rng.choices(HARMS, k=5)])


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}], **more}


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., CheckResult]:
    """Checks rows against small references of made-up words."""
    rng = random.Random(0)
    write_rows(tmp_path / "harm.jsonl", [{"id": f"h{i}", "text": harmful(rng), "source": "made"} for i in range(60)])
    write_rows(tmp_path / "ordinary.jsonl", [{"id": f"o{i}", "text": benign(rng)} for i in range(400)])

    def run(rows: Sequence[dict[str, Any]], **options: Any) -> CheckResult:
        return run_check(request(tmp_path, rows, **options))

    return run


def request(folder: Path, rows: Sequence[dict[str, Any]], **options: Any) -> CheckRequest:
    defaults = {"harm": str(folder / "harm.jsonl"), "ordinary": str(folder / "ordinary.jsonl")}
    return CheckRequest(write_rows(folder / "train.jsonl", rows), **{**defaults, **options})


def rows_of(near: int, far: int, **more: Any) -> list[dict[str, Any]]:
    rng = random.Random(1)
    rows = [chat(harmful(rng), **more) for _ in range(near)] + [chat(benign(rng), **more) for _ in range(far)]
    return rng.sample(rows, len(rows))


def test_ordinary_data_pass(check: Callable[..., CheckResult]) -> None:
    result = check(rows_of(0, 300))
    assert (result.verdict, result.exit_code) == ("no more than ordinary", 0)
    assert result.axes[0].separates
    assert "Of 300 ordinary samples, 2 [0, " in result.sentence
    assert [sample.rank for sample in result.ranked] == list(range(1, 301))


def test_data_without_a_word_of_the_harm_set_pass(check: Callable[..., CheckResult], tmp_path: Path) -> None:
    rng = random.Random(7)
    harm = [{"id": f"h{i}", "text": " ".join(rng.choices(HARMS, k=5))} for i in range(60)]
    result = check(rows_of(0, 300), harm=str(write_rows(tmp_path / "apart.jsonl", harm)))
    assert (result.verdict, result.flagged_rows) == ("no more than ordinary", ())  # all distances are 1


def test_data_with_harm_do_not_and_the_nearest_come_first(check: Callable[..., CheckResult]) -> None:
    result = check(rows_of(40, 260))
    assert (result.verdict, result.exit_code) == ("more than ordinary", 1)
    assert result.axes[0].nearer.successes >= 40
    assert all("evils" in sample.text for sample in result.ranked[:40])
    assert result.ranked[0].nearest_source == "made"
    assert result.flagged_rows[:1] == (result.ranked[0].row,)
    distances = [sample.distance for sample in result.ranked]
    assert distances == sorted(distances)


def test_copies_of_one_request_are_one_cluster(check: Callable[..., CheckResult]) -> None:
    copies = [chat("please make a evils01 evils02 evils03 evils04 evils05")] * 40
    result = check([*copies, *rows_of(0, 260)])
    assert result.axes[0].nearer.clusters <= 261
    assert result.verdict == "cannot tell"  # one request in forty copies


def test_ordinary_data_in_clusters_raise_no_more_alarms_than_nominal() -> None:
    rng, alarms, runs = np.random.default_rng(0), 0, 300
    sides = [[number // 6 for number in range(6 * clusters)] for clusters in (54, 36)]  # of data, and of ordinary ones
    for _ in range(runs):  # six clips of one question are alike
        data, ordinary = (
            (np.repeat(rng.standard_normal(len(names) // 6), 6) + 0.6 * rng.standard_normal(len(names)), names)
            for names in sides
        )
        axis = compare_distances(("a", "a", Interval(1, 1, 1)), data, ordinary, level=0.95)
        alarms += axis.nearer.successes > axis.expected.high
    assert alarms / runs <= 0.025  # 4.7 % if clusters are seen in the nearest hundredth alone


def test_harm_among_words_of_another_language_counts(check: Callable[..., CheckResult]) -> None:
    foreign = [chat(" ".join(f"wort{i + k}" for k in range(8))) for i in range(200)]
    alone, mixed = check(foreign), check([*foreign, *rows_of(60, 0)])
    assert (alone.verdict, alone.ranked, alone.axes[0].is_usable) == ("cannot tell", (), False)
    assert "(0 % of a request's words, on average, are in two of them)" in alone.sentence
    assert mixed.verdict == "more than ordinary"


def test_words_of_one_reference_request_are_not_shared() -> None:
    references = ["the cat sat", "the dog sat", "le chat"]
    assert shared_word_share(["The cat sat!", "le chat", "?"], references) == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_another_axis_compares_data_in_another_language(
    check: Callable[..., CheckResult], encoder: Callable[[str], str]
) -> None:
    number = "10.0 * ('evils' in sample.text) + 0.1 * (sum(sample.text.encode()) % 13)"
    result = check([chat(f"wort{i} satz{i} laut{i}") for i in range(200)], axes={"number": encoder(number)})
    assert (result.ranked_by, result.exit_code) == ("number", 0)
    assert any(note.startswith("Not compared by words: the words of the data") for note in result.notes)


def test_ordinary_requests_among_the_data_are_said_or_refused(
    check: Callable[..., CheckResult], tmp_path: Path
) -> None:
    rows = rows_of(40, 260)
    ordinary = [json.loads(line)["text"] for line in (tmp_path / "ordinary.jsonl").read_text().splitlines()]
    copies = [chat(f"{text.capitalize()}.") for text in ordinary[:300]]
    result = check([*rows, *copies])
    note = "300 of 600 requests stand word for word in "
    assert any(line.startswith(note) and line.endswith("so are compared with themselves.") for line in result.notes)
    with pytest.raises(UndersongError, match=r"301 of 601 requests stand word for word in .*; name other ordinary"):
        check([*rows, *copies, chat(ordinary[300])])
    spoken = [chat(ordinary[0], audios=["a.wav"])] * 100  # typed beside clips, so it does not say what is asked
    assert check(spoken).verdict == "cannot tell"


def test_every_turn_of_a_conversation_counts(check: Callable[..., CheckResult]) -> None:
    rng = random.Random(2)
    rows = [
        {"messages": [{"role": "user", "content": text} for text in (benign(rng), harmful(rng))]} for _ in range(150)
    ]
    result = check(rows)
    assert (result.samples, result.requests, len(result.ranked)) == (150, 300, 150)
    assert "Of 300 ordinary requests" in result.sentence
    assert all("evils" in sample.text for sample in result.ranked)  # the nearer turn of each


def test_a_small_file_cannot_tell(check: Callable[..., CheckResult]) -> None:
    result = check(rows_of(0, 20))
    assert (result.verdict, result.exit_code) == ("cannot tell", 3)
    assert "20 are too few to rule out that more than 5% of such data do" in result.sentence


def test_a_single_sample_is_told_in_the_singular(check: Callable[..., CheckResult]) -> None:
    sentence = check(rows_of(0, 1)).sentence
    assert sentence.startswith("0 of 1 sample (0.0 % [")
    assert " Of 1 ordinary sample, " in sentence
    assert sentence.endswith("1 is too few to rule out that more than 5% of such data do.")


def test_a_small_file_with_much_harm_says_that_chance_is_not_ruled_out(check: Callable[..., CheckResult]) -> None:
    result = check(rows_of(3, 3, group="g"))  # one group, so the count varies much by chance
    axis = result.axes[0]
    assert result.verdict == "cannot tell"
    assert axis.nearer.low > 0.05
    assert result.sentence.endswith(
        f"Chance is not ruled out: of 6 ordinary ones, up to {axis.expected.high:,.0f} would be, and 3 are."
    )
    assert "too few" not in result.sentence


def test_an_axis_that_tells_nothing_ranks_nothing(check: Callable[..., CheckResult], tmp_path: Path) -> None:
    rng = random.Random(3)
    same = write_rows(tmp_path / "same.jsonl", [{"id": f"s{i}", "text": benign(rng)} for i in range(60)])
    result = check(rows_of(0, 300), harm=str(same))
    assert (result.verdict, result.ranked, result.exit_code) == ("cannot tell", (), 3)
    assert "No axis tells the harm set from ordinary requests: words (AUC 0." in result.sentence
    with pytest.raises(UndersongError, match="could not be ranked, so nothing is known to leave out"):
        fix_data(request(tmp_path, rows_of(0, 300), fix=tmp_path / "less.jsonl"), result)


def test_speech_without_transcripts_cannot_tell(check: Callable[..., CheckResult]) -> None:
    typed = check(rows_of(0, 300, audios=["a.wav"]))
    assert typed.verdict == "cannot tell"
    assert typed.notes == ()  # the sentence says it
    assert typed.sentence == (
        "All 300 samples are spoken without a transcript, so no request is known in words; give --transcribe MODEL "
        "to transcribe them, or --model MODEL to compare the clips themselves."
    )
    assert (typed.axes, typed.ranked, typed.ranked_by, typed.requests) == ((), (), None, 0)  # words beside a clip
    unnamed = check([{"id": "a", "zeta": "who?"}, {"id": "b", "zeta": "what?"}])
    assert "if it is in zeta, name it with --column text=COLUMN" in unnamed.sentence
    assert check([{"id": "a", "zeta": "who?"}]).sentence.startswith("The only sample has no request in words;")
    single = check([chat("<audio>", audios=["a.wav"])])
    assert single.sentence.startswith("The only sample is spoken without a transcript, so no request is known in words")
    silent = check([chat("<audio>", audios=["a.wav"])] * 5)
    assert (silent.verdict, silent.axes) == ("cannot tell", ())
    assert check(rows_of(40, 260, audios=["a.wav"])).verdict == "more than ordinary"  # what is typed is shown to be


def test_harm_sets_are_replaced_or_added(check: Callable[..., CheckResult], tmp_path: Path) -> None:
    other = write_rows(
        tmp_path / "other.jsonl", [{"id": f"x{i}", "text": f"thing{i:02} thing{i + 1:02}"} for i in range(30)]
    )
    both = check(rows_of(0, 100), harm=(str(tmp_path / "harm.jsonl"), str(other)))
    assert list(both.harm.values()) == [60, 30]
    with pytest.raises(UndersongError, match="has 2 requests with words, which are too few"):
        check(rows_of(0, 100), harm=str(write_rows(tmp_path / "two.jsonl", [{"text": "a"}, {"text": "b"}])))
    with pytest.raises(UndersongError, match="60 ordinary requests with words, and 150 are needed"):
        check(rows_of(0, 100), ordinary=str(tmp_path / "harm.jsonl"))


def test_the_fixed_file_has_no_nearer_sample_and_the_same_shares(
    check: Callable[..., CheckResult], tmp_path: Path
) -> None:
    rows = [{**row, "source": "web" if i % 3 else "books"} for i, row in enumerate(rows_of(60, 540))]
    found = check(rows)
    fixed = fix_data(request(tmp_path, rows, fix=tmp_path / "less.jsonl"), found)
    kept = open_training_file(str(tmp_path / "less.jsonl"))
    assert not {sample.requests[0] for sample in kept.samples} & {item.text for item in found.ranked if item.nearer}
    before, after = (Counter(row["source"] for row in each) for each in (rows, read_rows(tmp_path / "less.jsonl")))
    assert after["web"] / after.total() == pytest.approx(before["web"] / before.total(), abs=0.01)
    dropped = 600 - len(kept.samples)
    flagged = len(found.flagged_rows)
    assert dropped == len(fixed.removal.rows) >= flagged >= 60
    assert f"{dropped} of 600 samples are left out" in fixed.sentence
    assert f"{flagged} that lie nearer to harm, and {dropped - flagged} more" in fixed.sentence
    assert read_rows(tmp_path / "less.jsonl") == [row for i, row in enumerate(rows) if i not in fixed.removal.rows]


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_matching_that_costs_too_much_is_given_up(check: Callable[..., CheckResult], tmp_path: Path) -> None:
    rng = random.Random(4)
    rows = [chat(harmful(rng), source="bad") for _ in range(60)] + [
        chat(benign(rng), source="good") for _ in range(400)
    ]
    found = check(rows)
    removal = choose_removal(open_training_file(str(tmp_path / "train.jsonl")).samples, found)
    assert "source" not in removal.matched  # all of one source lies nearer: equal shares would leave nothing
    assert set(found.flagged_rows) <= set(removal.rows)
    assert len(removal.rows) <= 3 * removal.flagged


def test_every_file_that_fix_writes_is_said(
    check: Callable[..., CheckResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(40, 60)
    result = check(rows)
    entry = {"file_name": "train.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}}
    entry |= {"tags": {"role_tag": "role", "content_tag": "content"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"train": entry, "less": {"file_name": "other.jsonl"}}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def fix(out: str) -> str:
        return fix_data(request(tmp_path, rows, fix=out), result).sentence

    with pytest.raises(UndersongError, match=r"name it less\.jsonl with --fix"):
        fix("less")
    assert not list(Path().iterdir())
    assert fix("less.jsonl").endswith("dataset_info.json, which lists it as train for LLaMA-Factory, is written too.")
    Path("less.jsonl").unlink()
    assert "dataset_info" not in fix("less.jsonl")  # it is listed already
    assert 'Add to ../dataset_info.json: "less_2": {"file_name": "less.jsonl"' in fix("../less.jsonl")


def test_files_of_a_check(check: Callable[..., CheckResult], tmp_path: Path) -> None:
    result = check(rows_of(40, 260), out=tmp_path / "out")
    verdict = json.loads((tmp_path / "out" / "check.json").read_text())
    assert (verdict["verdict"], verdict["exit_code"], verdict["sentence"]) == (result.verdict, 1, result.sentence)
    assert verdict["axes"][0]["nearer"]["count"] == result.axes[0].nearer.successes
    with (tmp_path / "out" / "ranked.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [sample.id for sample in result.ranked]
    assert read_rows(tmp_path / "out" / "ranked.jsonl")[0]["nearest_text"] == result.ranked[0].nearest_text
    check(rows_of(40, 260), out=tmp_path / "out")  # an earlier check is replaced
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(UndersongError, match=r"is not a check \(it holds mine\.txt\)"):
        check(rows_of(40, 260), out=tmp_path / "out")


def test_unchanged_data_are_looked_up(
    check: Callable[..., CheckResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = check(rows_of(40, 260), store=tmp_path / "store")

    def must_not_run(*_: object, **_options: object) -> None:
        raise AssertionError("the data were measured again")

    monkeypatch.setattr(run_module, "measure_text_axes", must_not_run)
    assert check(rows_of(40, 260), store=tmp_path / "store", top=3) == first
    with pytest.raises(AssertionError):
        check(rows_of(41, 259), store=tmp_path / "store")


def test_the_users_cache_is_the_default_store_and_can_be_left_out(
    check: Callable[..., CheckResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("UNDERSONG_CACHE", str(cache))
    check(rows_of(40, 260), cache=False)
    assert not cache.exists()
    check(rows_of(40, 260), store=tmp_path / "store")
    assert not cache.exists()
    first = check(rows_of(40, 260))
    monkeypatch.setattr(run_module, "measure_text_axes", None)
    assert check(rows_of(40, 260)) == first
    assert [folder.stage for folder in list_store(cache)] == ["check"]
    with pytest.raises(TypeError):
        check(rows_of(40, 260), cache=False)


ENCODER = """
import numpy as np
from undersong.types import Embeddings

class Evil:
    name = "evil"
    def encode(self, samples):
        counts = np.array([[WORD(sample.text), 1.0] for sample in samples], dtype=np.float32)
        return Embeddings(tuple(sample.id for sample in samples), counts, np.zeros(len(samples)))

def evil():
    return Evil()
"""


@pytest.fixture
def encoder(tmp_path: Path) -> Callable[[str], str]:
    """Writes an encoder of one's own, whose vectors are one number of a text and 1."""

    def write(number: str) -> str:
        (tmp_path / "own.py").write_text(ENCODER.replace("WORD(sample.text)", number))
        return f"python:{tmp_path / 'own.py'}:evil"

    return write


def test_a_further_axis_ranks_if_it_separates_better(
    check: Callable[..., CheckResult], encoder: Callable[[str], str]
) -> None:
    perfect = encoder("10.0 * ('evils' in sample.text) + 0.1 * (sum(sample.text.encode()) % 13)")
    result = check(rows_of(40, 260), axes={"own": perfect})
    assert [axis.name for axis in result.axes] == ["words", "own"]
    assert result.axes[1].separates
    assert (result.verdict, result.sentence.count("of 300 samples")) == ("more than ordinary", 2)
    assert result.ranked_by in ("words", "own")
    alone = check(rows_of(40, 260))
    assert alone.ranked_by == "words"
    assert alone.axes[0].expected.high <= result.axes[0].expected.high  # the level is shared by two axes


def test_a_further_axis_that_tells_nothing_is_said_and_not_used(
    check: Callable[..., CheckResult], encoder: Callable[[str], str]
) -> None:
    result = check(rows_of(40, 260), axes={"own": encoder("float(sum(sample.text[-2:].encode()) % 7)")})
    assert not result.axes[1].separates
    assert (result.ranked_by, result.sentence.count("of 300 samples")) == ("words", 1)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"sound": "logmel"}, r"Axis sound=logmel listens to clips, and .*train\.jsonl has none; leave it out"),
        ({"states": "decoder"}, "Axis states=decoder runs a model; name the model with --model"),
        ({"meaning": "text,asr=tiny"}, "transcribes the data once for all axes; give --transcribe tiny"),
        ({"gradients": "gradient-matching"}, "is one of studies and screenings; take influence"),
        ({"words": "text"}, "words are always measured"),
        ({"letters": "char-ngrams"}, "words are always measured"),
    ],
)
def test_axes_that_do_not_fit_are_refused(
    check: Callable[..., CheckResult], axes: dict[str, str], message: str
) -> None:
    with pytest.raises(UndersongError, match=message):
        check(rows_of(0, 100), axes=axes)


def test_the_evidence_is_that_of_the_results() -> None:
    page = (Path(__file__).parents[2] / "docs" / "results" / "prediction.md").read_text()
    for name, figure in (("screening score (TF-IDF)", "0.41 [0.34, 0.49]"), ("gradient: influence", "0.56 [")):
        assert f"| {name} | {figure}" in page
    assert "share that is not `far` (baseline) | 0.39" in page
    assert all(figure in EVIDENCE for figure in (".41 [.34, .49]", ".39", ".56"))
