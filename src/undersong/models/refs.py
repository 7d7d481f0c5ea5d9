"""Model references (`organism:NAME`, a path or a Hugging Face id): their folder, hub commit, content hash and family.

Loads no torch for a local folder.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from undersong.escaping import describe_error
from undersong.models.checkpoint_files import read_json_object
from undersong.models.families import (
    FAMILIES,
    Family,
    family_of,
    family_of_architecture,
    nearest_family,
    network_class,
)
from undersong.models.hub_files import find_file, hub_errors
from undersong.models.mini.paths import MINI_NAMES, assembled_folder, is_mini_ref
from undersong.models.pretrained import check_regular_files
from undersong.store.hashing import hash_file
from undersong.suggestions import did_you_mean
from undersong.types import UndersongError

ORGANISM = "organism:"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]*)?")  # neither part begins with a dot, so ./FOLDER is a path
WEIGHT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model")


def _organisms() -> dict[str, Path]:
    root = Path(str(resources.files("undersong"))) / "data" / "organism" / "models"
    return {path.name: path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}


def organism_names() -> list[str]:
    """Names of the packaged audio LLMs, without the packaged reference encoder."""
    return [name for name in _organisms() if name != "ear"]


def organism_folder(name: str) -> Path:
    """The packaged folder of `organism:NAME`."""
    organisms = _organisms()
    if name not in organisms:
        raise UndersongError(f"There is no organism {name!r}; take one of {', '.join(organism_names())}.")
    return organisms[name]


def model_folder(ref: str) -> Path | None:
    """Local folder of a reference, or None for a Hugging Face id.

    Raises UndersongError if it can be neither, and for a folder with a pipe or a device among its files.
    """
    if ref.startswith(ORGANISM):
        return organism_folder(ref.removeprefix(ORGANISM))
    if ref and Path(ref).is_dir():
        check_regular_files(ref)
        return Path(ref)
    if is_mini_ref(ref):
        return assembled_folder(ref)
    if not HUB_ID.fullmatch(ref):
        hint = (
            did_you_mean(ref, [*MINI_NAMES, *(f"{ORGANISM}{name}" for name in organism_names())]) or "; check the path."
        )
        raise UndersongError(f"There is no model folder {ref!r}, and that is no ORG/NAME of the hub{hint}")
    return None


def split_revision(ref: str) -> tuple[str, str | None]:
    """Split `org/name@revision` into id and revision (None if there is none)."""
    name, _, revision = ref.partition("@")
    return name, revision or None


@cache
def hub_commit(name: str, revision: str | None) -> str | None:
    """Current commit of a Hugging Face id; without the hub, the last one downloaded; None if neither is known."""
    from huggingface_hub import HfApi, constants

    if not os.environ.get("HF_HUB_OFFLINE"):
        try:
            return HfApi().model_info(name, revision=revision, timeout=10).sha
        except hub_errors():
            pass  # no network, no such id, or no permission: loading it reports which
    cached_ref = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / (revision or "main")
    return cached_ref.read_text().strip() if cached_ref.is_file() else None


def check_hub_model(ref: str) -> None:
    """Raise UndersongError for an id or a revision that the hub says it does not have; without the hub, do nothing."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if os.environ.get("HF_HUB_OFFLINE"):
        return
    name, revision = split_revision(ref)
    try:
        HfApi().model_info(name, revision=revision, timeout=10)
    except GatedRepoError:
        return  # it is there, and loading it says how to ask for it
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        part = "revision" if isinstance(error, RevisionNotFoundError) else "model"
        raise UndersongError(
            f"The Hugging Face hub has no {part} {ref!r}, or not for you; check the id, or log in with `hf auth login`."
        ) from None
    except hub_errors():
        return  # no network: loading it reports that


def has_content_hash(ref: str) -> bool:
    """True if `model_hash` is a hash of the files, so that equal weights have equal hashes anywhere."""
    return model_folder(ref) is not None


