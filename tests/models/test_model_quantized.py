"""4 and 8 bits by bitsandbytes, where it is installed: the decoder's blocks alone, and everything above still holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_af3
import torch

from undersong.models.doctor import examine_model
from undersong.models.load import load_model
from undersong.models.loading import Loading

pytest.importorskip("bitsandbytes")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 wide: the CPU's kernels take whole blocks of 64 weights."""
    monkeypatch.setattr(tiny_af3, "DIM", 64)
    return tiny_af3.save(tmp_path)


@pytest.mark.parametrize(("bits", "kind"), [(8, "Linear8bitLt"), (4, "Linear4bit")])
def test_only_the_decoders_blocks_are_quantized(folder: Path, bits: int, kind: str) -> None:
    model = load_model(str(folder), Loading(dtype="bfloat16", quantize=bits))
    small = {name for name, module in model.base.named_modules() if type(module).__name__ == kind}
    assert small == set(model.linear_paths())
    plain = load_model(str(folder), Loading(dtype="bfloat16"))
    (heard,), (other,) = model.hear(tiny_af3.CLIPS[:1]), plain.hear(tiny_af3.CLIPS[:1])
    assert torch.equal(heard.vectors, other.vectors)  # encoder and projector are as they were


@pytest.mark.parametrize("bits", [8, 4])
def test_the_doctor_is_content(folder: Path, bits: int) -> None:
    checks = list(examine_model(str(folder), Loading(dtype="bfloat16", quantize=bits)))
    assert [f"{check.name}: {check.said}" for check in checks if not check.good] == []
    assert len(checks) == 8
