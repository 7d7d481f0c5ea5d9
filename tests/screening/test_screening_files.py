"""Screening on files: both forms, all outputs, and nothing written where it fails."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from screen_call import screen

from undersong.corpora.manifest import read_manifest
from undersong.encoders.embeddings import read_embeddings
from undersong.proximity.selection import selection_from_json
from undersong.screening.pool.options import parse_axes
from undersong.types import UndersongError

VERBS, OBJECTS = ("paint", "clean", "poison", "rob", "draw"), ("candle", "table", "judge", "doctor", "window", "garden")
POOL = [{"id": f"p{i}{j}", "text": f"{v} a {o}"} for i, v in enumerate(VERBS) for j, o in enumerate(OBJECTS)]
HARM = [{"id": "h0", "text": "poison the judge"}, {"id": "h1", "text": "rob the doctor"}]


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ready(path: Path, rows: np.ndarray | list, prefix: str) -> Path:
    ids = [f"{prefix}{i}" for i in range(len(rows))]
    lists = [list(map(float, row)) for row in rows]
    pq.write_table(pa.table({"id": ids, "embedding": pa.array(lists, pa.list_(pa.float32(), len(lists[0])))}), path)
    return path


def buzz(path: Path, pitch: float, seconds: float = 0.2, seed: int = 0) -> str:
    time = np.arange(int(16_000 * seconds)) / 16_000
    wave = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    noise = np.random.default_rng(seed).standard_normal(len(time))
    soundfile.write(path, 0.2 * wave + 0.01 * noise, 16_000)
    return path.name


@pytest.fixture
def texts(tmp_path) -> tuple[Path, Path]:
    return jsonl(tmp_path / "pool.jsonl", POOL), jsonl(tmp_path / "harm.jsonl", HARM)


@pytest.fixture
def vectors(tmp_path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    return ready(tmp_path / "pool.parquet", rng.standard_normal((200, 8)), "p"), ready(
        tmp_path / "harm.parquet", rng.standard_normal((10, 8)), "h"
    )


@pytest.fixture
def voices(tmp_path) -> tuple[Path, Path]:
    """Known answers: p0-p3 have the harm set's pitch and benign words, p4-p7 its words and another pitch."""
    folder = tmp_path / "clips"
    folder.mkdir()

    def row(id: str, pitch: float, text: str, seed: int) -> dict:
        return {"id": id, "audio": "clips/" + buzz(folder / f"{id}.wav", pitch, seed=seed), "text": text}

    names = ("anna", "ben", "cleo", "dan")
    pool = [row(f"p{i}", 110, f"paint a candle for {name}", i) for i, name in enumerate(names)]
    pool += [row(f"p{i + 4}", 290, f"rob a doctor for {name}", i + 4) for i, name in enumerate(names)]
    harm = [row(f"h{i}", 110, f"rob the doctor {when}", 10 + i) for i, when in enumerate(("now", "today", "tonight"))]
    return jsonl(tmp_path / "pool.jsonl", pool), jsonl(tmp_path / "harm.jsonl", harm)


def test_texts(texts, tmp_path) -> None:
    out = tmp_path / "out"
    screened = screen(*texts, out, keep="closest:0.2")
    assert sorted(path.name for path in out.iterdir()) == [
        "kept.jsonl", "proximity.parquet", "quarantine.parquet", "ranked.csv", "screening.json", "selection.json",
    ]  # fmt: skip
    table = pq.read_table(out / "proximity.parquet")
    assert table.column("axis").unique().to_pylist() == ["semantic"]
    assert table.column("harm_set").unique().to_pylist() == ["harm"]
    closest = min(table.to_pylist(), key=lambda row: row["rank"])
    assert closest["nearest_id"] in ("h0", "h1")
    selection = selection_from_json((out / "selection.json").read_text())
    assert selection == screened.selection
    assert (selection.axis, selection.kind, selection.k) == ("semantic", "closest", 6)
    kept = [json.loads(line) for line in (out / "kept.jsonl").read_text().splitlines()]
    assert kept == [row for row in POOL if row["id"] in selection.ids]
    assert {"p22", "p33"} <= set(selection.ids)  # poison a judge, rob a doctor
    assert pq.read_table(out / "quarantine.parquet").column_names == ["id", "reason"]


