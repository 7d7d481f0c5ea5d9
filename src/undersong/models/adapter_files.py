"""The files of a LoRA adapter's folder, and their checks before PEFT reads them: PEFT accepts values that fail later,
or that change nothing.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, field_validator

from undersong.escaping import describe_error
from undersong.models.pretrained import check_regular_files
from undersong.models.refs import has_content_hash
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

ADAPTER_WEIGHTS, ADAPTER_CONFIG, MADE_FOR = "adapter_model.safetensors", "adapter_config.json", "made_for.json"
Rank = Annotated[StrictInt, Field(ge=1)]
Names = StrictStr | list[StrictStr] | None
T = TypeVar("T", bound=BaseModel)


class AdapterConfig(BaseModel):
    """The settings of `adapter_config.json` that PEFT uses without a check."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    peft_type: StrictStr
    r: Rank = 8
    lora_alpha: float = Field(8, strict=True)
    lora_dropout: float = Field(0.0, strict=True, ge=0, lt=1)
    target_modules: Names = None
    exclude_modules: Names = None
    layers_to_transform: StrictInt | list[StrictInt] | None = None
    layers_pattern: Names = None
    rank_pattern: dict[StrictStr, Rank] | None = None
    alpha_pattern: dict[StrictStr, Annotated[float, Field(strict=True)]] | None = None
    auto_mapping: dict[StrictStr, Any] | None = None

    @field_validator("target_modules", "exclude_modules")
    @classmethod
    def _check_pattern(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"is no regular expression ({error})") from error
        return value


class BaseNote(BaseModel):
    """What `made_for.json` says of the model that an adapter was made for; `of_files`: the hash is of its files."""

    model: StrictStr
    hash: StrictStr
    of_files: StrictBool


def write_base_note(model: AudioModel, folder: Path) -> None:
    """Write the note of the model whose adapter or decoder is in the folder."""
    values = {"model": model.name, "family": model.family.name, "hash": model.fingerprint}
    (folder / MADE_FOR).write_text(json.dumps({**values, "of_files": has_content_hash(model.name)}, indent=1) + "\n")


def differing_base(model: str, fingerprint: Callable[[], str], folder: Path) -> str | None:
    """Name of the model that a folder was made for, if its weights are known to differ from the model's.

    Args:
        model: Reference of the model.
        fingerprint: Hash of the model's files, which is computed if the folder names one.
        folder: Folder of an adapter or a decoder.
    """
    note = read_base_note(folder)
    differs = note is not None and note.of_files and has_content_hash(model) and note.hash != fingerprint()
    return note.model if note is not None and differs else None


def check_adapter_base(model: str, class_name: str, fingerprint: Callable[[], str], folder: Path, config: Any) -> None:
    """Check the base: adapters also load on other models with the same names and shapes, where they mean nothing.

    Args:
        model: Reference of the model.
        class_name: Class of its network.
        fingerprint: Hash of the model's files.
        folder: Folder of the adapter.
        config: Config of the adapter.

    Raises:
        UndersongError: The adapter was made for another class, or for other weights.
    """
    trained_class = (config.auto_mapping or {}).get("base_model_class")
    # Elsewhere, omni models are loaded with the talker, which contains the thinker.
    if trained_class is not None and trained_class not in (class_name, class_name.replace("Thinker", "")):
        raise UndersongError(
            f"Adapter {folder} does not fit {model}: it was made for the class {trained_class}, and this model is of "
            f"the class {class_name}; take its own base."
        )
    if base := differing_base(model, fingerprint, folder):
        raise UndersongError(
            f"Adapter {folder} does not fit {model}: it was made for {base}, whose weights differ; take its own base, "
            f"or remove {MADE_FOR} from the folder."
        )


def read_base_note(folder: Path) -> BaseNote | None:
    """Read the note of the base; None if the folder has none, because another tool wrote it."""
    return _parse(folder / MADE_FOR, BaseNote) if (folder / MADE_FOR).is_file() else None


def read_lora_config(folder: Path) -> Any:
    """Read a plain LoRA: everything else that PEFT can save changes the base itself, and could not be removed."""
    from peft import PeftConfig

    check_regular_files(folder)
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        if not (folder / name).is_file():
            raise UndersongError(f"{folder} holds no {name}; give a PEFT adapter folder.")
    if (kind := _parse(folder / ADAPTER_CONFIG, AdapterConfig).peft_type) != "LORA":
        raise UndersongError(f"{folder} is an adapter of the kind {kind}; give a LoRA.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that a newer PEFT wrote; those that matter are checked below
            config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        reason = describe_error(error)
        raise UndersongError(f"{folder / ADAPTER_CONFIG} cannot be read ({reason}); save the adapter again.") from error
    if unsupported := _unsupported_setting(config):
        raise UndersongError(
            f"Adapter {folder} changes more than LoRA on linear layers ({unsupported}), and the base could not be "
            "restored from it; give a plain LoRA."
        )
    return config


def _parse(file: Path, schema: type[T]) -> T:
    try:
        return schema.model_validate(json.loads(file.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "the whole file"
        reason = first["msg"].removeprefix("Value error, ")
        raise UndersongError(f"{file} has a bad value ({key}: {reason}); save the adapter again.") from None
    except (ValueError, RecursionError) as error:
        raise UndersongError(f"{file} is no JSON ({describe_error(error)}); save the adapter again.") from None


def _unsupported_setting(config: Any) -> str | None:
    """The first setting by which an adapter would change the base itself; None if there is none."""
    for name in ("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication"):
        if value := getattr(config, name, None):
            return f"{name}: {value}"
    if config.bias != "none":
        return f"bias: {config.bias}"
    initialization = config.init_lora_weights  # PiSSA, OLoRA and others move base weights into the adapter
    return (
        None
        if isinstance(initialization, bool) or initialization == "gaussian"
        else f"init_lora_weights: {initialization}"
    )