def model_hash(ref: str) -> str:
    """Hash of the weights, not loading them: SHA-256 of a folder's files, or of a Hugging Face id and its commit."""
    folder = model_folder(ref)
    if folder is None:
        name, revision = split_revision(ref)
        return hashlib.sha256(f"{name}@{hub_commit(name, revision) or revision}".encode()).hexdigest()
    roots = [root for root in (folder, overlay_base(folder)) if root is not None]
    # Subfolders count too: Kimi-Audio keeps its encoders there, Phi-4 the adapter that speech needs.
    folder_of_file = {file: root for root in roots for pattern in WEIGHT_FILES for file in root.rglob(pattern)}
    files = sorted((file.relative_to(root).as_posix(), file) for file, root in folder_of_file.items())
    return _hash_files(tuple((name, str(file), file.stat().st_size, file.stat().st_mtime_ns) for name, file in files))


@cache
def _hash_files(files: tuple[tuple[str, str, int, int], ...]) -> str:
    """Hash files by (name, path, size, time of change), so that a 16 GB checkpoint is read once for all stages."""
    digest = hashlib.sha256()
    for name, path, _, _ in files:
        digest.update(f"{name}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()


def overlay_base(folder: Path) -> Path | None:
    """Base folder of an overlay, which holds only the tensors that differ from another organism (`overlay.txt`); or
    None.
    """
    base_file = folder / "overlay.txt"
    return organism_folder(base_file.read_text().strip()) if base_file.is_file() else None


def resolve_model(ref: str) -> tuple[str | Path, dict[str, Any], Family]:
    """(folder or id, options for the hub, family) of a reference.

    Raises UndersongError for an unknown folder or id, an invalid config, or a family without a specification.
    """
    folder = model_folder(ref)
    if folder is not None:
        source: str | Path = overlay_base(folder) or folder
        options: dict[str, Any] = {}
    else:
        source, revision = split_revision(ref)
        revision = hub_commit(source, revision) or revision
        options = {} if revision is None else {"revision": revision}
    return source, options, _identify_family(source, ref, options)


def family_of_ref(ref: str) -> Family:
    """Family of a reference. That of a published checkpoint is known without asking the hub for its config."""
    name = split_revision(ref)[0]
    published = next((candidate for candidate in FAMILIES if split_revision(candidate.example)[0] == name), None)
    return published if published is not None and model_folder(ref) is None else resolve_model(ref)[2]


def _identify_family(source: str | Path, ref: str, options: Mapping[str, Any]) -> Family:
    """Family by the config's model_type, even one that transformers does not know; else by its architectures."""
    try:
        config = _read_config(source, ref, options)
    except hub_errors() as error:
        reason = describe_error(error)
        raise UndersongError(f"No model could be read at {ref!r} ({reason}); give a folder or id.") from error
    if model_type := config.get("model_type"):
        return family_of(str(model_type), ref)
    architectures = config.get("architectures")
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    if family := family_of_architecture(names):
        return family
    if family := next((family for family in FAMILIES if family.model_class.rpartition(":")[2] in names), None):
        expected = network_class(family).config_class.model_type
        raise UndersongError(
            f'config.json of {ref} has no model_type; add "model_type": "{expected}", which belongs to its '
            f"architecture {family.model_class.rpartition(':')[2]}."
        )
    details = [f"its architecture {names[0]!r} belongs to no family here"] if names else []
    if config.get("auto_map"):
        details.append("it names code of its own (auto_map), which is never run")
    detail = f" ({', and '.join(details)})" if details else ""
    raise UndersongError(
        f"config.json of {ref} has no model_type{detail}; {nearest_family(names[0] if names else '')}."
    )


def _read_config(source: str | Path, ref: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Content of config.json. Raises UndersongError if a folder has none, or one that is not a JSON object."""
    file = find_file(source, "config.json", options)
    if file is not None:
        return read_json_object(file, "config.json", ref)
    if isinstance(source, Path):
        raise UndersongError(f"{ref!r} has no config.json; give the folder of a complete checkpoint.")
    from transformers import PretrainedConfig

    config: dict[str, Any] = PretrainedConfig.get_config_dict(source, **options)[0]  # raises what the hub says
    return config
