"""LoRA adapters on a loaded model: put one on, take it off, and refuse one that reaches outside the decoder.

Several arms share one base in memory; taking an adapter off restores the base bit for bit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from undersong.models.adapter import AudioModel
from undersong.models.decoder import is_decoder, saved_decoder
from undersong.models.elsewhere import name_by_path, own_names
from undersong.models.folders import is_content_hash
from undersong.models.tensors import read_tensors
from undersong.types import UndersongError

WEIGHTS, CONFIG, MADE_FOR = "adapter_model.safetensors", "adapter_config.json", "made_for.json"


def check_targets(model: AudioModel, paths: Sequence[str], allowed: Collection[str]) -> None:
    """Every path must be one of `allowed`: linear layers inside the decoder's blocks, listed *before* an adapter is on.

    Suffix matching ("q_proj") also hits audio encoders (fault 6 of the published code).
    """
    outside = sorted(set(paths) - set(allowed))
    if outside:
        where = next((p for p in model.frozen if outside[0].startswith(p)), "a place outside the decoder's blocks")
        raise UndersongError(
            f"The adapter trains {outside[0]} ({len(outside)} such modules), which lies in {where}; "
            "give full paths of linear layers of the language model's blocks."
        )
    if not paths:
        raise UndersongError(f"The adapter names no module of {model.name}; give at least one linear layer.")


@contextmanager
def fresh_lora(
    model: AudioModel, rank: int, alpha: int, dropout: float, targets: Sequence[str] | None
) -> Iterator[Any]:
    """A new LoRA on the decoder's linear layers (or `targets`, full paths); yields the PEFT model, and takes it off."""
    from peft import LoraConfig, get_peft_model

    allowed = model.linear_paths()
    paths = list(targets) if targets is not None else allowed
    check_targets(model, paths, allowed)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=paths)
    with _worn(model, lambda base: get_peft_model(base, config)) as peft_model:
        reached = [name for name, parameter in peft_model.named_parameters() if parameter.requires_grad]
        if other := [name for name in reached if "lora_" not in name]:
            raise UndersongError(f"{model.name} would train more than the adapter: {other[0]}.")
        # PEFT shortens long lists of paths to suffixes: check what they hit, and save the paths themselves.
        hit = peft_model.base_model.targeted_module_names
        check_targets(model, hit, paths)
        peft_model.peft_config["default"].target_modules = sorted(hit)
        yield peft_model


def begin_from(model: AudioModel, learner: Any, folder: Path) -> None:
    """Puts a saved adapter's weights into the fresh one that `model` wears: what is learned goes on from there.

    Raises UndersongError where the two do not have the same layers and ranks.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    tensors = read_tensors(folder / WEIGHTS)
    shapes = [
        {name: tuple(value.shape) for name, value in found.items()}
        for found in (tensors, get_peft_model_state_dict(learner))
    ]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        if shapes[0].get(name) != shapes[1].get(name):
            raise UndersongError(
                f"Tuning of {model.name} cannot go on from {folder}: {name} differs; take the same rank and targets."
            )
    set_peft_model_state_dict(learner, tensors)


def save_adapter(model: AudioModel, folder: Path) -> None:
    """The adapter `model` wears, as a standard PEFT folder, with a note of the weights it was made for."""
    model.model.save_pretrained(folder)
    note = {"model": model.name, "family": model.family.name, "hash": model.fingerprint}
    (folder / MADE_FOR).write_text(json.dumps({**note, "of_files": is_content_hash(model.name)}, indent=1) + "\n")


@contextmanager
def saved_adapter(model: AudioModel, folder: Path | None, anywhere: bool = False) -> Iterator[AudioModel]:
    """The model under a saved adapter (standard PEFT folder), or with a decoder that learned whole; None: the base.

    `anywhere`: an adapter made elsewhere may change encoder, projector and head too.  What was heard before is then put
    aside for as long as it is worn, because it no longer holds.
    """
    if folder is None:
        yield model
        return
    if is_decoder(folder):
        with saved_decoder(model, folder) as changed:
            yield changed
        return
    from peft import PeftModel, get_peft_model, set_peft_model_state_dict

    config = _check_kind(folder)
    allowed = model.linear_paths()
    _check_made_for(model, folder, config)
    tensors = read_tensors(folder / WEIGHTS)  # before PEFT reads them, which takes whatever is there
    names = own_names(model.base, tensors)
    renamed = any(old != new for old, new in names.items())
    if renamed:
        name_by_path(config, names.values(), folder)
    _check_names(model, folder, config)

    def put_on(base: Any) -> Any:
        # In the base's dtype, as servers wear them: in float32 on a bfloat16 base an adapter costs more than the base.
        try:
            if not renamed:
                return PeftModel.from_pretrained(base, folder, autocast_adapter_dtype=False)
            wrapped = get_peft_model(base, config, autocast_adapter_dtype=False)
            set_peft_model_state_dict(wrapped, {names[old]: value for old, value in tensors.items()})
            return wrapped
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UndersongError(
                f"Adapter {folder} does not fit {model.name} ({reason}); take its own base."
            ) from error

    with _worn(model, put_on) as peft_model:
        hit = peft_model.base_model.targeted_module_names
        if not hit:
            raise UndersongError(
                f"Adapter {folder} does not fit {model.name} (it names none of its modules); take its own base."
            )
        if not anywhere:
            check_targets(model, hit, allowed)
        _check_tensors(model, peft_model, folder, set(names.values()))
        with _heard_anew(model) if set(hit) - set(allowed) else nullcontext():
            yield model


def reach(model: AudioModel) -> dict[str, int]:
    """What the adapter that `model` wears changes outside the language model's blocks: place -> how many modules."""
    counts: Counter[str] = Counter()
    blocks = f"{model.decoder_path}.layers."
    for path in getattr(getattr(model.model, "base_model", None), "targeted_module_names", ()):
        if not path.startswith(blocks):
            counts[next((part for part in model.frozen if path.startswith(f"{part}.")), path)] += 1
    return dict(counts)


