"""Fault 10: models, and the defended arm, were asked with other prompts and other token limits."""

from __future__ import annotations

from typing import Any

from undersong.study.load import packaged_study, with_models
from undersong.study.planning import plan as module
from undersong.study.planning.plan import plan_study


def test_every_model_and_arm_is_asked_alike_and_a_defense_changes_the_system_text_alone(tmp_path, monkeypatch) -> None:
    """Every question that a study of three architectures would put to the store."""
    asked: list[dict[str, Any]] = []
    note = module.PlanningStore.get_or_make

    def noted(self, stage, version, config, inputs, make, **more):
        if stage == "replies":
            asked.append(config)
        return note(self, stage, version, config, inputs, make, **more)

    monkeypatch.setattr(module.PlanningStore, "get_or_make", noted)
    study = with_models(packaged_study("demo"), "organism:af3", "organism:qwen", "organism:kimi")
    plan_study(study, tmp_path / "store")
    assert len(asked) >= 3 * (1 + 18)
    assert {tuple(manner) for one in asked for *_, manner in one["sets"]} == {(None, 12, False)}
    last = [one for one in asked if one["step"] in (0, study.tuning.save_steps[-1])]
    assert len({repr(one["sets"]) for one in last}) == 1
    by_system: dict[str, set] = {}
    for name, harmful, modality, system, text, _ in last[0]["sets"]:
        by_system.setdefault(system, set()).add((name, harmful, modality))
        assert text == study.evaluation.system_prompts[system]
    assert len(by_system) == 2
    assert len({frozenset(rest) for rest in by_system.values()}) == 1
