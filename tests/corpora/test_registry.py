"""Corpora by reference, their content hash, and what importing the room costs."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import undersong
from undersong.corpora import registry as module
from undersong.corpora.audio_metadata import examine
from undersong.corpora.manifest import Manifest, write_corpus, write_manifest
from undersong.corpora.registry import check_corpus_ref, corpus_hash, manifest_hash, open_corpus
from undersong.types import Quarantined, Sample, UndersongError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: Callable[..., bytes]) -> Path:
    """A package folder with two small corpora in the place where the organism's are."""
    folder = tmp_path / "package" / "data" / "organism"
    folder.mkdir(parents=True)
    for name, hertz in {"pool": 300.0, "test-harm": 500.0}.items():
        audio = sound(format="OGG", subtype="OPUS", hertz=hertz)
        write_manifest([Sample(f"{name}-1", audio=audio, text="hello")], folder / f"{name}.parquet")
    monkeypatch.setattr(module.resources, "files", lambda package: tmp_path / "package")
    return folder


def test_a_packaged_corpus_opens_and_can_be_heard(package: Path) -> None:
    manifest = open_corpus("organism:test-harm")
    assert [sample.id for sample in manifest.samples] == ["test-harm-1"]
    kept, failed = examine(manifest.samples)
    assert failed == ()
    assert kept[0].seconds == pytest.approx(0.5, abs=0.01)


def test_an_unknown_name_lists_those_there_are(package: Path) -> None:
    with pytest.raises(UndersongError, match="'pol'; choose from: pool, test-harm"):
        open_corpus("organism:pol")
    with pytest.raises(UndersongError, match=r"\.\./pool"):
        open_corpus("organism:../pool")


def test_the_shipped_references_are_two_corpora_that_share_no_text() -> None:
    harm, ordinary = (open_corpus(f"shipped:{name}").samples for name in ("harm", "ordinary"))
    assert (len(harm), len(ordinary)) == (1098, 2044)
    for samples in (harm, ordinary):
        assert all(sample.text and sample.group and sample.column("license") for sample in samples)
        assert len({sample.text for sample in samples}) == len(samples)
    assert not {sample.text for sample in harm} & {sample.text for sample in ordinary}
    card = (Path(undersong.__file__).parent / "data" / "shipped" / "CARD.md").read_text()
    assert all(f"`{corpus_hash(f'shipped:{name}')}`" in card for name in ("harm", "ordinary"))
    with pytest.raises(UndersongError, match="'harms'; choose from: harm, ordinary"):
        open_corpus("shipped:harms")


def test_any_other_reference_is_a_path(tmp_path: Path) -> None:
    write_manifest([Sample("a", text="x")], tmp_path / "m.jsonl")
    assert open_corpus(str(tmp_path / "m.jsonl")).samples == (Sample("a", text="x"),)
    with pytest.raises(UndersongError, match="no manifest"):
        open_corpus(str(tmp_path / "missing.jsonl"))


def test_the_hash_feels_the_manifest_and_every_file_it_names(tmp_path: Path, package: Path) -> None:
    path, clip = tmp_path / "m.jsonl", tmp_path / "a.wav"
    hashes = []

    def note() -> None:
        hashes.append(corpus_hash(str(path)))
        assert corpus_hash(str(path)) == hashes[-1]

    write_manifest([Sample("a", audio=str(clip), text="x")], path)
    note()
    clip.write_bytes(b"one")
    note()
    clip.write_bytes(b"two")
    note()
    write_manifest([Sample("a", audio=str(clip), text="y")], path)
    note()
    assert len(set(hashes)) == 4
    assert all(len(found) == 64 for found in hashes)
    assert corpus_hash("organism:pool") != corpus_hash("organism:test-harm")


def test_the_hash_is_of_contents_not_of_places(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(b"one")
        write_manifest([Sample("a", audio=str(tmp_path / name / "a.wav"))], tmp_path / name / "m.jsonl")
    assert corpus_hash(str(tmp_path / "here" / "m.jsonl")) == corpus_hash(str(tmp_path / "there" / "m.jsonl"))


def test_the_hash_of_a_folder_feels_its_quarantine(tmp_path: Path) -> None:
    write_corpus([Sample("a", text="x")], [], tmp_path)
    before = corpus_hash(str(tmp_path))
    assert before == corpus_hash(str(tmp_path / "corpus.parquet"))
    write_corpus([Sample("a", text="x")], [Quarantined("b", "gone")], tmp_path)
    assert corpus_hash(str(tmp_path)) != before


def test_a_preset_with_a_local_copy_is_a_reference(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("goal,target\ndo it,Sure\n")
    ref = f"preset:advbench={tmp_path}/a.csv"
    manifest = open_corpus(ref)
    assert [sample.text for sample in manifest.samples] == ["do it"]
    before = corpus_hash(ref)
    assert before == corpus_hash(ref)
    (tmp_path / "a.csv").write_text("goal,target\ndo that,Sure\n")
    assert corpus_hash(ref) != before
    with pytest.raises(UndersongError, match="No preset"):
        open_corpus("preset:nothing")


def test_any_form_is_a_reference_and_its_hash_feels_every_item(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("qid,q\n1,x\n")
    assert open_corpus(str(tmp_path / "a.csv"), columns={"id": "qid", "text": "q"}).samples == (Sample("1", text="x"),)
    folder = tmp_path / "spoken"
    folder.mkdir()
    (folder / "said.csv").write_text("file,text\nb.wav,hello\n")
    hashes = [corpus_hash(str(folder))]
    (folder / "b.wav").write_bytes(b"one")
    hashes.append(corpus_hash(str(folder)))
    (folder / "b.wav").write_bytes(b"two")
    hashes.append(corpus_hash(str(folder)))
    (folder / "said.csv").write_text("file,text\nb.wav,goodbye\n")
    hashes.append(corpus_hash(str(folder)))
    assert len(set(hashes)) == 4
    folder.rename(tmp_path / "moved")
    assert corpus_hash(str(tmp_path / "moved")) == hashes[-1]
    sample = Sample("a", audio=b"x", text="t")
    other = [(sample,), (replace(sample, audio=b"y"),), (replace(sample, text="u"),), (sample, Sample("b", text="t"))]
    made = [manifest_hash(Manifest(samples, (), tmp_path)) for samples in other]
    made.append(manifest_hash(Manifest((sample,), (Quarantined("b", "gone"),), tmp_path)))
    assert len(set(made)) == 5


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = "import sys; import undersong.corpora, undersong.store; print(*{n.split('.')[0] for n in sys.modules})"
    environment = {"PYTHONPATH": str(Path(undersong.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    heavy = {"numpy", "pyarrow", "soundfile", "soxr", "torch", "transformers", "scipy", "sklearn", "pandas"}
    assert heavy.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("ref", ["organism:pool", "preset:advbench", "hf:pool", "organism-pool.jsonl", "nowhere"])
def test_only_what_is_nearly_a_name_is_misspelt(ref: str) -> None:
    check_corpus_ref(ref)


def test_a_folder_of_that_name_is_no_misspelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UndersongError, match=r"There is no manifest organism-pool; did you mean 'organism:pool'\?"):
        open_corpus("organism-pool")
    (tmp_path / "organism-pool").mkdir()
    write_corpus([Sample("a", text="x")], [], tmp_path / "organism-pool")
    assert [sample.id for sample in open_corpus("organism-pool").samples] == ["a"]
