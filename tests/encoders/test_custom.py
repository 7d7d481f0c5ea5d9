"""An encoder of the user's own: docs/how-to/add-an-encoder.md runs, and what such an encoder does wrong is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from pages import commands, page
from typer.testing import CliRunner

from undersong.cli.app import app
from undersong.corpora.registry import open_corpus
from undersong.encoders.batching import Progress
from undersong.encoders.registry import make_encoder
from undersong.encoders.spec import parse_encoder
from undersong.store.user_code import code_hash
from undersong.types import Sample, UndersongError

PAGE = page("add-an-encoder")
(WRITTEN,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
SPEC = "python:my_encoder.py:bright"
ITEMS = [Sample("a", text="one"), Sample("b", text="two")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_encoder.py").write_text(WRITTEN)
    return tmp_path


def test_the_page_s_encoder_hears_and_tells_how_far_it_is(here: Path) -> None:
    samples = open_corpus("organism:pool").samples[:6]
    told: list[Progress] = []
    encoder = make_encoder(SPEC, fit=(), progress=told.append)
    made = encoder.encode([*samples, Sample("mute")])
    assert encoder.name == SPEC
    assert made.ids == tuple(sample.id for sample in samples)
    assert made.vectors.shape == (6, 24)
    assert made.vectors.dtype == np.float32
    np.testing.assert_allclose(made.vectors.mean(axis=1), 0, atol=1e-5)
    assert [item.id for item in made.quarantined] == ["mute"]
    assert told[-1].done == told[-1].total == 7
    # no vector depends on its batch
    np.testing.assert_array_equal(encoder.encode(samples[:1]).vectors[0], made.vectors[0])


def vectors(folder: Path) -> set[str]:
    return {path.name for path in (folder / "store" / "embeddings").iterdir() if path.is_dir()}


def test_the_page_s_command_runs_and_another_line_is_another_screening(here: Path) -> None:
    (line,) = commands(PAGE)
    words = [*line.split()[1:], "--store", "store"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    findings = json.loads((here / "screened" / "screening.json").read_text())
    assert SPEC in json.dumps(findings)
    made = vectors(here)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert vectors(here) == made
    assert len(made) == 4
    (here / "my_encoder.py").write_text(WRITTEN.replace("BANDS = 512, 24", "BANDS = 512, 20"))
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(vectors(here) - made) == 2  # pool and harm set, on this axis alone


def test_the_page_s_axes_are_ones() -> None:
    (written,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    assert [parse_encoder(spec).kind for spec in yaml.safe_load(written)["axes"].values()] == ["tfidf", "python"]


def encoder_of(folder: Path, made: str) -> None:
    (folder / "mine.py").write_text(
        "import numpy as np\nfrom undersong.types import Embeddings, Quarantined\n\nclass Mine:\n    name = 'mine'\n\n"
        f"    def encode(self, samples):\n        ids = tuple(one.id for one in samples)\n        return {made}\n\n"
        "def mine():\n    return Mine()\n\ndef none():\n    return 3\n"
    )


BAD = [
    ("Embeddings(ids[:1], np.eye(2)[:1], np.zeros(1))", "accounted for 1 items where it was given 2"),
    ("Embeddings(('a', 'a'), np.eye(2), np.zeros(2))", "or for others"),
    ("Embeddings(ids, np.eye(3), np.zeros(3))", r"vectors of shape \(3, 3\)"),
    ("Embeddings(ids, np.ones((2, 2)), np.zeros(2))", "same vector to all 2 items"),
]


@pytest.mark.parametrize(("made", "said"), BAD)
def test_what_it_does_wrong_is_told(here: Path, made: str, said: str) -> None:
    encoder_of(here, made)
    with pytest.raises(UndersongError, match=said):
        make_encoder("python:mine.py:mine", fit=()).encode(ITEMS)


def test_unsound_vectors_are_quarantined(here: Path) -> None:
    encoder_of(here, "Embeddings(ids[1:], np.array([[0.0, np.nan]]), np.zeros(1), (Quarantined(ids[0], 'mine'),))")
    made = make_encoder("python:mine.py:mine", fit=()).encode(ITEMS)
    assert made.ids == ()
    assert [(item.id, item.reason) for item in made.quarantined] == [("a", "mine"), ("b", "NaN in vector")]


def test_what_cannot_be_named(here: Path) -> None:
    encoder_of(here, "None")
    for spec, said in (
        ("python", "names no code; write FILE.py:FUNCTION"),
        ("python:mine.py", "names no code"),
        ("python:mine.py:mine,pool=mean", "unknown option 'pool'; python takes none"),
        ("python:gone.py:mine", "There is no file gone.py"),
        ("python:mine.py:none", "returned no encoder but a int"),
    ):
        with pytest.raises(UndersongError, match=said):
            make_encoder(spec, fit=())


def test_the_hash_is_of_what_is_written_and_not_of_where(here: Path) -> None:
    (here / "else").mkdir()
    (here / "else" / "my_encoder.py").write_text(WRITTEN)
    assert code_hash("my_encoder.py:bright") == code_hash("else/my_encoder.py:other")
