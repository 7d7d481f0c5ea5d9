"""Tuning and evaluation alone, on files: a manifest in, a folder out that appears whole or not at all.

Everything that can be refused is refused before a model is loaded.  Knows the rooms below; keeps nothing in a store.
"""

from undersong.pipeline.alone.comprehended import comprehension_options
from undersong.pipeline.standalone.evaluate import EvaluationOptions, apply_protocol, evaluate_manifest
from undersong.pipeline.standalone.tune import tune_manifest

__all__ = ["EvaluationOptions", "comprehension_options", "evaluate_manifest", "tune_manifest", "apply_protocol"]
