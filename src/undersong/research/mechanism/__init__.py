"""Mechanistic analysis of refusal: directions, gaps, probes, interventions and drift.

Does not import pipeline stages.
"""
