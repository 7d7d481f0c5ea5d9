"""What every encoder of sound shares: order, threads, memory that runs out, and how far it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from undersong.encoders import clip_encoder
from undersong.encoders.batching import Progress, format_duration, progress_lines
from undersong.encoders.clip_encoder import ClipEncoder
from undersong.encoders.pooling import compute_moments, pool_moments
from undersong.encoders.windowing import (
    AudioWindow,
    WindowedEncoder,
    WindowNetwork,
    consecutive_windows,
    evenly_spaced_windows,
    windows_per_pass,
)
from undersong.types import PooledVector, Sample, UndersongError


def told(clips) -> list[PooledVector]:
    """A vector that says which clip it is of."""
    return [PooledVector(np.array([len(clip.samples), clip.samples[7]], np.float32), 1) for clip in clips]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(9)), batch=st.integers(1, 5), block=st.integers(1, 6))
def test_in_the_samples_order_whatever_the_batch_and_block(spoken, silent, order, batch, block) -> None:
    pool = [spoken(f"s{i}", 0.1 + 0.05 * i, seed=i) for i in range(7)] + [silent, Sample("written", text="words")]
    samples = [pool[i] for i in order]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_encoder, "CLIPS_PER_BLOCK", block)
        made = ClipEncoder("told", told, batch=batch).encode(samples)
    plain = {sample.id: row for sample, row in zip(pool, ClipEncoder("told", told).encode(pool).vectors)}
    assert made.ids == tuple(sample.id for sample in samples if sample.id in plain)
    assert all(np.array_equal(row, plain[id]) for id, row in zip(made.ids, made.vectors))
    assert {item.id: item.reason for item in made.quarantined} == {
        "silent": "the audio is constant (0 throughout)",
        "written": "no audio",
    }
    assert [item.id for item in made.quarantined] == [sample.id for sample in samples if sample.id not in plain]


@pytest.mark.parametrize("saying", ["CUDA out of memory. Tried to allocate 2 GiB", "can't allocate memory", None])
def test_out_of_memory_halves_the_batch_and_goes_on(spoken, saying: str | None) -> None:
    sizes: list[int] = []

    def embed(clips):
        sizes.append(len(clips))
        if sum(len(clip.samples) for clip in clips) > 8_000:
            raise MemoryError if saying is None else RuntimeError(saying)
        return told(clips)

    # 2,000 samples each, and one of 9,600 that does not fit alone.
    samples = [spoken(f"s{i}", 0.125, seed=i) for i in range(9)] + [spoken("large", 0.6)]
    made = ClipEncoder("told", embed, batch=16).encode(samples)
    assert made.ids == tuple(f"s{i}" for i in range(9))
    assert [(item.id, item.reason) for item in made.quarantined] == [("large", "out of memory: 0.6 s of audio")]
    assert sizes == [10, 5, 2, 2, 2, 2, 2, 1, 1]


def test_any_other_fault_is_not_taken_for_lack_of_memory(spoken) -> None:
    def embed(clips):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        ClipEncoder("broken", embed, batch=2).encode([spoken("a", 0.2), spoken("b", 0.2)])


def test_progress_counts_everything_and_ends_at_the_end(spoken, silent) -> None:
    heard: list[Progress] = []
    samples = [spoken(f"s{i}", 0.1, seed=i) for i in range(5)] + [silent]
    ClipEncoder("told", told, batch=2, progress=heard.append).encode(samples)
    assert [now.done for now in heard] == [3, 5, 6, 6]  # the silent one is known before the first batch
    assert {now.total for now in heard} == {6}
    assert heard[-1].remaining_seconds == 0


def test_rate_and_time_left() -> None:
    assert Progress(30, 90, 10.0).rate == 3.0
    assert Progress(30, 90, 10.0).remaining_seconds == 20.0
    assert Progress(0, 90, 0.0).remaining_seconds is None


def test_nothing_but_unreadable_items(silent) -> None:
    made = ClipEncoder("told", told).encode([silent, Sample("no file", audio="/nowhere/a.wav")])
    assert made.ids == ()
    assert [item.id for item in made.quarantined] == ["silent", "no file"]
    assert "cannot be opened" in made.quarantined[1].reason


def test_files_are_not_decoded_far_ahead(spoken, monkeypatch) -> None:
    """Where clips are long, a few at a time."""
    started: list[str] = []
    plain = clip_encoder.decode_clip
    monkeypatch.setattr(
        clip_encoder, "decode_clip", lambda sample, rate: started.append(sample.id) or plain(sample, rate)
    )
    monkeypatch.setattr(clip_encoder, "MAX_SECONDS_AHEAD", 0.25)
    found = clip_encoder.decode_clips([spoken(f"s{i}", 0.1) for i in range(40)], 16_000, threads=2)
    for read in range(1, 11):
        next(found)
        assert len(started) <= max(read + 3, 5)
    found.close()
    assert len(started) < 20


def test_a_library_that_fails_on_one_item_is_heard(spoken, monkeypatch) -> None:
    def load(sample, rate):
        raise UndersongError("not of this item")

    monkeypatch.setattr(clip_encoder, "load_clip", load)
    with pytest.raises(UndersongError, match="not of this item"):
        ClipEncoder("told", told).encode([spoken("a", 0.1)])


@given(
    cuts=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    offset=st.sampled_from([0.0, 1e3]),
)
def test_pooling_by_windows_is_pooling_at_once(cuts: list[int], seed: int, offset: float) -> None:
    frames = np.random.default_rng(seed).standard_normal((sum(cuts), 4)).astype(np.float32) + np.float32(offset)
    parts = [compute_moments(part) for part in np.split(frames, np.cumsum(cuts)[:-1])]
    wide = frames.astype(np.float64)
    assert np.allclose(pool_moments(parts, "mean").vector, wide.mean(axis=0), rtol=1e-6)
    both = pool_moments(parts, "mean+std").vector
    assert np.allclose(both, np.concatenate([wide.mean(axis=0), wide.std(axis=0)]), rtol=1e-5, atol=1e-6)
    assert np.array_equal(pool_moments(parts, "last").vector, frames[-1])
    assert pool_moments(parts, "mean").frames == sum(cuts)


@given(samples=st.integers(1, 400), window=st.integers(1, 60))
def test_windows_cover_a_clip(samples: int, window: int) -> None:
    whole = consecutive_windows(samples, window)
    assert [start for start, _ in whole[1:]] == [stop for _, stop in whole[:-1]]
    assert (whole[0][0], whole[-1][1]) == (0, samples)
    even = evenly_spaced_windows(samples, window)
    assert (even[0][0], even[-1][1]) == (0, samples)
    assert len({stop - start for start, stop in even}) == 1
    assert all(start <= before for (start, _), (_, before) in zip(even[1:], even))
    assert len(even) == len(whole)


def windows(*lengths: int) -> list[AudioWindow]:
    return [AudioWindow(np.zeros(length), length, float(length)) for length in lengths]  # type: ignore[arg-type]


def test_only_one_shape_a_pass_unless_the_network_masks() -> None:
    assert windows_per_pass(windows(2, 2, 3, 3), 100, ragged=False) == 2
    assert windows_per_pass(windows(2, 2, 3, 3), 100, ragged=True) == 4
    assert windows_per_pass(windows(2, 2, 3, 3), 9, ragged=True) == 3  # all are padded to the longest: 3 x 3 s
    assert windows_per_pass(windows(5, 5), 1, ragged=True) == 1


def test_a_pass_that_does_not_fit_is_halved_and_a_window_that_does_not_is_told(spoken) -> None:
    passes: list[int] = []

    def hear(found):
        passes.append(len(found))
        if len(found) > 2:
            raise RuntimeError("HIP out of memory")
        return [np.ones((window.frames, 2)) for window in found]

    cut = lambda samples: windows(3, 3, 3) if len(samples) > 2_000 else windows(3)  # noqa: E731
    ear = WindowedEncoder(WindowNetwork(16_000, cut, hear), "mean", seconds=90.0)
    samples = [spoken(f"s{i}", seconds, seed=i) for i, seconds in enumerate([0.1, 0.1, 0.1, 0.2])]
    made = ClipEncoder("all alike", ear, batch=8)
    with pytest.raises(UndersongError, match="same vector"):
        made.encode(samples)
    assert passes == [6, 3, 1, 1, 1, 1, 1, 1]


def test_progress_in_words() -> None:
    lines: list[str] = []
    watcher = progress_lines("logmel of pool.jsonl", lines.append)
    for seconds, done in ((3.0, 50), (12.0, 1_200), (13.0, 1_300), (23.0, 2_300), (40.0, 100_000)):
        watcher(Progress(done, 100_000, seconds))
    assert lines == [
        "logmel of pool.jsonl: 1,200 of 100,000, 100 a second, 16 min 28 s left",
        "logmel of pool.jsonl: 2,300 of 100,000, 100 a second, 16 min 17 s left",
        "logmel of pool.jsonl: 100,000 of 100,000, 2.5e+03 a second, 0 s left",
    ]
    assert format_duration(18_725) == "5 h 12 min"
