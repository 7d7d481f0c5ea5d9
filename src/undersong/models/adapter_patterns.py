"""Patterns over module names in an adapter's config, matched with a time limit and replaced by the names themselves.

PEFT matches them with `re`, which has none: `([a-z.]+)+!` would not end on the name of one module.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from undersong.types import UndersongError

MATCH_SECONDS = 2.0  # of one pattern on all names together; patterns of trainers take milliseconds
PLAIN_NAME = re.compile(r"[\w.-]*")  # matched by PEFT as a pattern too, but always at once
ALL_LINEAR = "all-linear"  # PEFT's own word for every linear layer


def resolve_patterns(config: Any, module_paths: Sequence[str], folder: Path) -> None:
    """Replace the patterns of an adapter's config by the paths of the modules that they match.

    Args:
        config: Config of the adapter, which is changed.
        module_paths: Paths of all modules of the network.
        folder: Folder of the adapter, for messages.

    Raises:
        UndersongError: A pattern takes too long, cannot be read, or stands where only names can.
    """
    if isinstance(config.exclude_modules, str):
        matches = _matcher(config.exclude_modules, "exclude_modules", folder)
        config.exclude_modules = [path for path in module_paths if matches(path)]
    if isinstance(config.target_modules, str) and config.target_modules != ALL_LINEAR:
        matches = _matcher(config.target_modules, "target_modules", folder)
        config.target_modules = {path for path in module_paths if matches(path)}
    layers = config.layers_pattern or ()
    for name in [layers] if isinstance(layers, str) else layers:
        if not PLAIN_NAME.fullmatch(name):
            raise UndersongError(
                f"Adapter {folder} has the layers_pattern {name[:100]!r}, which is no plain name; name the list of "
                "blocks, such as layers."
            )
    for setting in ("rank_pattern", "alpha_pattern"):
        values: Mapping[str, Any] = getattr(config, setting) or {}
        setattr(config, setting, dict(_resolved(values, setting, module_paths, folder)))


def _resolved(
    values: Mapping[str, Any], setting: str, module_paths: Sequence[str], folder: Path
) -> Iterable[tuple[str, Any]]:
    """The keys of a `rank_pattern`, in order: plain names as they are, any other as the paths that end with a match."""
    for key, value in values.items():
        if PLAIN_NAME.fullmatch(key):
            yield key, value
            continue
        matches = _matcher(rf"(.*\.)?({key})", setting, folder)  # as PEFT's get_pattern_key does
        if paths := [path for path in module_paths if matches(path)]:
            yield "|".join(map(re.escape, paths)), value


def _matcher(pattern: str, setting: str, folder: Path) -> Callable[[str], bool]:
    """Whether a pattern matches the whole of a name, with a time limit. `re` and `regex` agree on what it matches."""
    import regex  # of the extra `models`, because transformers needs it

    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise UndersongError(
            f"Adapter {folder} has {setting} that are no regular expression ({error}); save the adapter again."
        ) from None

    spent = 0.0

    def matches(path: str) -> bool:
        nonlocal spent
        start = time.monotonic()
        try:
            return compiled.fullmatch(path, timeout=max(MATCH_SECONDS - spent, 1e-3)) is not None
        except TimeoutError:
            raise UndersongError(
                f"Adapter {folder} has the {setting} {pattern[:100]!r}, which takes too long to match; list the names "
                "of its modules in adapter_config.json instead."
            ) from None
        finally:
            spent += time.monotonic() - start

    return matches
