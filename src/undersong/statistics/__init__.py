"""Interval estimates, paired tests, inference over runs, multiple testing, agreement and balance.

Works on arrays only; reads no files.
"""
