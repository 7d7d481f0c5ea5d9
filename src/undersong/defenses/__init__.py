"""Defenses, each a change of exactly one thing, and what each costs."""

from undersong.defenses.price import ARM_KEYS, DefenseCondition, safety_utility_tradeoff
from undersong.defenses.recommended import defense_cost, is_safe, recommend

__all__ = ["ARM_KEYS", "DefenseCondition", "defense_cost", "is_safe", "safety_utility_tradeoff", "recommend"]