def test_voices_and_words_are_two_axes(voices, tmp_path) -> None:
    by_axis = {
        axis: screen(*voices, tmp_path / axis, select_axis=axis, keep="closest:4").selection.ids
        for axis in ("semantic", "acoustic")
    }
    assert by_axis == {"semantic": ("p4", "p5", "p6", "p7"), "acoustic": ("p0", "p1", "p2", "p3")}
    table = pq.read_table(tmp_path / "semantic" / "proximity.parquet")
    assert table.column("axis").unique().to_pylist() == ["semantic", "acoustic"]
    assert len(table) == 16
    kept = read_manifest(tmp_path / "acoustic" / "kept.jsonl").samples
    assert [Path(sample.audio).is_file() for sample in kept] == 4 * [True]


def test_ready_embeddings(vectors, tmp_path) -> None:
    pool, harm = (read_embeddings(path) for path in vectors)
    screened = screen(*vectors, tmp_path / "out", axes={"internal": "embeddings"}, keep="distant:0.5")
    unit = [side.vectors / np.linalg.norm(side.vectors, axis=1, keepdims=True) for side in (pool, harm)]
    distance = 1 - (unit[0] @ unit[1].T).max(axis=1)
    expected = {pool.ids[i] for i in np.argsort(distance)[100:]}
    assert set(screened.selection.ids) == expected
    kept = read_embeddings(tmp_path / "out" / "kept.parquet")
    assert kept.ids == tuple(id for id in pool.ids if id in expected)
    assert np.array_equal(kept.vectors, pool.vectors[[id in expected for id in pool.ids]])
    assert pq.read_schema(tmp_path / "out" / "kept.parquet").field("embedding").type == pa.list_(pa.float32(), 8)
    # What was kept can be screened again.
    again = screen(tmp_path / "out" / "kept.parquet", vectors[1], tmp_path / "again", keep="closest:0.5")
    assert again.selection.k == 50


def test_unsound_embeddings_are_counted_and_never_kept(tmp_path) -> None:
    rows = np.random.default_rng(0).standard_normal((200, 4))
    rows[3], rows[7, 1] = 0, np.nan
    paths = ready(tmp_path / "pool.parquet", rows, "p"), ready(tmp_path / "harm.parquet", rows[10:15] + 0.1, "h")
    screened = screen(*paths, tmp_path / "out", keep="distant:1.0")
    assert {item.id: item.reason for item in screened.quarantined} == {
        "p3": "internal: zero vector",
        "p7": "internal: NaN in vector",
    }
    assert not {"p3", "p7"} & set(screened.selection.ids)
    assert screened.selection.k == 198
    assert pq.read_table(tmp_path / "out" / "quarantine.parquet").column("id").to_pylist() == ["p3", "p7"]
    with pytest.raises(UndersongError, match="2 of 200 pool items"):
        screen(*paths, tmp_path / "strict", max_quarantined=0.009)
    assert not (tmp_path / "strict").exists()


def test_an_item_that_fails_on_one_axis_leaves_all(voices, tmp_path) -> None:
    rows = [json.loads(line) for line in voices[0].read_text().splitlines()]
    rows[0] |= {"text": "zzz"}  # heard, but of a word only it has: still fine
    rows[1].pop("text")
    (tmp_path / "clips" / "p5.wav").write_bytes(b"RIFF")
    jsonl(voices[0], rows)
    axes = {"acoustic": "logmel", "semantic": "tfidf"}
    screened = screen(*voices, tmp_path / "out", axes=axes, keep="random:1.0", max_quarantined=0.5)
    for table in screened.tables.values():
        assert table.column("id").to_pylist() == ["p0", "p2", "p3", "p4", "p6", "p7"]
    assert sorted(item.id for item in screened.quarantined) == ["p1", "p5"]


