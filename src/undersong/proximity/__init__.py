"""Cosine distances to a reference harm set, selections by rule, agreement between axes and the screening score.

Works on vectors and ids only.
"""
