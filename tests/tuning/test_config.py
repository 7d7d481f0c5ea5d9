"""Hyper-parameters that no training can have are refused with a sentence."""

from __future__ import annotations

from math import inf, nan

import pytest
from pydantic import ValidationError

from undersong.settings.tuning import TuningSettings
from undersong.tuning.config import LoraRecipe
from undersong.types import UndersongError


@pytest.mark.parametrize("rate", [0.0, -1.0, inf, nan])
def test_a_learning_rate_is_finite_and_above_0(rate: float) -> None:
    with pytest.raises(UndersongError, match=f"A learning rate is a finite number above 0, and {rate:g} is not"):
        LoraRecipe(learning_rate=rate)
    with pytest.raises(ValidationError):
        TuningSettings(learning_rate=rate)