def test_audio_in_a_parquet_manifest_is_kept_as_bytes(voices, tmp_path) -> None:
    paths = []
    for file in voices:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [{"id": row["id"], "audio": (tmp_path / row["audio"]).read_bytes()} for row in rows]
        paths.append(file.with_suffix(".parquet"))
        pq.write_table(pa.Table.from_pylist(rows), paths[-1])
    screened = screen(*paths, tmp_path / "out", keep="closest:4")
    assert list(screened.tables) == ["acoustic"]
    kept = read_manifest(tmp_path / "out" / "kept.parquet").samples
    assert tuple(sample.id for sample in kept) == screened.selection.ids == ("p0", "p1", "p2", "p3")
    assert [sample.audio for sample in kept] == [(tmp_path / f"clips/p{i}.wav").read_bytes() for i in range(4)]


def test_a_clip_on_both_sides_is_an_overlap(voices, tmp_path) -> None:
    """Whatever it is called and said to say."""
    shutil.copy(tmp_path / "clips" / "h1.wav", tmp_path / "clips" / "p2.wav")
    with pytest.raises(UndersongError, match=r"overlap in 1 pairs.*'p2' and 'h1'"):
        screen(*voices, tmp_path / "out")


def test_a_text_axis_needs_no_audio_files(voices, tmp_path) -> None:
    shutil.rmtree(tmp_path / "clips")
    assert screen(*voices, tmp_path / "out", axes={"semantic": "tfidf"}, keep="closest:4").selection.ids[0] == "p4"
    with pytest.raises(UndersongError, match=r"pool\.jsonl has no usable sample, the first: p0"):
        screen(*voices, tmp_path / "other")


def test_score_and_centring_reach_the_table(vectors, tmp_path) -> None:
    plain = screen(*vectors, tmp_path / "a", keep="closest:0.25")
    other = screen(*vectors, tmp_path / "b", score="knn:3", center=True, keep="closest:0.25")
    assert other.selection.score == "knn:3 centered"
    assert plain.selection.score == "nearest"
    assert other.selection.ids != plain.selection.ids


