"""A study's defenses: each makes its own adapter, vector or question of every undefended arm, and is asked the same.

Knows the rooms below and the store; what a defense is worth is told in `results`.
"""

from undersong.defenses.run import prepare_defenses, run_defenses

__all__ = ["run_defenses", "prepare_defenses"]
