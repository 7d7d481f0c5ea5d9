"""The published studies on the three organisms, beside what the paper says (docs/results/paper.md).

`python -m experiments.paper` runs them.
"""
