"""Where a model's files are and which family it is, from its config alone; loads no torch for a local folder.

Knows references and configs; reads no weight.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.models.families import FAMILIES, family_of
from undersong.models.family import Family
from undersong.models.refs import hub_commit, hub_errors, model_folder, overlay_base, split_revision
from undersong.types import UndersongError


def resolve_model(ref: str) -> tuple[str | Path, dict[str, Any], Family]:
    """Where the files of a reference are, what to ask the hub for, and the family.

    Errors: no such folder or id, a config that is none, a family without a spec.
    """
    folder = model_folder(ref)
    if folder is not None:
        source: str | Path = overlay_base(folder) or folder
        options: dict[str, Any] = {}
    else:
        source, revision = split_revision(ref)
        revision = hub_commit(source, revision) or revision
        options = {} if revision is None else {"revision": revision}
    return source, options, family_of(_model_type(source, ref, options), ref)


def family_of_ref(ref: str) -> Family:
    """The family of a reference: that of a published checkpoint is known without asking the hub for its config."""
    name = split_revision(ref)[0]
    published = next((candidate for candidate in FAMILIES if split_revision(candidate.example)[0] == name), None)
    return published if published is not None and model_folder(ref) is None else resolve_model(ref)[2]


def _model_type(source: str | Path, ref: str, options: Mapping[str, Any]) -> str:
    """What the config calls the family, also where transformers does not know it."""
    unreadable: tuple[type[Exception], ...] = (*hub_errors(), TypeError, AttributeError)
    try:
        config = _read_config(source, options)
    except unreadable as error:
        reason = str(error).strip().splitlines()[0]
        raise UndersongError(f"No model could be read at {ref!r} ({reason}); give a folder or id.") from error
    if not isinstance(config, dict) or not config.get("model_type"):
        raise UndersongError(f"{ref!r} has no config.json with a model_type; give the folder or id of a model.")
    return str(config["model_type"])


def _read_config(source: str | Path, options: Mapping[str, Any]) -> Any:
    if isinstance(source, Path):
        file = source / "config.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    from transformers import PretrainedConfig

    return PretrainedConfig.get_config_dict(source, **options)[0]
