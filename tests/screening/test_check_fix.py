"""`check --fix` where much of the data is nearer: what stays, what is left out, and what is said about it."""

from __future__ import annotations

import json
import random
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.corpora.training_file import open_training_file
from undersong.screening.check.fix import MAX_EXTRA, choose_removal, fix_data
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.result import MORE, CheckResult, RankedSample
from undersong.screening.check.run import run_check
from undersong.types import UndersongError

THINGS = [f"thing{i:02}" for i in range(60)]
HARMS = [f"evils{i:02}" for i in range(20)]


def write_texts(file: Path, texts: list[str]) -> Path:
    file.write_text("".join(json.dumps({"id": f"{file.stem}{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return file


def found(data: Path, flags: list[bool], samples: int) -> CheckResult:
    """A result that ranks the first `len(flags)` samples of the data, nearer ones first."""
    order = sorted(range(len(flags)), key=lambda row: not flags[row])
    ranked = tuple(
        RankedSample(rank, f"x{row}", row, rank / 100, flags[row], "text", None, None)
        for rank, row in enumerate(order, 1)
    )
    return CheckResult(
        str(data), "a table", samples, len(flags), 0, (), 0, {}, {}, (), "words", MORE, "", (), ranked=ranked
    )


def test_data_of_which_nearly_half_is_nearer_are_fixed(tmp_path: Path) -> None:
    rng = random.Random(0)
    harm = [" ".join(["please", "make", "a", *rng.choices(HARMS, k=20)]) for _ in range(160)]
    ordinary = [" ".join(["please", "make", "a", *rng.choices(THINGS, k=5)]) for _ in range(520)]
    texts = harm[:100] + ordinary[:120]
    rng.shuffle(texts)
    request = CheckRequest(
        write_texts(tmp_path / "mix.jsonl", texts),
        harm=str(write_texts(tmp_path / "harm.jsonl", harm[100:])),
        ordinary=str(write_texts(tmp_path / "ordinary.jsonl", ordinary[120:])),
        fix=tmp_path / "less.jsonl",
    )
    result = run_check(request)
    assert len(result.flagged_rows) >= 100
    fixed = fix_data(request, result)  # the quarter of the longest texts is nearer as a whole
    kept = {json.loads(line)["text"] for line in (tmp_path / "less.jsonl").read_text().splitlines()}
    assert len(kept) >= 60
    assert kept.isdisjoint(harm)
    assert fixed.removal.matched == ()
    assert "shares by length change, because keeping them would cost too many" in fixed.sentence


@st.composite
def flagged_samples(draw: st.DrawFn) -> tuple[list[tuple[int, str, str]], list[bool]]:
    """Samples (length of the text, source, speaker), and whether each of the ranked ones is nearer to harm.

    The chance of it differs between sources and between lengths.
    """
    rng = random.Random(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([1, 2, 7, 60, 220]))
    sources, speakers = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    shares = [draw(st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0])) for _ in range(2 * sources)]
    samples, flags = [], []
    for _ in range(size):
        length, source = rng.randrange(1, 60), rng.randrange(sources)
        samples.append((length, f"source{source}", f"speaker{rng.randrange(speakers)}"))
        flags.append(rng.random() < shares[2 * source + (length > 40)])
    unranked = draw(st.sampled_from([0, 0, 0, 1, size // 3]))
    return samples, flags[: size - unranked]


@given(flagged_samples())
def test_a_fixed_file_has_no_nearer_sample_and_is_empty_only_if_all_are(
    drawn: tuple[list[tuple[int, str, str]], list[bool]],
) -> None:
    samples, flags = drawn
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder, "data.jsonl"), Path(folder, "less.jsonl")
        rows = [
            {"id": f"x{i}", "text": "a" * length, "source": source, "speaker": speaker}
            for i, (length, source, speaker) in enumerate(samples)
        ]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        result = found(data, flags, len(samples))
        if not flags:
            return
        request = CheckRequest(data, fix=out)
        if all(flags) and len(flags) == len(samples):
            with pytest.raises(UndersongError, match=r"^All samples of .* lie nearer to harm, so none would be left"):
                fix_data(request, result)
            assert not out.exists()
            return
        fixed = fix_data(request, result)
        kept = {json.loads(line)["id"] for line in out.read_text().splitlines()}
        assert kept
        assert kept.isdisjoint(f"x{row}" for row, flag in enumerate(flags) if flag)
        assert kept.issuperset(f"x{row}" for row in range(len(flags), len(samples)))
        removal, nearer, dropped = fixed.removal, sum(flags), len(samples) - len(kept)
        assert removal == choose_removal(open_training_file(str(data)).samples, result)
        assert dropped - nearer <= MAX_EXTRA * (len(flags) - nearer)
        noun, verb = "sample" if len(samples) == 1 else "samples", "is" if dropped == 1 else "are"
        near = "lies" if nearer == 1 else "lie"
        start = f"{dropped} of {len(samples)} {noun} {verb} left out in {out}: {nearer} that {near} nearer"
        assert fixed.sentence.startswith(start)
        extra = re.search(r"and (\d+) more", fixed.sentence)
        assert (int(extra[1]) if extra else 0) == dropped - nearer
        assert bool(extra) == bool(removal.matched)
