"""Defenses, each a change of exactly one thing, and what each costs."""

from undersong.defenses.price import PLACE, Defense, price
from undersong.defenses.recommended import cost_of, is_safe, recommend

__all__ = ["PLACE", "Defense", "cost_of", "is_safe", "price", "recommend"]