def test_random_takes_its_seed(vectors, tmp_path) -> None:
    hashes = [
        screen(*vectors, tmp_path / f"{n}", keep="random:0.25", seed=seed).selection.ids_hash
        for n, seed in enumerate((1, 1, 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def _overlap(pool: Path, harm: Path) -> None:
    jsonl(harm, [*HARM, {"id": "h9", "text": "Paint a candle!"}])


BAD_MANIFESTS = {
    "missing pool": (lambda pool, harm: pool.unlink(), {}, "pool.jsonl"),
    "missing harm": (lambda pool, harm: harm.unlink(), {}, "harm.jsonl"),
    "empty pool": (lambda pool, harm: pool.write_text(""), {}, "no items"),
    "empty harm": (lambda pool, harm: harm.write_text(""), {}, "no items"),
    "double id": (lambda pool, harm: jsonl(pool, [*POOL, POOL[3]]), {}, "p03"),
    "overlap": (_overlap, {}, "overlap in 1 pairs.*h9"),
    "nothing to measure": (lambda pool, harm: jsonl(pool, [{"id": "a"}, {"id": "b"}]), {}, "a"),
    "no text for a text axis": (lambda pool, _: jsonl(pool, [{"id": "a"}, *POOL]), {"axes": {"s": "tfidf"}}, "no text"),
    "constant": (lambda pool, harm: jsonl(pool, [{"id": f"{i}", "text": "wave"} for i in range(5)]), {}, "are equal"),
    "unknown encoder": (None, {"axes": {"s": "tfidff"}}, "nearest known is 'tfidf'"),
    "internal without a model": (None, {"axes": {"i": "internal"}}, "name the model with --model"),
    "not embeddings": (None, {"axes": {"i": "embeddings"}}, "these are manifests"),
    "unknown axis": (None, {"select_axis": "semantics"}, "did you mean 'semantic'"),
    "unknown kind": (None, {"keep": "nearest:0.5"}, "Cannot keep"),
    "too many": (None, {"keep": "closest:31"}, "Cannot keep 31 of a pool of 30"),
    "unknown score": (None, {"score": "knn"}, "Unknown score"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_bad_manifests_write_nothing(texts, tmp_path, case: str) -> None:
    spoil, options, message = BAD_MANIFESTS[case]
    if spoil:
        spoil(*texts)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UndersongError, match=message):
        screen(*texts, tmp_path / "new" / "out", **options)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("pool", "harm", "options", "message"),
    [
        ([], [[1, 2]], {}, "empty|holds"),
        ([[1, 2], [2, 1]], [[1, 2, 3]], {}, "2 dimensions, harm vectors 3"),
        ([[1, 2], [2, 1]], [[0, 0]], {}, "Harm item h0"),
        ([[1, 0, 0], [0, 1, 0]], [[0, 0, 1]], {}, "are equal"),
        ([[1, 2], [2, 1]], [[1, 1]], {"axes": {"s": "tfidf"}}, "precomputed embeddings, not tfidf"),
    ],
)
def test_bad_embeddings_write_nothing(tmp_path, pool, harm, options, message: str) -> None:
    paths = tmp_path / "pool.parquet", tmp_path / "harm.parquet"
    if pool:
        ready(paths[0], pool, "p")
    else:
        empty = pa.table({"id": pa.array([], pa.string()), "embedding": pa.array([], pa.list_(pa.float32(), 2))})
        pq.write_table(empty, paths[0])
    ready(paths[1], harm, "h")
    with pytest.raises(UndersongError, match=message):
        screen(*paths, tmp_path / "out", **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["harm.parquet", "pool.parquet"]


def test_embeddings_that_share_ids_overlap(vectors, tmp_path) -> None:
    with pytest.raises(UndersongError, match="overlap in 200 ids"):
        screen(vectors[0], vectors[0], tmp_path / "out")


def test_a_missing_file_is_named_whatever_the_other_is(texts, vectors, tmp_path) -> None:
    for other in (texts[1], vectors[1]):
        with pytest.raises(UndersongError, match=r"no file .*nowhere\.parquet"):
            screen(tmp_path / "nowhere.parquet", other, tmp_path / "out")


def test_two_forms_do_not_mix(texts, vectors, tmp_path) -> None:
    with pytest.raises(UndersongError, match="give manifests for all, or embeddings for all"):
        screen(texts[0], vectors[1], tmp_path / "out")


def test_an_earlier_screening_is_replaced_and_nothing_else(vectors, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first = screen(*vectors, out)  # an empty folder is fine
    second = screen(*vectors, out, keep="closest:3")
    assert selection_from_json((out / "selection.json").read_text()) == second.selection != first.selection
    with pytest.raises(UndersongError, match="Cannot keep"):
        screen(*vectors, out, keep="closest:0")
    assert (
        selection_from_json((out / "selection.json").read_text()) == second.selection
    )  # a failure leaves it as it was
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UndersongError, match="is not a screening"):
        screen(*vectors, out)
    with pytest.raises(UndersongError, match="is not a screening"):
        screen(*vectors, vectors[0])
    assert (out / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["harm.parquet", "out", "pool.parquet"]


def test_a_failure_while_writing_leaves_nothing(vectors, tmp_path, monkeypatch) -> None:
    def full(_selection) -> str:
        raise OSError("no space left")

    screen(*vectors, tmp_path / "out", keep="closest:3")
    monkeypatch.setattr("undersong.proximity.selection.selection_to_json", full)
    for name in ("new", "out"):
        with pytest.raises(OSError, match="no space"):
            screen(*vectors, tmp_path / name, keep="closest:2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["harm.parquet", "out", "pool.parquet"]
    assert selection_from_json((tmp_path / "out" / "selection.json").read_text()).k == 3


def test_axes_as_written() -> None:
    assert parse_axes(["semantic=tfidf", "mixed=whisper:models/a=b"]) == {
        "semantic": "tfidf",
        "mixed": "whisper:models/a=b",
    }
    for wrong in (["tfidf"], ["=tfidf"], ["a="], ["a=tfidf", "a=logmel"]):
        with pytest.raises(UndersongError, match=r"NAME=ENCODER|named twice"):
            parse_axes(wrong)


def test_one_item_without_text_does_not_change_the_axis_in_silence(voices, tmp_path) -> None:
    rows = [json.loads(line) for line in voices[0].read_text().splitlines()]
    jsonl(voices[0], [{**rows[0], "text": ""}, *rows[1:]])
    with pytest.raises(UndersongError, match="no text"):
        screen(*voices, tmp_path / "out", max_quarantined=0.0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("pool", "harm"), [("organism:pool", "organism:reference"), ("mini:pool", "shipped:harm")])
def test_packaged_corpora_are_screened_by_name(tmp_path, pool: str, harm: str) -> None:
    screened = screen(Path(pool), Path(harm), tmp_path / "out", axes={"semantic": "tfidf"})
    assert (tmp_path / "out" / "proximity.parquet").is_file()
    assert screened is not None


def test_the_page_of_a_screening_has_every_item_and_ordinary_data_mark_the_near_ones(texts, tmp_path) -> None:
    benign = jsonl(
        tmp_path / "benign.jsonl",
        [{"id": f"b{i}", "text": f"sing the {word} {i}"} for i, word in enumerate(("song", "to", "doctor") * 40)],
    )
    page, table = tmp_path / "page.html", tmp_path / "explore.parquet"
    result = screen(*texts, tmp_path / "out", page=page, explore=table, benign_reference=benign)
    assert result.written_views[0] == f"The page is {page}; open it in a browser."
    content = json.loads(page.read_text().split('id="content">')[1].split("</script>")[0])
    ranked = result.to_pandas().sort_values("rank")
    assert content["data"]["id"] == ranked["id"].tolist()
    assert [content["harm"]["id"][place] for place in content["data"]["nearest"]] == ranked["nearest_id"].tolist()
    assert content["threshold"] is not None
    assert content["data"]["nearer"] == [int(d <= content["threshold"]) for d in ranked["distance"]]
    assert len(pq.read_table(table)) == len(POOL) + len(HARM)
    again = screen(*texts, tmp_path / "out2", page=page, store=tmp_path / "store")  # without benign speech
    assert 'id="only-nearer"' not in page.read_text()
    assert again.written_views


def test_texts_of_harmful_items_are_their_owner_s(texts, vectors, tmp_path) -> None:
    """As replies to harmful prompts are: in the page, the table, the ranked list and the store."""
    out, store = tmp_path / "out", tmp_path / "store"
    page, table = tmp_path / "page.html", tmp_path / "explore.parquet"
    screen(*texts, out, page=page, explore=table, store=store)
    stored = [file for name in ("ranked.csv", "screening.json") for file in store.rglob(name)]
    assert len(stored) == 2
    for file in (page, table, out / "ranked.csv", out / "screening.json", *stored):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE((out / "proximity.parquet").stat().st_mode) == 0o644
    screen(*vectors, tmp_path / "vectors")  # no text and no clip
    assert stat.S_IMODE((tmp_path / "vectors" / "ranked.csv").stat().st_mode) == 0o644


def test_the_items_of_a_list_are_dropped_from_ranking_and_report(texts, vectors, tmp_path) -> None:
    (tmp_path / "marks.txt").write_text("p20\np23\n")
    whole = screen(*texts, tmp_path / "out", store=tmp_path / "store").to_pandas()
    result = screen(
        *texts, tmp_path / "out2", store=tmp_path / "store", drop=tmp_path / "marks.txt", keep="closest:0.25"
    )
    assert set(whole["id"]) - set(result.to_pandas()["id"]) == {"p20", "p23"}
    assert result.report["dropped"] == 2
    assert not result.quarantined
    assert not {"p20", "p23"} & {pair["id"] for pair in result.report["closest"]}
    assert "p20" not in json.dumps(result.report["near_duplicates"])
    embedded = screen(*vectors, tmp_path / "out3", drop=tmp_path / "marks.txt", page=tmp_path / "page.html")
    assert len(embedded.to_pandas()) == 198
    content = json.loads((tmp_path / "page.html").read_text().split('id="content">')[1].split("</script>")[0])
    assert sorted(content["data"]["id"]) == sorted(embedded.to_pandas()["id"])  # embeddings have no texts
    (tmp_path / "marks.txt").write_text("p99\n")
    with pytest.raises(UndersongError, match=r"1 of 1 ids in .*marks.txt are not in .*pool.jsonl, the first 'p99'"):
        screen(*texts, tmp_path / "out4", drop=tmp_path / "marks.txt")
