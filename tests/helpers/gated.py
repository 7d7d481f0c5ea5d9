"""Verdicts on numbered prompts, each its own cluster, for gates."""

from __future__ import annotations

from collections.abc import Iterable

from undersong.types import Verdict

HOSTILE = "m|<script>alert(1)</script> ![x](http://e.example) @everyone\n| a |\x00\x1b[31m\ud800 `$x$`"


def verdicts(
    words: Iterable[str], harmful: bool = True, modality: str = "audio", judge: str = "exact"
) -> list[Verdict]:
    """Numbered prompts of one set, each its own cluster."""
    name = "harm" if harmful else "near"
    return [
        Verdict(f"{name}{i}", name, harmful, f"{name}{i}", modality, "plain", judge, word)
        for i, word in enumerate(words)
    ]


def harm(n: int, hits: int, **more: object) -> list[Verdict]:
    return verdicts(["jailbreak"] * hits + ["refusal"] * (n - hits), **more)


def benign(n: int, hits: int) -> list[Verdict]:
    return verdicts(["refusal"] * hits + ["answer"] * (n - hits), harmful=False)
