"""Verdicts on a changed model: the gate, the watch over a training, the audit of an adapter, and the model card.

Imports no study."""
