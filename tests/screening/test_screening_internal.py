"""Screening by the audited model's own ear: what it hears, its views, and what it cannot hear."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_af3
from screen_call import screen

from undersong.models.load import load_model
from undersong.types import UndersongError


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Eight benign clips, one of them longer than the model hears, and two harmful ones, each a tone of its own."""
    rows = []
    for i in range(10):
        samples = tiny_af3.clip(str(i), 41 if i == 3 else 0.4 + 0.1 * i, i).samples
        soundfile.write(tmp_path / f"{i}.wav", samples, tiny_af3.RATE, subtype="FLOAT")
        rows.append({"id": f"clip{i}", "audio": f"{i}.wav"})
    for name, part in (("pool", rows[:8]), ("harm", rows[8:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return tmp_path / "pool.jsonl", tmp_path / "harm.jsonl"


def test_the_models_axes_are_means_of_what_it_hears(sides, tiny_folder: Path, tmp_path: Path) -> None:
    axes = {"ears": "internal", "tower": "internal:tower"}
    screened = screen(*sides, tmp_path / "out", axes=axes, model=str(tiny_folder), max_quarantined=0.2)
    assert [(item.id, "takes no more than 40 s" in item.reason) for item in screened.quarantined] == [("clip3", True)]
    model = load_model(str(tiny_folder))
    clips = {f"clip{i}": tiny_af3.clip(str(i), 0.4 + 0.1 * i, i) for i in range(10) if i != 3}
    heard = dict(zip(clips, model.encode_audio(list(clips.values()))))
    for axis, vector in (("ears", lambda h: h.valid_vectors().mean(0)), ("tower", lambda h: h.views["tower"].vector)):
        made = {name: vector(one) / np.linalg.norm(vector(one)) for name, one in heard.items()}
        harm = np.stack([made["clip8"], made["clip9"]])
        table = screened.tables[axis].to_pydict()
        wanted = [1 - (harm @ made[name]).max() for name in table["id"]]
        np.testing.assert_allclose(table["distance"], wanted, atol=1e-5)


def test_an_internal_axis_needs_a_model(sides, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="uses a model's audio encoder; name the model with --model"):
        screen(*sides, tmp_path / "out", axes={"ears": "internal"})
    assert not (tmp_path / "out").exists()


def test_a_view_that_is_not_there_is_refused(sides, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="has no view 'codes'; take internal"):
        screen(*sides, tmp_path / "out", axes={"c": "internal:codes"}, model=str(tiny_folder), max_quarantined=0.2)


def test_every_long_pass_says_how_far_it_is(sides, tiny_folder: Path, tmp_path: Path, monkeypatch) -> None:
    from undersong.encoders import batching

    monkeypatch.setattr(batching, "REPORT_INTERVAL", 0.0)
    lines: list[str] = []
    axes = {"ears": "internal", "sound": "logmel"}
    screen(*sides, tmp_path / "out", axes=axes, model=str(tiny_folder), max_quarantined=0.2, progress=lines.append)
    for what in ("reading", "internal of", "logmel of"):
        assert any(line.startswith(what) and "pool.jsonl: " in line for line in lines), what
