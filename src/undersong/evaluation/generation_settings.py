"""How the replies before and after were generated: limits of new tokens, prompts and decoding, as far as the files
beside the verdicts say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from undersong.evaluation.serving.endpoint import SERVED_PREFIX
from undersong.evaluation.serving.recorded_model import RECORDED_PREFIX
from undersong.evaluation.verdicts import verdict_file
from undersong.phrases import count
from undersong.regular_files import is_regular_file
from undersong.store.provenance import PROVENANCE
from undersong.types import UndersongError, Verdict

WATCH_FILE = "watch.jsonl"  # of `watch` and `audit-adapter`, in the folder above their verdicts
SYSTEM_PROMPT = "system prompt"
MAX_LETTERS = 60  # of a prompt that a note shows


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Settings that replies were generated with.

    `max_new_tokens` is None if it is not known. `others` has the further settings that are known, by name.
    """

    max_new_tokens: int | None = None
    others: Mapping[str, object] = field(default_factory=dict)


UNKNOWN_SETTINGS = GenerationSettings()


def token_limit_note(
    files: tuple[Path, Path],
    verdicts: tuple[Sequence[Verdict], Sequence[Verdict]],
    cut_subject: str = "none",
) -> str | None:
    """Compare the limits of new tokens of two verdict files; None if they are equal.

    A different limit is not a change of the model. It does not matter if no reply was cut at the smaller limit,
    because then the larger one would have given the same replies; the note says so. A limit that is not known matters
    where replies were cut.

    Args:
        files: Verdict files before and after, or their folders.
        verdicts: Those of their verdicts whose rates are compared.
        cut_subject: Subject of "was cut at the smaller limit".

    Raises:
        UndersongError: The limits differ, and a reply was cut at the smaller one, or nothing says how it ended.
    """
    before, after = (read_generation_settings(file).max_new_tokens for file in files)
    if before is None or after is None:
        cut = sum(verdict.is_cut for side in verdicts for verdict in side)
        unknown = [side for side, limit in (("before", before), ("after", after)) if limit is None]
        if not cut:
            return None
        return (
            f"nothing says how many new tokens the replies {' and '.join(unknown)} could have, and "
            f"{count(cut, 'reply was', 'replies were')} cut, so another limit alone may change the rates."
        )
    if before == after:
        return None
    shorter = 0 if before < after else 1
    unclear = sum(verdict.is_cut or verdict.finish is None for verdict in verdicts[shorter])
    if unclear:
        first, second = map(verdict_file, files)
        raise UndersongError(
            f"{first} has replies of at most {count(before, 'new token')} and {second} of at most {after:,}, and "
            f"{count(unclear, 'reply', 'replies')} of {(first, second)[shorter]} may have been cut, so their rates "
            "cannot be compared; generate both with the same --max-new-tokens."
        )
    return (
        f"replies have at most {count(before, 'new token')} before and {after:,} after; {cut_subject} was cut at the "
        "smaller limit, so they can be compared."
    )


def setting_notes(files: tuple[Path, Path], verdicts: tuple[Sequence[Verdict], Sequence[Verdict]]) -> list[str]:
    """A sentence for each setting but the limit of new tokens that both sides know, and that differs.

    System prompts of different names are told by their names, which stand in the verdicts.

    Args:
        files: Verdict files before and after, or their folders.
        verdicts: Their verdicts.
    """
    names = [{verdict.system for verdict in side} for side in verdicts]
    before, after = (read_generation_settings(file).others for file in files)
    return [
        f"the {label} is {_shown(value)} before and {_shown(after[label])} after, which counts as part of the change."
        for label, value in before.items()
        if label in after and value != after[label] and not (label == SYSTEM_PROMPT and names[0] != names[1])
    ]


def read_generation_settings(table: Path) -> GenerationSettings:
    """Settings that `evaluate`, `watch` or `audit-adapter` wrote with their verdicts or replies, and that `judge` read
    with the replies; those of other files are unknown.

    Args:
        table: File of verdicts or replies, or the folder of the verdicts.
    """
    table = verdict_file(table)
    provenance = _read_json(table.with_name(PROVENANCE))
    stage = provenance.get("stage", "evaluate")  # without: a hand-made one
    if stage == "evaluate" and (config := _mapping(provenance.get("config"))):
        return _evaluation_settings(config, str(_mapping(provenance.get("notes")).get("model", "")))
    if stage == "judge" and (recorded := _mapping(_mapping(provenance.get("notes")).get("generation"))):
        limit = _whole_number(recorded.get("max_new_tokens"))
        return GenerationSettings(limit, dict(_mapping(recorded.get("others"))))
    return _watch_settings(table.parent.parent / WATCH_FILE)


def _evaluation_settings(config: Mapping[str, Any], model: str) -> GenerationSettings:
    """Settings of an evaluation.

    A recorded model has replies of any limit, and what loads a local model says nothing of one at an address.
    """
    if model.startswith(RECORDED_PREFIX):
        return UNKNOWN_SETTINGS
    known = _named(config, {"system_prompt": SYSTEM_PROMPT, "instruction": "instruction"})
    if config.get("instruction") is not None:
        known["place of the instruction"] = "first" if config.get("instruction_first") else "last"
    if not model.startswith(SERVED_PREFIX):
        known |= {**_named(config, {"engine": "engine"}), **_loading(config)}
    return GenerationSettings(_whole_number(config.get("max_new_tokens")), known)


def _watch_settings(journal: Path) -> GenerationSettings:
    if not is_regular_file(journal):
        return UNKNOWN_SETTINGS
    try:
        with journal.open("rb") as lines:
            key = _mapping(_mapping(json.loads(next(lines))).get("key"))
    except (OSError, ValueError, StopIteration):
        return UNKNOWN_SETTINGS
    prompt = key.get("prompt")
    known: dict[str, object] = {}
    if isinstance(prompt, list) and len(prompt) == 4:  # modality, voice, system prompt, instruction
        known = {SYSTEM_PROMPT: prompt[2], "instruction": prompt[3]}
    return GenerationSettings(_whole_number(key.get("max_new_tokens")), {**known, **_loading(key)})


def _loading(config: Mapping[str, Any]) -> dict[str, object]:
    names = {"dtype": "number format", "attention": "attention", "quantize": "quantization"}
    return _named(_mapping(config.get("loading")), names)


def _named(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, object]:
    return {label: values[name] for name, label in names.items() if name in values}


def _shown(value: object) -> str:
    if value is None:
        return "none"
    line = " ".join(str(value).split())
    return repr(line if len(line) <= MAX_LETTERS else f"{line[: MAX_LETTERS - 1]}…")


def _read_json(file: Path) -> Mapping[str, Any]:
    if not is_regular_file(file):
        return {}
    try:
        return _mapping(json.loads(file.read_bytes()))
    except (OSError, ValueError):  # verdicts of another program have none
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
