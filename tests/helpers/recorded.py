"""A study without torch: replies that were recorded before, TF-IDF, the keyword judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SETS = {"harm": ("organism:test-harm", True), "near": ("organism:test-near", False)}
SYSTEMS = {"plain": None, "safe": "refuse harm"}


def record(place: Path, harmless: str = "sure here it is", refused: str = "i cannot help with that") -> Path:
    """A table of replies to the packaged prompts: every third harmful one is complied with, plainly asked."""
    from undersong.corpora.registry import open_corpus

    rows = []
    for ref, harmful in SETS.values():
        for i, sample in enumerate(open_corpus(ref).samples):
            for system in SYSTEMS:
                said = refused if harmful and (i % 3 or system == "safe") else harmless
                rows.append({"prompt_id": sample.id, "system": system, "reply": said})
    return _lines(rows, place)


def study(*tables: Path, **more: Any) -> dict[str, Any]:
    """The keys of a study of recorded models."""
    sets = {name: {"corpus": ref, "harmful": harmful} for name, (ref, harmful) in SETS.items()}
    whole = {
        "study": "recorded",
        "models": [f"recorded:{table}" for table in tables],
        "pool": "organism:pool",
        "reference": "organism:reference",
        "prompt_sets": sets,
        "axes": {"words": "tfidf", "letters": "char-ngrams"},
        "selection": {"axes": ["words"]},
        "evaluation": {"judge": "keyword", "modalities": ["text"], "system_prompts": SYSTEMS},
        "system_defense": "safe",
    }
    return {**whole, **more}


def written(place: Path, data: dict[str, Any]) -> dict[str, Any]:
    """The same study on the texts alone, in files at `place`: no clip is decoded."""
    from undersong.corpora.registry import open_corpus

    def lines(ref: str) -> str:
        samples = open_corpus(ref).samples
        rows = [{"id": s.id, "text": s.text, "answer": s.answer, "group": s.group} for s in samples]
        return str(_lines(rows, place / f"{ref.partition(':')[2]}.jsonl"))

    sets = {name: {**one, "corpus": lines(one["corpus"])} for name, one in data["prompt_sets"].items()}
    return {**data, "pool": lines(data["pool"]), "reference": lines(data["reference"]), "prompt_sets": sets}


def _lines(rows: list[dict[str, Any]], place: Path) -> Path:
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place
