"""Defenses, each a change of exactly one thing, and what each costs."""

from undersong.defenses.price import Defense, price

__all__ = ["Defense", "price"]
