"""Players: what goes into the page, how it looks, and what is left out to keep the page small."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from undersong.corpora.decode import load_clip
from undersong.pages import audio_players
from undersong.pages.audio_players import SAMPLE_RATE, WAVEFORM_BARS, WAVEFORM_HEIGHT, embed_players
from undersong.report.page import render_html
from undersong.results.schema import parse_results
from undersong.types import Sample

Json = dict[str, Any]


def sound(seconds: float, rate: int = SAMPLE_RATE, channels: int = 1) -> bytes:
    """A WAV file whose second half is loud."""
    n = int(seconds * rate)
    signal = np.random.default_rng(0).uniform(-1, 1, (n, channels)) * np.where(np.arange(n) < n // 2, 0.1, 0.8)[:, None]
    out = io.BytesIO()
    soundfile.write(out, signal.astype(np.float32), rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def decoded(uri: str) -> tuple[str, bytes]:
    kind, _, content = uri.removeprefix("data:").partition(";base64,")
    return kind, base64.b64decode(content)


def ids(results: Json) -> list[str]:
    return [item["id"] for screen in results["screening"] for item in screen["closest"]]


def test_a_small_file_goes_in_as_it_is_with_its_length(results: Json) -> None:
    content = sound(1.5)
    (name, *_) = ids(results)
    found = embed_players(
        parse_results(results).screening, {name: (content, "audio/wav"), "nobody": (content, "audio/wav")}
    )
    assert set(found.by_id) == {name}
    assert decoded(found.by_id[name].uri) == ("audio/wav", content)
    assert found.by_id[name].seconds == "1.5\u202fs"
    assert (found.skipped, found.truncated) == (0, 0)


def test_the_waveform_is_where_it_is_loud(results: Json) -> None:
    (name, *_) = ids(results)
    wave = embed_players(parse_results(results).screening, {name: (sound(2.0), "audio/wav")}).by_id[name].wave
    heights = [int(h) for h in re.findall(r"M\d+,\d+v(\d+)", wave)]
    assert len(heights) == WAVEFORM_BARS
    assert max(heights) <= WAVEFORM_HEIGHT
    assert min(heights[WAVEFORM_BARS // 2 + 1 :]) > 3 * max(heights[: WAVEFORM_BARS // 2 - 1])


def test_a_large_file_becomes_a_small_one_of_the_same_sound(results: Json) -> None:
    (name, *_) = ids(results)
    content = sound(4.0, 44_100, 2)
    found = embed_players(parse_results(results).screening, {name: (content, "audio/wav")})
    kind, small = decoded(found.by_id[name].uri)
    assert kind == "audio/mpeg"
    assert len(small) < len(content) / 10
    heard = load_clip(Sample("again", audio=small), SAMPLE_RATE)
    assert heard.samples.size / SAMPLE_RATE == pytest.approx(4.0, abs=0.15)
    quiet, loud = (float(np.abs(half).mean()) for half in np.array_split(heard.samples, 2))
    assert loud > 3 * quiet
    assert found.truncated == 0
    again = embed_players(parse_results(results).screening, {name: (content, "audio/wav")})
    assert again.by_id[name].uri == found.by_id[name].uri  # equal input, equal bytes


def test_a_long_one_is_cut_and_said(results: Json) -> None:
    (name, *_) = ids(results)
    audio = {name: (sound(audio_players.MAX_CLIP_SECONDS + 5), "audio/wav")}
    found = embed_players(parse_results(results).screening, audio)
    assert (
        load_clip(Sample("cut", audio=decoded(found.by_id[name].uri)[1]), SAMPLE_RATE).samples.size <= SAMPLE_RATE * 31
    )
    assert found.truncated == 1
    assert f"1 clip cut to {audio_players.MAX_CLIP_SECONDS}\u202fs" in render_html(results, audio)


def test_all_together_keep_to_a_limit_and_the_closest_come_first(
    results: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    for screen in results["screening"]:
        for item in screen["closest"]:
            item["nearest_id"] = None
    content = sound(1.0)
    monkeypatch.setattr(audio_players, "MAX_TOTAL_BYTES", 5 * len(content))
    audio = dict.fromkeys(ids(results), (content, "audio/wav"))
    found = embed_players(parse_results(results).screening, audio)
    first = [screen["closest"][0]["id"] for screen in results["screening"]]
    assert set(first) < set(found.by_id)
    assert len(found.by_id) == 5
    assert found.skipped == len(audio) - 5
    assert f"{found.skipped} clips without a player" in render_html(results, audio)


def test_one_that_stands_in_several_places_counts_in_each(results: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    for screen in results["screening"]:
        for item in screen["closest"]:
            item["nearest_id"] = "harm"
    content = sound(1.0)
    monkeypatch.setattr(audio_players, "MAX_TOTAL_BYTES", 10 * len(content))
    assert embed_players(parse_results(results).screening, {"harm": (content, "audio/wav")}).skipped == 1


def test_what_is_too_large_and_cannot_be_read_has_no_player(results: Json) -> None:
    (first, second, *_) = ids(results)
    noise = b"\x00" * (audio_players.MAX_FILE_BYTES + 1)
    found = embed_players(
        parse_results(results).screening, {first: (noise, "audio/ogg"), second: (b"OggS", "audio/ogg")}
    )
    assert set(found.by_id) == {second}  # a browser may know it
    assert found.by_id[second].wave == ""
    assert found.skipped == 1


def test_files_of_a_package_decode(results: Json, tmp_path: Path) -> None:
    from undersong.corpora.registry import open_corpus

    sample = open_corpus("organism:pool").samples[0]
    data = sample.audio if isinstance(sample.audio, bytes) else Path(str(sample.audio)).read_bytes()
    (name, *_) = ids(results)
    assert embed_players(parse_results(results).screening, {name: (data, "audio/ogg")}).by_id[name].wave
