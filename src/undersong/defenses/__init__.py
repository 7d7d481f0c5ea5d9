"""Defenses, each a change of exactly one thing, and what each costs."""

from undersong.defenses.recommendation import defense_cost, is_safe, recommend
from undersong.defenses.tradeoff import ARM_KEYS, DefenseCondition, safety_utility_tradeoff

__all__ = ["ARM_KEYS", "DefenseCondition", "defense_cost", "is_safe", "safety_utility_tradeoff", "recommend"]
