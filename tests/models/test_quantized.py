"""4 and 8 bits by bitsandbytes, where it is installed: the decoder's blocks alone, and everything above still holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_af3
import torch

from undersong.models.doctor import diagnose_model
from undersong.models.load import load_model
from undersong.models.load_options import LoadOptions
from undersong.models.lora import use_adapter
from undersong.tuning.config import LoraRecipe
from undersong.tuning.train import finetune_decoder

pytest.importorskip("bitsandbytes")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """64 wide: the CPU's kernels take whole blocks of 64 weights."""
    monkeypatch.setattr(tiny_af3, "DIM", 64)
    return tiny_af3.save(tmp_path / "model")


@pytest.mark.parametrize(("bits", "kind"), [(8, "Linear8bitLt"), (4, "Linear4bit")])
def test_only_the_decoders_blocks_are_quantized(folder: Path, bits: int, kind: str) -> None:
    model = load_model(str(folder), LoadOptions(dtype="bfloat16", quantize=bits))
    small = {name for name, module in model.base.named_modules() if type(module).__name__ == kind}
    assert small == set(model.linear_paths())
    plain = load_model(str(folder), LoadOptions(dtype="bfloat16"))
    (heard,), (other,) = model.encode_audio(tiny_af3.CLIPS[:1]), plain.encode_audio(tiny_af3.CLIPS[:1])
    assert torch.equal(heard.vectors, other.vectors)  # encoder and projector are as they were


@pytest.mark.parametrize("bits", [8, 4])
def test_the_doctor_is_content(folder: Path, bits: int) -> None:
    checks = list(diagnose_model(str(folder), LoadOptions(dtype="bfloat16", quantize=bits)))
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []
    assert len(checks) == 8


@pytest.mark.parametrize("bits", [8, 4])
def test_a_lora_on_a_quantized_decoder(folder: Path, bits: int, tmp_path: Path) -> None:
    """QLoRA (Dettmers et al., arXiv 2305.14314): it learns, the quantized weights stay to the bit, and what it made is
    a plain PEFT folder that is put on again."""
    how = LoadOptions(dtype="bfloat16", quantize=bits)
    model = load_model(str(folder), how)
    model.audio_features = dict(zip((clip.id for clip in tiny_af3.CLIPS), model.encode_audio(tiny_af3.CLIPS)))
    asked = [tiny_af3.spoken(i) for i in range(4)]
    targets = ["paint the red chair", "wash the old lamp", "fold the boat", "take some paint"]
    before = {name: value.clone() for name, value in model.base.state_dict().items()}
    kept: list[Path] = []

    def keep(name: str, write: Callable[[Path], None]) -> None:
        kept.append(tmp_path / "adapters" / name)
        write(kept[-1])

    tuned = finetune_decoder(
        model, asked, targets, LoraRecipe(save_steps=(60,), batch_size=4, learning_rate=2e-2, warmup_steps=2), 0, keep
    )
    assert tuned.log[-1]["loss"] < 0.3 * tuned.log[0]["loss"]
    after = model.base.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with use_adapter(load_model(str(folder), how), kept[-1]) as worn:
        worn.audio_features = model.audio_features
        assert [reply.reply for reply in worn.generate(asked, 8)] == targets
