"""Fault 7: audio and text arms trained on different samples were compared as "same data content"."""

from __future__ import annotations

from typing import cast

from undersong.proximity.selection import Selection
from undersong.stages.context import Corpus
from undersong.stages.training import training_recipe
from undersong.study.audit import study_arms
from undersong.study.load import packaged_study
from undersong.study.results.records import AuditRecord, ModelRecord


def test_both_modalities_of_an_arm_share_ids_seed_and_recipe() -> None:
    """The selection is chosen once and handed to both; what else an adapter is filed under is the study's own."""
    study, asked = packaged_study("demo"), []
    record = AuditRecord(study, cast("Corpus", None), {}, {}, [])

    def choose(_measured, rule, draw) -> Selection:
        asked.append((rule.label, draw))
        name = f"{rule.label}{draw}"
        return Selection(rule.axis, "nearest", rule.name, 0.25, 1, None, (name,), name)

    arms = list(study_arms(record, ModelRecord("organism:af3", 0), choose))
    assert len(asked) == len(set(asked)) == len(arms) / 2
    pairs: dict[tuple, set] = {}
    for arm in arms:
        key = (arm.axis, arm.kind, arm.fraction, arm.seed, arm.draw)
        pairs.setdefault(key, set()).add((arm.modality, arm.selection.ids_hash))
    for members in pairs.values():
        assert {modality for modality, _ in members} == {"audio", "text"}
        assert len({ids for _, ids in members}) == 1
    assert "modality" not in training_recipe(study.tuning)  # one recipe, whatever is heard or read
