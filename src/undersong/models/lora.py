"""LoRA adapters on a loaded model: create, save, apply and remove one, and check that it stays inside the decoder.
Removing an adapter restores the base bit for bit.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from undersong.escaping import describe_error
from undersong.models.adapter_files import ADAPTER_WEIGHTS, check_adapter_base, read_lora_config, write_base_note
from undersong.models.adapter_patterns import resolve_patterns
from undersong.models.audio_lm import AudioModel
from undersong.models.decoder_weights import is_decoder_folder, use_decoder
from undersong.models.weight_conversion import network_module_path
from undersong.models.weights import read_tensors
from undersong.types import UndersongError

# base_model.model.PATH.lora_A.weight, lora_B, lora_embedding_A, lora_magnitude_vector
LORA_TENSOR = re.compile(r"^base_model\.model\.(?P<path>.+?)\.(?P<rest>lora_\w+(\..+)?)$")


def network_tensor_names(base: Any, names: Iterable[str]) -> dict[str, str]:
    """Map tensor names of an adapter file to names in this network; names that fit, or fit nowhere, stay."""
    module_paths = {path for path, _ in base.named_modules()}
    matches = {name: LORA_TENSOR.match(name) for name in names}
    network_names = {name: name for name in matches}
    for name, match in matches.items():
        if (
            match is not None
            and match["path"] not in module_paths
            and (path := network_module_path(base, match["path"])) in module_paths
        ):
            network_names[name] = f"base_model.model.{path}.{match['rest']}"
    return network_names


def set_target_paths(config: Any, names: Iterable[str], folder: Path) -> None:
    """Set the target modules of an adapter config to the full module paths of its tensors, when its own names no longer
    fit.

    Raises UndersongError for ranks or scales by module, which are patterns over the old names.
    """
    if config.rank_pattern or config.alpha_pattern:
        raise UndersongError(
            f"Adapter {folder} has separate ranks or scales for modules whose names have changed since; save it "
            "again with the installed version of transformers."
        )
    config.target_modules = sorted({match["path"] for name in names if (match := LORA_TENSOR.match(name))})
    config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
    config.base_model_name_or_path = None  # else PEFT warns about the base's path


def check_targets(model: AudioModel, paths: Sequence[str], allowed: Collection[str]) -> None:
    """Raise UndersongError unless every path is in `allowed`: linear layers inside the decoder's blocks.

    List `allowed` *before* an adapter is added. Suffix matching ("q_proj") also hits audio encoders (fault 6 of the
    published code).
    """
    outside = sorted(set(paths) - set(allowed))
    if outside:
        location = next(
            (module_path for module_path in model.frozen_modules if outside[0].startswith(module_path)),
            "a module outside the decoder's blocks",
        )
        raise UndersongError(
            f"The adapter trains {outside[0]} ({len(outside)} such modules), which lies in {location}; "
            "give full paths of linear layers of the language model's blocks."
        )
    if not paths:
        raise UndersongError(f"The adapter names no module of {model.name}; give at least one linear layer.")


@contextmanager
def new_lora(model: AudioModel, rank: int, alpha: int, dropout: float, targets: Sequence[str] | None) -> Iterator[Any]:
    """Yield the PEFT model with a new LoRA on the decoder; remove it afterwards.

    Args:
        model: The model.
        rank: Rank of the adapter.
        alpha: Scale of the adapter.
        dropout: Dropout of the adapter.
        targets: Full module paths; None: all linear layers of the decoder's blocks.
    """
    from peft import LoraConfig, get_peft_model

    allowed = model.linear_paths()
    paths = list(targets) if targets is not None else allowed
    check_targets(model, paths, allowed)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=paths)
    with _with_adapter(model, lambda base: get_peft_model(base, config)) as peft_model:
        trainable = [name for name, parameter in peft_model.named_parameters() if parameter.requires_grad]
        if unexpected := [name for name in trainable if "lora_" not in name]:
            raise UndersongError(f"{model.name} would train more than the adapter: {unexpected[0]}.")
        # PEFT shortens long lists of paths to suffixes: check what they hit, and save the paths themselves.
        targeted = peft_model.base_model.targeted_module_names
        check_targets(model, targeted, paths)
        peft_model.peft_config["default"].target_modules = sorted(targeted)
        yield peft_model


def initialize_from_adapter(model: AudioModel, peft_model: Any, folder: Path) -> None:
    """Copy a saved adapter's weights into the fresh adapter of `peft_model`, so that training continues from there.

    Raises UndersongError if the two do not have the same layers and ranks.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    tensors = read_tensors(folder / ADAPTER_WEIGHTS)
    shapes = [
        {name: tuple(value.shape) for name, value in state_dict.items()}
        for state_dict in (tensors, get_peft_model_state_dict(peft_model))
    ]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        if shapes[0].get(name) != shapes[1].get(name):
            raise UndersongError(
                f"Tuning of {model.name} cannot continue from {folder}: {name} differs; use the same rank and targets."
            )
    set_peft_model_state_dict(peft_model, tensors)


def save_adapter(model: AudioModel, folder: Path) -> None:
    """Save the model's adapter as a standard PEFT folder, with a note of the weights that it was made for."""
    model.model.save_pretrained(folder)
    write_base_note(model, folder)


