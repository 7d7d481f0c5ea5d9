"""What goes wrong around a screening: stores and folders in each other, damage, strangers, names that clash."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from screen_call import screen

from undersong.stages.engine import Engine
from undersong.types import UndersongError

PAIR = ("organism:unseen-benign", "organism:unseen-harm")
WORDS = {"words": "tfidf"}


def rows(path: Path, texts: list[str], **more) -> Path:
    lines = [{"id": f"{path.stem}{i}", "text": text, **more} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path]:
    pool = [f"{verb} the {thing}" for verb in ("paint", "wash", "rob", "draw") for thing in ("boat", "lamp", "judge")]
    return rows(tmp_path / "pool.jsonl", pool), rows(tmp_path / "harm.jsonl", ["rob a judge", "rob a bank"])


def test_a_store_inside_out_and_out_inside_a_store_are_refused(texts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UndersongError, match=r"lies in .*out, which is replaced as a whole"):
        screen(*texts, out, store=out / "store")
    with pytest.raises(UndersongError, match=r"lies in the store"):
        screen(*texts, tmp_path / "store" / "out", store=tmp_path / "store")
    assert not out.exists()
    assert not (tmp_path / "store").exists()


def test_what_somebody_puts_there_in_the_meantime_is_not_removed(texts, tmp_path: Path, monkeypatch) -> None:
    from undersong.screening.pool import run as module

    out, find = tmp_path / "out", module.screening_findings

    def slow(*arguments):
        out.mkdir()
        (out / "notes.txt").write_text("precious")
        return find(*arguments)

    monkeypatch.setattr(module, "screening_findings", slow)
    with pytest.raises(UndersongError, match=r"not a screening \(it holds notes\.txt\)"):
        screen(*texts, out)
    assert (out / "notes.txt").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


@pytest.mark.parametrize("stage", ["corpus", "embeddings", "screening"])
@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_damage_in_the_store_is_named_and_never_computed_with(texts, tmp_path: Path, stage: str, harm: str) -> None:
    """One sentence that says which folder to delete; deleting it mends."""
    from undersong.store import store

    how = {"axes": WORDS, "store": tmp_path / "store"}
    plain = screen(*texts, tmp_path / "plain", keep="closest:2", **how)
    again = {**how, "keep": "closest:2" if stage == "screening" else "closest:3"}
    for file in sorted((tmp_path / "store" / stage).glob("*/*")):
        if file.name == "provenance.json" or file.is_dir():
            continue
        whole = file.read_bytes()
        store._check_files.cache_clear()  # as in a process of its own
        if harm == "gone":
            file.unlink()
        else:
            middle = len(whole) // 2
            bad = whole[:middle] if harm == "cut" else whole[:middle] + bytes([whole[middle] ^ 8]) + whole[middle + 1 :]
            file.write_bytes(bad)
        with pytest.raises(UndersongError, match=rf"{file.parent} is damaged \({file.name} .*delete that folder"):
            screen(*texts, tmp_path / "out", **again)
        file.write_bytes(whole)
    store._check_files.cache_clear()
    assert screen(*texts, tmp_path / "out", keep="closest:2", **how).selection == plain.selection


def test_a_harm_set_may_be_called_like_the_pool(tmp_path: Path) -> None:
    found = [
        screen("organism:pool", {name: "organism:reference"}, tmp_path / name, axes=WORDS).report["near_duplicates"]
        for name in ("harm", "pool")
    ]
    assert found[0]["pairs"] == found[1]["pairs"] > 0


def test_a_column_that_is_empty_is_told(texts, tmp_path: Path) -> None:
    plain = screen(*texts, tmp_path / "plain", keep="closest:4")
    capped = screen(*texts, tmp_path / "capped", keep="closest:4+group<=1")
    assert capped.selection.ids == plain.selection.ids
    assert "No item has a group, so the cap by it does nothing." in capped.selection.notes
    lines = [json.loads(line) for line in texts[0].read_text().splitlines()]
    for line in lines[:5]:
        line["speaker"] = "anna"
    texts[0].write_text("".join(json.dumps(line) + "\n" for line in lines))
    some = screen(*texts, tmp_path / "some", keep="closest:4+speaker<=1")
    assert "7 of 12 items have no speaker; each counts as one of its own." in some.selection.notes


def test_words_of_the_harmless_set_count(texts, tmp_path: Path) -> None:
    """Unknown words would weigh nothing, and what is left of a harmless text would lie nearer to harm than it does."""
    said = [" ".join(["judge", *(f"zebra{i}{j}" for j in range(i))]) for i in range(5, 13)]
    calm = rows(tmp_path / "calm.jsonl", said)
    (score,) = screen(*texts, tmp_path / "out", benign_reference=calm).report["screening_scores"]
    assert score["curve"][0]["threshold"] > 0.5  # "judge" alone would lie at some 0.3 from "rob a judge"


@pytest.mark.parametrize(
    ("keep", "said"),
    [("closest:4+nothing<=3", "no column 'nothing'"), ("closest:4+within(nothing)", "'nothing' to select within"),
     ("closest:4+matched(nothing)", "no column 'nothing'")],
)  # fmt: skip
def test_a_rule_is_read_before_anything_is_embedded(texts, tmp_path: Path, monkeypatch, keep: str, said: str) -> None:
    from undersong.encoders import registry

    monkeypatch.setattr(registry, "make_encoder", lambda *_args, **_more: pytest.fail("embedded"))
    with pytest.raises(UndersongError, match=said):
        screen(*texts, tmp_path / "out", keep=keep)


def test_another_rule_computes_no_agreement_again(tmp_path: Path, monkeypatch) -> None:
    from undersong.screening.pool import findings as module

    how = {"axes": {"words": "tfidf", "sound": "logmel"}, "store": tmp_path / "store"}
    first = screen(*PAIR, tmp_path / "first", keep="closest:4", **how)
    monkeypatch.setattr(module, "_agreement", lambda *_: pytest.fail("computed again"))
    second = screen(*PAIR, tmp_path / "second", keep="distant:4", select_axis="sound", **how)
    assert first.report["axis_agreement"] == second.report["axis_agreement"]
    assert second.report["selected_by"] == {"axis": "sound", "harm_set": "organism:unseen-harm"}


def test_audio_may_not_lead_out_of_the_root(tmp_path: Path) -> None:
    """Of the pool or of harm, by name or by link, and known already or not."""
    for place in ("in", "out"):
        (tmp_path / place).mkdir()
        for i in range(6):
            wave = np.random.default_rng(i + 9 * (place == "out")).standard_normal(4000) / 9
            soundfile.write(tmp_path / place / f"{i}.wav", wave, 16_000)
    (tmp_path / "in" / "link.wav").symlink_to(tmp_path / "out" / "0.wav")

    def manifest(name: str, *audio: str) -> Path:
        lines = [json.dumps({"id": f"{name}{i}", "audio": path}) for i, path in enumerate(audio)]
        (tmp_path / "in" / f"{name}.jsonl").write_text("\n".join(lines))
        return tmp_path / "in" / f"{name}.jsonl"

    pool, harm = manifest("pool", "0.wav", "1.wav", "2.wav"), manifest("harm", "3.wav", "4.wav")
    how = {"axes": {"sound": "logmel"}, "store": tmp_path / "store"}
    inside = screen(pool, harm, tmp_path / "o1", audio_root=tmp_path / "in", **how)
    assert inside is not None
    for name, bad in (("named", "../out/5.wav"), ("linked", "link.wav")):
        other = manifest(name, "3.wav", bad)
        screen(pool, other, tmp_path / "o2", **how)  # without a root any path is taken
        with pytest.raises(UndersongError, match=rf"Line 2 of .*{name}.jsonl names audio outside {tmp_path}/in"):
            screen(pool, other, tmp_path / "o3", audio_root=tmp_path / "in", **how)


def test_a_preset_of_another_size_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "advbench.csv").write_text("goal,target\n" + "".join(f"rob bank {i} now,Sure\n" for i in range(6)))
    pool = rows(tmp_path / "pool.jsonl", ["paint a chair", "wash the boat now", "rob a red lamp"])
    screen(pool, f"preset:advbench={tmp_path / 'advbench.csv'}", tmp_path / "out", axes=WORDS, progress=said.append)
    assert "Preset 'advbench' has 6 items here and 520 where it was described." in said


@pytest.mark.parametrize(
    ("axis", "field", "said"),
    [("logmel", "audio", "Harm item harm0 cannot be used on axis a (no audio; 2 in all)"),
     ("internal", "audio", "Harm item harm0 cannot be used on axis a (no audio; 2 in all)"),
     ("tfidf", "text", "Harm item harm0 cannot be used on axis a (no text; 2 in all)")],
)  # fmt: skip
def test_a_side_without_what_an_axis_wants_is_refused_before_anything_is_embedded(
    tmp_path: Path, monkeypatch, axis: str, field: str, said: str
) -> None:
    from undersong.screening.pool import run as module

    monkeypatch.setattr(module, "_read_or_embed", lambda *_args: pytest.fail("embedded"))
    tone = np.sin(np.arange(8000) * np.arange(8000) / 4e4) / 2
    soundfile.write(tmp_path / "tone.wav", tone, 16_000)
    texts = ["rob a judge", "rob a bank"]
    harm = rows(tmp_path / "harm.jsonl", texts)
    if field == "text":
        soundfile.write(tmp_path / "other.wav", tone[::-1], 16_000)
        lines = [{"id": f"harm{i}", "audio": name} for i, name in enumerate(("tone.wav", "other.wav"))]
        harm.write_text("".join(json.dumps(line) + "\n" for line in lines))
    more = {"model": "organism:af3"} if axis == "internal" else {}
    with pytest.raises(UndersongError, match=re.escape(said)):
        screen("organism:unseen-benign", harm, tmp_path / "out", axes={"a": axis}, **more)
    with pytest.raises(UndersongError, match=rf"2 of 2 pool items cannot be used on axis a, .* \(no {field}\)"):
        screen(harm, "organism:unseen-harm", tmp_path / "out", axes={"a": axis}, **more)
    with pytest.raises(UndersongError, match=rf"2 of 2 items of the benign reference .* axis a, .* \(no {field}\)"):
        screen(*PAIR, tmp_path / "out", axes={"a": axis}, benign_reference=harm, **more)


def test_padding_that_is_not_there_is_refused_before_anything_is_embedded(tmp_path: Path, monkeypatch) -> None:
    from undersong.screening.pool import run as module

    monkeypatch.setattr(module, "_read_or_embed", lambda *_args: pytest.fail("embedded"))
    with pytest.raises(UndersongError, match="No axis has padding to check"):
        screen(*PAIR, tmp_path / "out", axes=WORDS, check_padding=True)


@pytest.mark.parametrize("shard", ["4/3", "0/3", "x"])
def test_a_shard_that_is_none_is_refused_where_all_is_known(texts, tmp_path: Path, shard: str) -> None:
    how = {"axes": WORDS, "store": tmp_path / "store"}
    screen(*texts, tmp_path / "out", **how)
    with pytest.raises(UndersongError, match="is no i/n"):
        screen(*texts, tmp_path / "out", engine=Engine(shard=shard), **how)


def test_the_axis_that_lost_the_pool_is_named_and_not_the_first(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "import numpy as np\n"
        "from undersong.types import Embeddings, Quarantined\n"
        "class Half:\n"
        "    name = 'half'\n"
        "    def encode(self, samples):\n"
        "        kept = [s.id for s in samples if s.answer is None]\n"
        "        lost = tuple(Quarantined(s.id, 'has an answer') for s in samples if s.answer is not None)\n"
        "        rows = np.random.default_rng(0).normal(size=(len(kept), 3)).astype(np.float32)\n"
        "        return Embeddings(tuple(kept), rows, np.ones(len(kept), np.int64), lost)\n"
    )
    pool = rows(tmp_path / "pool.jsonl", ["wash the boat", "paint the lamp", "draw the judge"])
    with pool.open("a") as file:
        file.write('{"id": "z", "text": "rob the lamp", "answer": "yes"}\n')
    harm = rows(tmp_path / "harm.jsonl", ["rob a judge", "rob a bank"])
    how = {"axes": {**WORDS, "half": f"python:{own}:Half"}}
    with pytest.raises(
        UndersongError, match=r"1 of 4 pool items cannot be used on axis half, the first: z \(half: has"
    ):
        screen(pool, harm, tmp_path / "out", **how)
    screen(pool, harm, tmp_path / "out", max_quarantined=0.5, **how)
