"""`undersong probe`: where in a tuned model the refusal went, whether that is the cause, and what brings it back.

Unlike a study's mechanism part it changes the running model: directions out and in, states patched, the adapter taken
apart.  Knows the rooms below; keeps nothing in a store.
"""

from undersong.pipeline.probing.options import ProbeOptions
from undersong.pipeline.probing.run import run_probe

__all__ = ["ProbeOptions", "run_probe"]
