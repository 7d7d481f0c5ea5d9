"""Damage to JSON-like trees and to bytes, drawn from a generator with a seed."""

from __future__ import annotations

import copy
import random
from typing import Any

HOSTILE_TEXTS = (
    "", " ", "\x1b[2J\x1b]0;x\x07", "a\nb\n::error::forged", "\u202egnp.exe", "\u2066x", "\x00", "a\x00b", "\ud800",
    "../../etc/passwd", "/dev/null", "x" * 5000, "<script>alert(1)</script>", "'; drop table", "=1+1", "%s%n", "NaN",
    "nan", "-0.0", "1e400", "true", "null", "organism:af3", "hf:", "recorded:", "python:x.py:f", "🦑" * 50,
)  # fmt: skip
HOSTILE_VALUES = (
    *HOSTILE_TEXTS, None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, -(10**9), 0.0, -0.0, 1e308, 1e-320,
    float("nan"), float("inf"), [], {}, [[]], [None], {"": ""}, {"x": {"x": {"x": {}}}}, list(range(50)),
)  # fmt: skip


def tree_paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all nodes below the root, by keys and indices."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, child in children for found in ((*path, key), *tree_paths(child, (*path, key)))]


def mutate_tree(tree: Any, rng: random.Random, changes: int = 1) -> tuple[Any, str]:
    """Return a damaged copy of a tree of dicts and lists, and what was done to it."""
    tree, done = copy.deepcopy(tree), []
    for _ in range(changes):
        paths = tree_paths(tree)
        if not paths:
            break
        path = rng.choice(paths)
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        kind = rng.choice(("set", "set", "set", "delete", "rename", "duplicate", "nest"))
        key = path[-1]
        if kind == "delete":
            del parent[key]
        elif kind == "rename" and isinstance(parent, dict):
            parent[rng.choice(HOSTILE_TEXTS)] = parent.pop(key)
        elif kind == "duplicate" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif kind == "nest":
            depth = rng.choice((2, 30, 300))
            for _level in range(depth):
                parent[key] = [parent[key]]
            kind = f"nest {depth}"
        else:
            parent[key] = copy.deepcopy(rng.choice(HOSTILE_VALUES))
            kind = f"set {str(parent[key])[:40]!r}"
        done.append(f"{kind} at {'.'.join(map(str, path))[:80]}")
    return tree, "; ".join(done)


def mutate_bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return damaged bytes, and what was done to them."""
    kind = rng.choice(("flip", "flip", "truncate", "empty", "zeros", "swap"))
    if not content or kind == "empty":
        return b"", "empty"
    place = rng.randrange(len(content))
    if kind == "truncate":
        return content[:place], f"truncate at {place}"
    if kind == "zeros":
        return content[:place] + bytes(min(64, len(content) - place)) + content[place + 64 :], f"zeros at {place}"
    if kind == "swap":
        return content[place:] + content[:place], f"rotate by {place}"
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 4, 32))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged), "flip bits"