@contextmanager
def _heard_anew(model: AudioModel) -> Iterator[None]:
    before, model.heard = model.heard, {}
    try:
        yield
    finally:
        model.heard = before


def _check_made_for(model: AudioModel, folder: Path, config: Any) -> None:
    """Adapters of models with the same names and shapes fit one another, and mean nothing there."""
    made_by = (config.auto_mapping or {}).get("base_model_class")
    own = type(model.base).__name__
    # Omni models are loaded elsewhere with the talker, of which the thinker is a part.
    if made_by is not None and made_by not in (own, own.replace("Thinker", "")):
        raise UndersongError(
            f"Adapter {folder} does not fit {model.name}: it was made for a {made_by}, and this is a "
            f"{type(model.base).__name__}; take its own base."
        )
    if not (folder / MADE_FOR).is_file():
        return
    note = json.loads((folder / MADE_FOR).read_text(encoding="utf-8"))
    if note["of_files"] and is_content_hash(model.name) and note["hash"] != model.fingerprint:
        raise UndersongError(
            f"Adapter {folder} does not fit {model.name}: it was made for {note['model']}, whose weights are others; "
            f"take its own base, or remove {MADE_FOR} from the folder."
        )


def _check_names(model: AudioModel, folder: Path, config: Any) -> None:
    """Every name finds a module, before anything is wrapped: where there is none PEFT looks for it among experts."""
    there = [name for name, _ in model.base.named_modules()]
    names = config.target_modules or ()
    for name in [] if isinstance(names, str) else sorted(names):
        if not any(path == name or path.endswith(f".{name}") for path in there):
            raise UndersongError(f"Adapter {folder} does not fit {model.name} (it has no {name}); take its own base.")


def _check_kind(folder: Path) -> Any:
    """Plain LoRA alone: whatever else PEFT can save changes the base itself, and could not be taken off again."""
    from peft import PeftConfig

    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise UndersongError(f"{folder} holds no {name}; give a PEFT adapter folder.")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise UndersongError(f"{folder / CONFIG} cannot be read ({error}); save the adapter again.") from error
    if config.peft_type != "LORA":
        raise UndersongError(f"{folder} is a {config.peft_type} adapter; give a LoRA.")
    if more := _more_than_lora(config):
        raise UndersongError(
            f"Adapter {folder} changes more than LoRA on linear layers ({more}), and the base could not be restored "
            "from it; give a plain LoRA."
        )
    return config


def _more_than_lora(config: Any) -> str | None:
    """The first setting by which an adapter would change the base itself; None: there is none."""
    for name in ("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication"):
        if value := getattr(config, name, None):
            return f"{name}: {value}"
    if config.bias != "none":
        return f"bias: {config.bias}"
    start = config.init_lora_weights  # PiSSA, OLoRA and others move a part of the base's weights into the adapter
    return None if isinstance(start, bool) or start == "gaussian" else f"init_lora_weights: {start}"


def _check_tensors(model: AudioModel, peft_model: Any, folder: Path, names: Collection[str]) -> None:
    """Every tensor of the file has its place and every place its tensor: PEFT only warns, and keeps random weights."""
    from peft import get_peft_model_state_dict

    lost = sorted(set(get_peft_model_state_dict(peft_model, save_embedding_layers=False)).symmetric_difference(names))
    if lost:
        raise UndersongError(
            f"Adapter {folder} does not fit {model.name}: {lost[0]} stands on one side only "
            f"({len(lost)} such tensors); take its own base."
        )


@contextmanager
def _worn(model: AudioModel, put_on: Callable[[Any], Any]) -> Iterator[Any]:
    """`model` under the adapter that `put_on` wraps around its base; afterwards, or on failure, the base as it was."""
    if model.model is not model.base:
        raise UndersongError(f"{model.name} wears an adapter already; take that off first.")
    base = model.base
    trainable = {name: parameter.requires_grad for name, parameter in base.named_parameters()}
    try:
        model.model = put_on(base)
        yield model.model
    finally:
        _take_off(base)
        for name, parameter in base.named_parameters():
            parameter.requires_grad_(trainable[name])  # PEFT froze the base
        model.model = base.eval()


def _take_off(base: Any) -> None:
    """Every wrapped layer back in its place.  Unlike PEFT's `unload` this also undoes a half-made wrapping."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            base.set_submodule(path, module.get_base_layer())
    if hasattr(base, "peft_config"):
        del base.peft_config  # else the next wrapping warns of a second adapter
