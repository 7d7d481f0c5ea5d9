"""The verbs in the order of use: what `undersong` alone prints, and the headings of `undersong --help`."""

from __future__ import annotations

from collections.abc import Iterable

TOOLS = "tools"
# A verb that is not there is left out, and one that is in no group is a tool.
VERB_GROUPS: dict[str, tuple[str, ...]] = {
    "before": ("check", "screen", "plan"),
    "during": ("tune", "watch", "status"),
    "after": ("audit-adapter", "evaluate", "judge", "label", "replies", "compare", "gate", "card"),
    "why": ("probe",),
    "whole studies": ("run", "defend", "report", "synthesize", "demo"),
    TOOLS: ("models", "doctor", "verify", "store", "presets", "schema", "export-adapter", "export-eval"),
}


def group_verbs(verbs: Iterable[str]) -> dict[str, list[str]]:
    """Return the verbs by group, in the order of both; groups without a verb are left out."""
    remaining = list(verbs)
    groups = {name: [verb for verb in members if verb in remaining] for name, members in VERB_GROUPS.items()}
    grouped = {verb for members in groups.values() for verb in members}
    groups[TOOLS] += [verb for verb in remaining if verb not in grouped]
    return {name: members for name, members in groups.items() if members}


def overview_lines(verbs: Iterable[str]) -> list[str]:
    """A line for each group with its verbs, for `undersong` without arguments."""
    groups = group_verbs(verbs)
    width = max(map(len, groups))
    return [f"{name:<{width}}  {', '.join(members)}" for name, members in groups.items()]
