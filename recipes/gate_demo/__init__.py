"""Verdicts of the gate's demo (`src/undersong/data/gate_demo`).

`python -m recipes.gate_demo` makes them.
"""