@contextmanager
def use_adapter(model: AudioModel, folder: Path | None, allow_outside_decoder: bool = False) -> Iterator[AudioModel]:
    """Yield the model with a saved adapter (PEFT folder) or a fully fine-tuned decoder; None: the base.

    With `allow_outside_decoder`, an adapter made elsewhere may change encoder, projector and head too. Cached audio
    features are not used while it is on, because they no longer hold.
    """
    if folder is None:
        yield model
        return
    if folder.is_symlink():  # in a store; messages name the folder that the user gave
        folder = folder.resolve()
    if is_decoder_folder(folder):
        with use_decoder(model, folder) as adapted:
            yield adapted
        return
    from peft import PeftModel, get_peft_model, set_peft_model_state_dict

    config = read_lora_config(folder)
    allowed = model.linear_paths()
    check_adapter_base(model.name, type(model.base).__name__, lambda: model.fingerprint, folder, config)
    tensors = read_tensors(folder / ADAPTER_WEIGHTS)  # before PEFT, which accepts any content
    names = network_tensor_names(model.base, tensors)
    renamed = any(file_name != network_name for file_name, network_name in names.items())
    if renamed:
        set_target_paths(config, names.values(), folder)
    resolve_patterns(config, [path for path, _ in model.base.named_modules()], folder)
    _check_module_names(model, folder, config)

    def wrap(base: Any) -> Any:
        # In the base's dtype, as on servers: a float32 adapter on a bfloat16 base costs more than the base.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of missing tensors, which are an error below
                if not renamed:
                    return PeftModel.from_pretrained(base, folder, config=config, autocast_adapter_dtype=False)
                wrapped = get_peft_model(base, config, autocast_adapter_dtype=False)
                set_peft_model_state_dict(wrapped, {names[file_name]: value for file_name, value in tensors.items()})
                return wrapped
        except (ValueError, RuntimeError) as error:
            reason = describe_error(error)
            raise UndersongError(
                f"Adapter {folder} does not fit {model.name} ({reason}); take its own base."
            ) from error

    with _with_adapter(model, wrap) as peft_model:
        targeted = peft_model.base_model.targeted_module_names
        if not targeted:
            raise UndersongError(
                f"Adapter {folder} does not fit {model.name} (it names none of its modules); take its own base."
            )
        if not allow_outside_decoder:
            check_targets(model, targeted, allowed)
        _check_tensor_names(model, peft_model, folder, set(names.values()))
        with model.without_cached_features() if set(targeted) - set(allowed) else nullcontext():
            yield model


def modules_changed_outside_decoder(model: AudioModel) -> dict[str, int]:
    """Modules outside the language model's blocks that the model's adapter changes: path -> number of modules."""
    counts: Counter[str] = Counter()
    blocks = f"{model.decoder_path}.layers."
    for path in getattr(getattr(model.model, "base_model", None), "targeted_module_names", ()):
        if not path.startswith(blocks):
            counts[
                next((frozen_path for frozen_path in model.frozen_modules if path.startswith(f"{frozen_path}.")), path)
            ] += 1
    return dict(counts)


def _check_module_names(model: AudioModel, folder: Path, config: Any) -> None:
    """Check that every name matches a module, before anything is wrapped: PEFT would search the experts for it."""
    module_paths = [name for name, _ in model.base.named_modules()]
    names = config.target_modules or ()
    for name in [] if isinstance(names, str) else sorted(names):
        if not any(path == name or path.endswith(f".{name}") for path in module_paths):
            raise UndersongError(f"Adapter {folder} does not fit {model.name} (it has no {name}); take its own base.")


def _check_tensor_names(model: AudioModel, peft_model: Any, folder: Path, names: Collection[str]) -> None:
    """Check that file and network have the same tensors: PEFT only warns, and keeps random weights."""
    from peft import get_peft_model_state_dict

    mismatched = sorted(
        set(get_peft_model_state_dict(peft_model, save_embedding_layers=False)).symmetric_difference(names)
    )
    if mismatched:
        raise UndersongError(
            f"Adapter {folder} does not fit {model.name}: {mismatched[0]} is on one side only "
            f"({len(mismatched)} such tensors); take its own base."
        )


@contextmanager
def _with_adapter(model: AudioModel, wrap: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield the model with the adapter that `wrap` puts around its base; then restore the base, also on failure."""
    if model.model is not model.base:
        raise UndersongError(f"{model.name} has an adapter on already; remove it first.")
    base = model.base
    requires_grad = {name: parameter.requires_grad for name, parameter in base.named_parameters()}
    try:
        model.model = wrap(base)
        yield model.model
    finally:
        _unwrap_adapter_layers(base)
        for name, parameter in base.named_parameters():
            parameter.requires_grad_(requires_grad[name])  # PEFT froze the base
        model.model = base.eval()


def _unwrap_adapter_layers(base: Any) -> None:
    """Restore every wrapped layer. Unlike PEFT's `unload`, this also undoes an incomplete wrapping."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            base.set_submodule(path, module.get_base_layer())
    if hasattr(base, "peft_config"):
        del base.peft_config  # else the next wrapping warns about a second adapter
