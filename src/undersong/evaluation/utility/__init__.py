"""Utility scorers: judges of whether a benign prompt is answered correctly.

A reply that cannot be parsed is `unparsed`, never a guess.
"""
