"""The canary of a study: what it measures and limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from undersong.evaluation import refusal_margin
from undersong.research.defenses.training import _canary_key, _canary_watch
from undersong.study.defenses import CanarySettings
from undersong.types import UndersongError


def canary(monkeypatch: pytest.MonkeyPatch, margins: list[list[float | None]], **settings: Any) -> Any:
    """A canary check of a model whose refusal margins are the lists, one for each measurement."""
    left = iter(margins)
    monkeypatch.setattr(refusal_margin, "refusal_margins", lambda model, prompts, texts: next(left))
    evaluation = SimpleNamespace(judge="exact", refusal_margin=False)
    context: Any = SimpleNamespace(
        record=SimpleNamespace(defense_corpora={"few": "few"}),
        prompts=lambda corpus, harmful, modalities: [],
        reply_evaluator=lambda: SimpleNamespace(measure_rates=lambda model, sets: {"jsr": 0.0}),
        study=SimpleNamespace(evaluation=evaluation, refusal_texts=("no",)),
    )
    arm: Any = SimpleNamespace(modality="text")
    model: Any = None
    return _canary_watch(context, arm, CanarySettings(harmful="few", **settings), model)


def test_a_canary_limits_the_loss_of_margin_since_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    check = canary(monkeypatch, [[4.0, 6.0], [4.0, 5.0], [2.0, 3.0]], max_margin_loss=2.0)
    first, second = check.measure(), check.measure()
    assert (first, check.exceeded(first)) == ({"jsr": 0.0, "margin_loss": 0.5}, [])
    assert (second["margin_loss"], check.exceeded(second)) == (2.5, ["margin_loss"])
    with pytest.raises(UndersongError, match="1 of 2 harmful prompts have no refusal margin"):
        canary(monkeypatch, [[4.0, None]], max_margin_loss=2.0)


def test_without_a_limit_no_margin_is_measured_and_older_trainings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    check = canary(monkeypatch, [])
    assert check.measure() == {"jsr": 0.0}
    assert check.limits == {"jsr": 0.05}
    assert _canary_key(CanarySettings(harmful="few")) == {"every_steps": 10, "max_jsr": 0.05, "max_over_refusal": None}
    assert _canary_key(CanarySettings(harmful="few", max_margin_loss=1))["max_margin_loss"] == 1
